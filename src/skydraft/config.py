"""Settings: frozen, checked when made, from a TOML file and flags.

Each field says all there is to say about its setting; the options of the commands and their help are made from it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from skydraft.core import (
    AcceptanceRule,
    Exact,
    Mode,
    Objective,
    Rank,
    SamplingParams,
    Setting,
    ShareLevel,
    check_settings,
    parse_rule,
)
from skydraft.engines.settings import DTYPES, require_place
from skydraft.errors import ConfigError, require
from skydraft.policies.draft_length import MAX_DRAFT_LENGTH, UgsdDraftLength
from skydraft.policies.gate import AlwaysGate, EntropyGate, choose_gate, parse_gate
from skydraft.policies.way import parse_way
from skydraft.text.checkpoint import DEFAULT_MAX_LENGTH
from skydraft.transport.address import DEFAULT_PORT, session_url

AnySettings = TypeVar("AnySettings", "CloudSettings", "DeviceSettings")

Offline = Literal["wait", "edge", "fail"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

MODELS = "a folder, a Hugging Face name, a GGUF file, or 'embedded'"
ADAPTIVE = UgsdDraftLength()
DeviceName = Annotated[str, Setting("Where models run: cpu, cuda, cuda:N, mps or auto.", "--device", "NAME")]
Dtype = Annotated[str, Setting(f"Number format of the weights: {', '.join(DTYPES)}.", "--dtype", "TYPE")]


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class CloudSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a cloud: table [cloud] of a settings file; those with a flag are options of `skydraft cloud`."""

    model: Annotated[str, Setting(f"The model to serve: {MODELS}.", "--model", "MODEL")] = "embedded"
    host: Annotated[str, Setting("Address to listen on; 127.0.0.1 serves this machine only.", "--host", "HOST")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Setting("Port to listen on; 0 takes a free one.", "--port", "PORT", bounds=(0, 65535))] = (
        DEFAULT_PORT
    )
    num_slots: Annotated[
        int, Setting("Sessions that have a KV cache at the same time.", "--slots", "N", bounds=(1, 4096))
    ] = 8
    max_sessions: Annotated[
        int, Setting("Sessions at the same time; those beyond num_slots take turns.", bounds=(1, 2**20))
    ] = 1024
    max_state_bytes: Annotated[
        int, Setting("Memory for the prompts and texts of all sessions.", bounds=(2**26, 2**44))
    ] = 2**30
    max_positions: Annotated[int, Setting("Tokens in one forward pass, over all sessions.", bounds=(16, 2**20))] = 1024
    prefill_tokens: Annotated[
        int,
        Setting(
            "Prompt tokens in one forward pass, 1 to max_positions: a long prompt delays the verdicts of other "
            "sessions by so much at a time."
        ),
    ] = 256
    max_length: Annotated[
        int,
        Setting(
            "Maximum number of tokens in a session, prompt included.",
            "--max-length",
            "N",
            unset=f"the model's limit, at most {DEFAULT_MAX_LENGTH}",
            bounds=(0, 2**20),
        ),
    ] = 0
    num_threads: Annotated[
        int, Setting("Threads that the model computes with.", "--threads", "N", unset="one per core", bounds=(0, 1024))
    ] = 0
    device: DeviceName = "cpu"
    dtype: Dtype = "float32"
    grace_s: Annotated[
        float, Setting("How long a session outlives its connection.", "--grace", "SECONDS", bounds=(0, 86400))
    ] = 60.0
    max_draft_tokens: Annotated[int, Setting("Tokens in one offer.", bounds=(16, 4096))] = 64
    max_in_flight: Annotated[int, Setting("Offers of one session that wait to be judged.", bounds=(1, 64))] = 32
    max_frame_bytes: Annotated[int, Setting("Size of one message.", bounds=(2**16, 2**30))] = 2**23
    max_prompt_tokens: Annotated[int, Setting("Tokens in one prompt.", bounds=(1, 2**20))] = 2**15
    max_tensor_bytes: Annotated[int, Setting("Size of the features in one prompt.", bounds=(0, 2**30))] = 2**22
    keys: Annotated[
        str | None,
        Setting(
            "File of API keys, made with skydraft cloud-key.",
            "--keys",
            "FILE",
            unset="none; only this machine is served",
        ),
    ] = None
    tls_cert: Annotated[str | None, Setting("TLS certificate chain (PEM).", "--tls-cert", "FILE")] = None
    tls_key: Annotated[str | None, Setting("Private key of the certificate (PEM).", "--tls-key", "FILE")] = None
    behind_proxy: Annotated[bool, Setting("A proxy terminates TLS: listen without it.", "--behind-proxy")] = False
    allowed_origins: Annotated[
        tuple[str, ...],
        Setting(
            "Origin of web pages that may connect, such as https://example.org; repeat the flag for several.",
            "--allow-origin",
            "ORIGIN",
            unset="none",
        ),
    ] = ()
    max_connections: Annotated[int, Setting("Connections at the same time.", bounds=(1, 2**16))] = 1024
    max_connections_per_key: Annotated[int, Setting("The same, for each API key.", bounds=(1, 2**16))] = 256
    open_s: Annotated[
        float, Setting("A connection that has opened no session after this time is closed.", bounds=(0.1, 86400))
    ] = 60.0
    idle_s: Annotated[
        float,
        Setting(
            "A connection without a whole message for this time is closed, and so is a session without a request.",
            bounds=(0.1, 86400),
        ),
    ] = 300.0
    stall_s: Annotated[
        float, Setting("A connection is closed if a device does not take a message in this time.", bounds=(0.1, 86400))
    ] = 20.0
    drain_s: Annotated[
        float,
        Setting("How long texts in progress may continue after SIGTERM.", "--drain", "SECONDS", bounds=(0, 86400)),
    ] = 20.0
    log_format: Annotated[LogFormat, Setting("Format of the log on standard error.", "--log-format")] = "text"
    log_level: Annotated[LogLevel, Setting("Least severe messages that are logged.", "--log-level")] = "warning"
    otel_endpoint: Annotated[
        str | None,
        Setting(
            "OpenTelemetry collector that gets traces (OTLP over HTTP), such as http://HOST:4318.",
            "--otel-endpoint",
            "URL",
            unset="no traces",
            envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_settings(self, "cloud.")
        require(bool(self.model), "cloud.model", repr(self.model), "the name of a model")
        require_place(self.device, self.dtype)
        for origin in self.allowed_origins:
            require(_is_web_address(origin), "cloud.allowed_origins", repr(origin), "as https://example.org")
        if self.otel_endpoint is not None:
            is_address = _is_web_address(self.otel_endpoint)
            require(is_address, "cloud.otel_endpoint", repr(self.otel_endpoint), "as http://HOST:4318")
        is_part = 1 <= self.prefill_tokens <= self.max_positions
        require(is_part, "cloud.prefill_tokens", self.prefill_tokens, f"1 to max_positions ({self.max_positions:,})")


class DeviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a device: table [device] of a settings file, and options of the commands that are a device."""

    mode: Annotated[
        Mode,
        Setting(
            "Where the text is generated. hybrid: the device drafts and the cloud verifies. edge: on the device alone. "
            "cloud: in the cloud alone. auto: whichever serves the objective best.",
            "--mode",
        ),
    ] = Mode.HYBRID
    objective: Annotated[
        Objective,
        Setting(
            "What --mode auto and drafting optimise. latency: the earliest text. cost: the least work in the cloud. "
            "energy: the least work on the device. privacy: the least data that leaves the device.",
            "--objective",
        ),
    ] = Objective.LATENCY
    cloud: Annotated[
        str | None,
        Setting(
            "Address of the cloud, HOST:PORT (with TLS unless it is this machine) or a URL.",
            "--cloud",
            "URL",
            unset="a cloud is started on this machine",
        ),
    ] = None
    key: Annotated[str | None, Setting("API key of the cloud.", "--key", "KEY", envvar="SKYDRAFT_KEY")] = None
    draft: Annotated[str, Setting(f"The draft model, on the device: {MODELS}.", "--draft", "MODEL")] = "embedded"
    target: Annotated[str, Setting("The target model, if a cloud is started on this machine.", "--target", "MODEL")] = (
        "embedded"
    )
    share: Annotated[
        ShareLevel,
        Setting(
            "What may leave the device. none: nothing (with --mode edge). tokens: token ids, but no evidence. "
            "features: model inputs too, from which speech can be reconstructed.",
            "--share",
        ),
    ] = ShareLevel.TOKENS
    accept: Annotated[
        str | None,
        Setting(
            "When a drafted token is accepted: exact, rejection, rank:R or prob:X.",
            "--accept",
            "RULE",
            unset=f"{Exact()}; {Rank()} if the cloud does not get the evidence",
        ),
    ] = None
    gate: Annotated[
        str | None,
        Setting(
            "Which drafted blocks go to the cloud: entropy:NATS, margin:PROB, logprob:NATS, always or never.",
            "--gate",
            "GATE",
            unset=f"{AlwaysGate()}; {EntropyGate()} if the cloud does not get the evidence",
        ),
    ] = None
    temperature: Annotated[
        float,
        Setting("Sampling temperature: 0 is greedy, 1 samples as the model predicts.", "--temperature", "T"),
    ] = 0.0
    top_k: Annotated[int, Setting("Sample from the K most probable tokens.", "--top-k", "K", unset="from all")] = 0
    top_p: Annotated[
        float, Setting("Sample from the fewest tokens that have probability P together.", "--top-p", "P")
    ] = 1.0
    seed: Annotated[
        int | None,
        Setting(
            "Random seed: the same seed gives the same text.",
            "--seed",
            "N",
            unset="drawn for each text or file; the summary and --json name it",
        ),
    ] = None
    max_tokens: Annotated[int, Setting("Maximum number of tokens to generate.", "--max-tokens", "N")] = 128
    max_length: Annotated[
        int,
        Setting(
            "Maximum number of tokens in a text with its prompt, on the device and in a cloud that is started on this "
            "machine.",
            "--max-length",
            "N",
            unset=f"the model's limit, at most {DEFAULT_MAX_LENGTH}",
            bounds=(0, 2**20),
        ),
    ] = 0
    way: Annotated[
        str,
        Setting(
            "How drafts are made under the rule exact. auto: chosen by measurement. wait:N, pipelined:N, prepared:N: "
            "chains of N tokens. tree: trees, one after the other. free: trees, without waiting for an answer. cloud: "
            "no drafts.",
            "--way",
            "WAY",
        ),
    ] = "auto"
    max_escalated: Annotated[
        float,
        Setting(
            "Maximum share of the tokens that go to the cloud under the rules rank and prob, 0 to 1.",
            "--max-escalated",
            "SHARE",
            bounds=(0, 1),
        ),
    ] = 1.0
    block_length: Annotated[
        int,
        Setting(
            "Number of tokens in a drafted block.",
            "--block-length",
            "N",
            unset=f"{ADAPTIVE.base}, adapting between {ADAPTIVE.after_correction} and {ADAPTIVE.after_agreement}",
            bounds=(0, MAX_DRAFT_LENGTH),
        ),
    ] = 0
    offline: Annotated[
        Offline,
        Setting(
            "What to do when the cloud cannot be reached. wait: try again and resume. edge: continue on the device "
            "until the cloud is back. fail: stop with an error.",
            "--offline",
        ),
    ] = "wait"
    offline_wait_s: Annotated[
        float, Setting("How long --offline wait tries again.", "--offline-wait", "SECONDS", bounds=(0, 86400))
    ] = 30.0
    pad: Annotated[
        bool,
        Setting(
            "Pad messages to a few sizes and send them at a fixed pace, so that an observer of the connection learns "
            "less: takes 5 kB/s in each direction and adds 50 ms to a round trip.",
            "--pad",
        ),
    ] = False
    num_threads: Annotated[
        int,
        Setting(
            "Threads that the model computes with.",
            "--threads",
            "N",
            unset="one per core; half as many if a cloud is started on this machine",
            bounds=(0, 1024),
        ),
    ] = 0
    device: DeviceName = "cpu"
    dtype: Dtype = "float32"
    quantize: Annotated[bool, Setting("Quantize the draft model to 8 bits: less memory, CPU only.", "--quantize")] = (
        False
    )
    raw: Annotated[
        bool,
        Setting(
            "Continue the prompt without the model's chat format; names of special tokens in it are read as such.",
            "--raw",
        ),
    ] = False

    def __post_init__(self) -> None:
        check_settings(self, "device.")
        for name in ("draft", "target"):
            require(bool(getattr(self, name)), f"device.{name}", "''", "the name of a model")
        require_place(self.device, self.dtype, self.quantize)
        SamplingParams(
            max_tokens=self.max_tokens,
            seed=self.seed or 0,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
        )
        parse_way(self.way)
        if self.gate is not None:
            parse_gate(self.gate)
        if self.accept is not None:
            require_rule_fits(self, parse_rule(self.accept))
        if self.cloud is not None:
            session_url(self.cloud)
        if self.share is ShareLevel.NONE and self.mode not in (Mode.EDGE, Mode.AUTO):
            raise ConfigError(
                f"share level none lets nothing leave the device, and mode {self.mode.value} needs a cloud: "
                "use mode edge, or share tokens or features"
            )


def require_rule_fits(settings: DeviceSettings, rule: AcceptanceRule) -> None:
    """Refuse a gate or a cap that would commit tokens unjudged under a rule that promises the cloud's text, and a rule
    that tells more than the objective privacy allows.

    Raises:
        ConfigError: naming both.
    """
    choose_gate(settings.gate, settings.share, rule, settings.objective)
    if settings.objective is Objective.PRIVACY and settings.mode is Mode.HYBRID and rule.draft_lattice is not None:
        raise ConfigError(
            f"the objective is privacy, and under the rule {rule} the device sends with each token what else it might "
            "have drafted: use the rule exact, or mode edge or cloud"
        )
    if settings.max_escalated < 1 and settings.mode is not Mode.EDGE and rule.promises_cloud_text:
        raise ConfigError(
            f"max_escalated is {settings.max_escalated:g}, and under the rule {rule} the cloud judges every token: "
            "use the rule rank:R or prob:x, or leave max_escalated out"
        )


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A settings file: tables [device] and [cloud]."""

    device: DeviceSettings = DeviceSettings()
    cloud: CloudSettings = CloudSettings()


def load_settings(path: Path | None) -> Settings:
    """Read a TOML file; None gives the defaults.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown key or a wrong value.
    """
    if path is None:
        return Settings()
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Settings)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"the settings file {path} has a wrong setting: {error}") from error


def with_flags(settings: AnySettings, **flags: object) -> AnySettings:
    """Settings with flags over them; flags that are None were not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return msgspec.convert({**msgspec.structs.asdict(settings), **given}, type(settings))
    except msgspec.ValidationError as error:
        raise ConfigError(f"wrong setting: {error}") from error
