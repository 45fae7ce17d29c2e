"""Settings: frozen, checked when made, from a TOML file and flags."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from skydraft.core import (
    AcceptanceRule,
    Mode,
    Objective,
    SamplingParams,
    ShareLevel,
    check_types,
    parse_rule,
)
from skydraft.engines.settings import require_place
from skydraft.errors import ConfigError, require
from skydraft.policies.gate import choose_gate, parse_gate
from skydraft.policies.way import parse_way
from skydraft.transport.address import DEFAULT_PORT, session_url

AnySettings = TypeVar("AnySettings", "CloudSettings", "DeviceSettings")

Offline = Literal["wait", "edge", "fail"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


def _require_range(name: str, value: float, least: float, most: float) -> None:
    require(least <= value <= most, name, value, f"{least:g} to {most:g}")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class CloudSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a cloud serves.

    model: as `engines.load.load_engine` takes it.
    num_slots: sessions that hold a KV cache at once.
    max_sessions: in all; those beyond num_slots take turns.
    max_state_bytes: of the prompts and texts of all sessions.
    max_positions: tokens of one forward pass, of all sessions together.
    prefill_tokens: of these, how many of prompts: a long prompt holds up the verdicts of others by so much at a time.
    max_length: tokens of one sequence, its prompt included; 0: what the model takes.
    grace_s: how long a session outlives its connection.
    max_draft_tokens: nodes of one offer.
    max_in_flight: offers of one session that wait.
    max_frame_bytes: of one message.
    max_prompt_tokens, max_tensor_bytes: of one prompt.
    num_threads: that the model computes with; 0: as many as there are cores.
    keys: file of API keys (`cloud.keys`); None: this machine's own users only, without a key.
    tls_cert, tls_key: PEM files.
    behind_proxy: strangers come through a proxy that ends TLS.
    allowed_origins: of web pages that may connect, as `https://example.org`; others, and by default all, may not.
    max_connections, max_connections_per_key: at once.
    open_s: within which a connection asks for its first session.
    idle_s: a connection over which nothing whole passed for so long is closed, and a session of which nothing was asked
        for so long is sent away.
    stall_s: within which a device takes a message.
    drain_s: how long running texts may go on after SIGTERM.
    otel_endpoint: base URL of an OpenTelemetry collector (OTLP over HTTP); None: no spans.
    """

    model: str = "embedded"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    num_slots: int = 8
    max_sessions: int = 1024
    max_state_bytes: int = 2**30
    max_positions: int = 1024
    prefill_tokens: int = 256
    max_length: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    grace_s: float = 60.0
    max_draft_tokens: int = 64
    max_in_flight: int = 32
    max_frame_bytes: int = 2**23
    max_prompt_tokens: int = 2**15
    max_tensor_bytes: int = 2**22
    num_threads: int = 0
    keys: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    behind_proxy: bool = False
    allowed_origins: tuple[str, ...] = ()
    max_connections: int = 1024
    max_connections_per_key: int = 256
    open_s: float = 60.0
    idle_s: float = 300.0
    stall_s: float = 20.0
    drain_s: float = 20.0
    log_format: LogFormat = "text"
    log_level: LogLevel = "warning"
    otel_endpoint: str | None = None

    def __post_init__(self) -> None:
        check_types(self, "cloud.")
        require(bool(self.model), "cloud.model", repr(self.model), "the name of a model")
        require_place(self.device, self.dtype)
        for origin in self.allowed_origins:
            require(_is_web_address(origin), "cloud.allowed_origins", repr(origin), "as https://example.org")
        if self.otel_endpoint is not None:
            is_address = _is_web_address(self.otel_endpoint)
            require(is_address, "cloud.otel_endpoint", repr(self.otel_endpoint), "as http://HOST:4318")
        _require_range("cloud.port", self.port, 0, 65535)
        _require_range("cloud.num_slots", self.num_slots, 1, 4096)
        _require_range("cloud.max_sessions", self.max_sessions, 1, 2**20)
        _require_range("cloud.max_state_bytes", self.max_state_bytes, 2**26, 2**44)
        _require_range("cloud.max_positions", self.max_positions, 16, 2**20)
        _require_range("cloud.prefill_tokens", self.prefill_tokens, 1, self.max_positions)
        _require_range("cloud.max_draft_tokens", self.max_draft_tokens, 16, 4096)
        _require_range("cloud.max_in_flight", self.max_in_flight, 1, 64)
        _require_range("cloud.max_frame_bytes", self.max_frame_bytes, 2**16, 2**30)
        _require_range("cloud.max_length", self.max_length, 0, 2**20)
        _require_range("cloud.num_threads", self.num_threads, 0, 1024)
        _require_range("cloud.grace_s", self.grace_s, 0, 86400)
        _require_range("cloud.max_prompt_tokens", self.max_prompt_tokens, 1, 2**20)
        _require_range("cloud.max_tensor_bytes", self.max_tensor_bytes, 0, 2**30)
        _require_range("cloud.max_connections", self.max_connections, 1, 2**16)
        _require_range("cloud.max_connections_per_key", self.max_connections_per_key, 1, 2**16)
        for name in ("open_s", "idle_s", "stall_s"):
            _require_range(f"cloud.{name}", getattr(self, name), 0.1, 86400)
        _require_range("cloud.drain_s", self.drain_s, 0, 86400)


class DeviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a device writes.

    draft: the draft model, as `engines.load.load_engine` takes it.
    cloud: address of the cloud; None: one is started for the occasion.
    target: the model of a cloud that is started for the occasion.
    accept: an acceptance rule; None: `rank` where the cloud does not see the evidence, else `exact`.
    gate: when a drafted block goes to the cloud; None: what fits share level and rule.
    offline: what to do when the cloud cannot be reached: wait and resume, go on with the device alone
        until it is back, or fail.
    offline_wait_s: how long `wait` waits.
    pad: messages are padded to a few sizes and leave at a fixed pace, so that who sees the connection from outside
        learns less of the text.
    raw: continue prompts as they are, also where the model has a chat format.
    objective: what drafting is to achieve, and mode auto.
    way: how drafts are made where the text is the cloud's own (rule exact): `auto` measures; see `policies/way`.
    max_escalated: share of the tokens that may go to the cloud, where blocks are escalated one by one (rank, prob).
    num_threads: that the model computes with; 0: as many as there are cores, or half where a cloud is started.
    max_length: tokens of one sequence on the device, its prompt included, and in a cloud that is started for the
        occasion; 0: what the models take, at most 4096.
    seed: of the noise that a text is sampled with; None: one is drawn for each text (or clip), and its report names it.
    block_length: tokens of a block; 0: 5, after a correction 3, after two blocks accepted whole 7.
    """

    draft: str = "embedded"
    cloud: str | None = None
    target: str = "embedded"
    key: str | None = None
    mode: Mode = Mode.HYBRID
    share: ShareLevel = ShareLevel.TOKENS
    accept: str | None = None
    gate: str | None = None
    offline: Offline = "wait"
    offline_wait_s: float = 30.0
    pad: bool = False
    raw: bool = False
    objective: Objective = Objective.LATENCY
    way: str = "auto"
    max_escalated: float = 1.0
    block_length: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 128
    max_length: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    num_threads: int = 0
    quantize: bool = False

    def __post_init__(self) -> None:
        check_types(self, "device.")
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
        _require_range("device.num_threads", self.num_threads, 0, 1024)
        _require_range("device.max_length", self.max_length, 0, 2**20)
        _require_range("device.max_escalated", self.max_escalated, 0, 1)
        _require_range("device.block_length", self.block_length, 0, 64)
        _require_range("device.offline_wait_s", self.offline_wait_s, 0, 86400)
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
