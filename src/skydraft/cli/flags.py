"""The flags: each one with its help, named as the setting that it overrides. None: not given."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from typer import Option

from skydraft.config import CloudSettings, DeviceSettings, load_settings, with_flags
from skydraft.core import Mode, Objective, SamplingParams, ShareLevel
from skydraft.policies.gate import parse_gate
from skydraft.policies.way import parse_way
from skydraft.transport.address import session_url

Flags = TypeVar("Flags")

MODELS = "a folder, a Hugging Face name, a GGUF file, or 'embedded'"


class OfflineChoice(enum.StrEnum):
    """config.Offline as typer takes it."""

    WAIT = "wait"
    EDGE = "edge"
    FAIL = "fail"


class LogFormatChoice(enum.StrEnum):
    """config.LogFormat as typer takes it."""

    TEXT = "text"
    JSON = "json"


class LogLevelChoice(enum.StrEnum):
    """config.LogLevel as typer takes it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


ModelFlag = Annotated[str | None, Option("--draft", metavar="MODEL", help=f"The device's model: {MODELS}.")]
TargetFlag = Annotated[
    str | None, Option("--target", metavar="MODEL", help="The model of a cloud that is started for the occasion.")
]
ShareFlag = Annotated[
    ShareLevel | None,
    Option(
        "--share",
        help="What may leave the device. none: nothing (with --mode edge). tokens: token ids, no evidence. "
        "features: model inputs too, from which speech can be made audible again. [default: tokens]",
    ),
]
AcceptFlag = Annotated[
    str | None,
    Option(
        "--accept",
        metavar="RULE",
        help="When a drafted token holds: exact, rejection, rank:R or prob:X. "
        "[default: exact; rank:20 where the cloud does not see what the device does]",
    ),
]
ThreadsFlag = Annotated[
    int | None, Option("--threads", metavar="N", help="Threads a model computes with. [default: as many as cores]")
]
DeviceFlag = Annotated[
    str | None, Option("--device", metavar="NAME", help="Where models run: cpu, cuda, cuda:1, mps. [default: cpu]")
]
DtypeFlag = Annotated[
    str | None,
    Option("--dtype", metavar="TYPE", help="Of the weights: float32, bfloat16, float16 or auto. [default: float32]"),
]
KeyFlag = Annotated[str | None, Option("--key", metavar="KEY", envvar="SKYDRAFT_KEY", help="API key of the cloud.")]
QuantizeFlag = Annotated[
    bool | None, Option("--quantize", help="Round the device's model to 8 bits: less memory, on a CPU.")
]
ConfigFlag = Annotated[Path | None, Option("--config", metavar="FILE", help="Settings (TOML); flags go over them.")]
JsonFlag = Annotated[bool, Option("--json", help="Print one JSON object a line.")]
DebugFlag = Annotated[bool, Option("--debug", help="Show the traceback of an error. Also SKYDRAFT_DEBUG=1.")]


@dataclasses.dataclass(frozen=True)
class WritingFlags:
    """What `caption` and `generate` take."""

    mode: Annotated[
        Mode | None,
        Option(
            "--mode",
            help="Who writes. hybrid: the device drafts and the cloud judges. edge: the device alone. "
            "cloud: the cloud alone. auto: whichever serves the objective. [default: hybrid]",
        ),
    ] = None
    objective: Annotated[
        Objective | None,
        Option(
            "--objective",
            help="What drafting is to achieve. latency: the soonest text. cost: little work in the cloud. "
            "energy: little on the device. privacy: little that leaves it. [default: latency]",
        ),
    ] = None
    cloud: Annotated[
        str | None,
        Option(
            "--cloud", metavar="URL", help="The cloud, as ws://HOST:PORT. [default: one is started for the occasion]"
        ),
    ] = None
    key: KeyFlag = None
    draft: ModelFlag = None
    target: TargetFlag = None
    share: ShareFlag = None
    accept: AcceptFlag = None
    gate: Annotated[
        str | None,
        Option(
            "--gate",
            metavar="GATE",
            help="Which drafted blocks go to the cloud: entropy:NATS, margin:PROB, logprob:NATS, always or never. "
            "[default: always; entropy:2.5 where the cloud does not see what the device does]",
        ),
    ] = None
    temperature: Annotated[
        float | None, Option("--temperature", metavar="T", help="0 is greedy; 1 is the model's own law. [default: 0]")
    ] = None
    top_k: Annotated[
        int | None, Option("--top-k", metavar="K", help="Keep the K most probable tokens. [default: all]")
    ] = None
    top_p: Annotated[
        float | None, Option("--top-p", metavar="P", help="Keep the fewest tokens of probability P. [default: 1, all]")
    ] = None
    seed: Annotated[int | None, Option("--seed", metavar="N", help="The same seed, the same text. [default: 0]")] = None
    max_tokens: Annotated[
        int | None, Option("--max-tokens", metavar="N", help="A text ends after N tokens. [default: 128]")
    ] = None
    way: Annotated[
        str | None,
        Option(
            "--way",
            metavar="WAY",
            help="How drafts are made under exact: auto measures; wait:N, pipelined:N and prepared:N (chains of N "
            "tokens), tree, free and cloud are fixed. [default: auto]",
        ),
    ] = None
    max_escalated: Annotated[
        float | None,
        Option(
            "--max-escalated",
            metavar="SHARE",
            help="Of the tokens under rank and prob, 0 to 1 may be judged. [default: 1]",
        ),
    ] = None
    block_length: Annotated[
        int | None,
        Option(
            "--block-length",
            metavar="N",
            help="Tokens of a draft that is judged as a block. [default: 5, adapting between 3 and 7]",
        ),
    ] = None
    offline: Annotated[
        OfflineChoice | None,
        Option(
            "--offline",
            help="When the cloud cannot be reached. wait: try again and resume. edge: the device goes on alone until "
            "it is back. fail: end with an error. [default: wait]",
        ),
    ] = None
    offline_wait_s: Annotated[
        float | None, Option("--offline-wait", metavar="SECONDS", help="How long wait waits. [default: 30]")
    ] = None
    num_threads: ThreadsFlag = None
    device: DeviceFlag = None
    dtype: DtypeFlag = None
    quantize: QuantizeFlag = None
    raw: Annotated[
        bool | None, Option("--raw", help="Continue a prompt as it is, also where the model has a chat format.")
    ] = None
    config: ConfigFlag = None
    json: JsonFlag = False
    debug: DebugFlag = False

    def settings(self) -> DeviceSettings:
        """The settings file's, with these flags over them.

        Raises:
            ConfigError: a value is wrong.
        """
        return checked(with_flags(load_settings(self.config).device, **_settings_in(self, DeviceSettings)))


@dataclasses.dataclass(frozen=True)
class DemoFlags:
    """What `demo` takes."""

    clip: Annotated[
        Path | None, Option("--clip", metavar="FILE", help="A sound file. [default: one that comes with skydraft]")
    ] = None
    share: ShareFlag = None
    accept: AcceptFlag = None
    draft: ModelFlag = None
    target: TargetFlag = None
    num_threads: ThreadsFlag = None
    device: DeviceFlag = None
    dtype: DtypeFlag = None
    config: ConfigFlag = None
    debug: DebugFlag = False

    def settings(self) -> DeviceSettings:
        """As `WritingFlags.settings`."""
        return checked(with_flags(load_settings(self.config).device, **_settings_in(self, DeviceSettings)))


@dataclasses.dataclass(frozen=True)
class DoctorFlags:
    """What `doctor` takes."""

    cloud: Annotated[
        str | None, Option("--cloud", metavar="URL", help="The cloud, as ws://HOST:PORT. [default: none is looked at]")
    ] = None
    key: KeyFlag = None
    draft: ModelFlag = None
    num_threads: ThreadsFlag = None
    device: DeviceFlag = None
    dtype: DtypeFlag = None
    quantize: QuantizeFlag = None
    config: ConfigFlag = None
    json: JsonFlag = False
    debug: DebugFlag = False

    def settings(self) -> DeviceSettings:
        """As `WritingFlags.settings`."""
        return checked(with_flags(load_settings(self.config).device, **_settings_in(self, DeviceSettings)))


@dataclasses.dataclass(frozen=True)
class CloudFlags:
    """What `cloud` takes."""

    model: Annotated[
        str | None, Option("--model", metavar="MODEL", help=f"What is served: {MODELS}. [default: embedded]")
    ] = None
    host: Annotated[
        str | None, Option("--host", metavar="HOST", help="Where to listen. [default: 127.0.0.1, this machine only]")
    ] = None
    port: Annotated[int | None, Option("--port", metavar="PORT", help="0 takes a free one. [default: 8471]")] = None
    num_slots: Annotated[
        int | None, Option("--slots", metavar="N", help="Sessions that hold a KV cache at once. [default: 8]")
    ] = None
    max_length: Annotated[
        int | None,
        Option(
            "--max-length", metavar="N", help="Tokens of a session, prompt included. [default: what the model takes]"
        ),
    ] = None
    num_threads: ThreadsFlag = None
    device: DeviceFlag = None
    dtype: DtypeFlag = None
    grace_s: Annotated[
        float | None,
        Option("--grace", metavar="SECONDS", help="How long a session outlives its connection. [default: 60]"),
    ] = None
    keys: Annotated[
        str | None,
        Option(
            "--keys",
            metavar="FILE",
            help="API keys, made with skydraft cloud-key. [default: none; this machine only is served]",
        ),
    ] = None
    tls_cert: Annotated[str | None, Option("--tls-cert", metavar="FILE", help="Certificate chain (PEM).")] = None
    tls_key: Annotated[str | None, Option("--tls-key", metavar="FILE", help="Its private key (PEM).")] = None
    behind_proxy: Annotated[
        bool | None, Option("--behind-proxy", help="A proxy in front ends TLS: listen without it.")
    ] = None
    allowed_origins: Annotated[
        list[str] | None,
        Option("--allow-origin", metavar="ORIGIN", help="Web pages that may connect, as https://example.org."),
    ] = None
    drain_s: Annotated[
        float | None,
        Option("--drain", metavar="SECONDS", help="How long running texts may go on after SIGTERM. [default: 20]"),
    ] = None
    log_format: Annotated[
        LogFormatChoice | None, Option("--log-format", help="Of the log on standard error. [default: text]")
    ] = None
    log_level: Annotated[
        LogLevelChoice | None, Option("--log-level", help="From which on things are logged. [default: warning]")
    ] = None
    otel_endpoint: Annotated[
        str | None,
        Option(
            "--otel-endpoint",
            metavar="URL",
            envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
            help="OpenTelemetry collector, as http://HOST:4318. [default: none]",
        ),
    ] = None
    num_replicas: Annotated[
        int | None,
        Option(
            "--ray",
            metavar="N",
            min=1,
            max=1024,
            help="Serve N replicas of the model by Ray Serve on this machine, each with a GPU of its own where "
            "--device is cuda. [default: one, without Ray]",
        ),
    ] = None
    config: ConfigFlag = None
    with_stdin: Annotated[bool, Option("--with-stdin", hidden=True, help="End when standard input closes.")] = False
    debug: DebugFlag = False

    def settings(self) -> CloudSettings:
        """As `WritingFlags.settings`."""
        return with_flags(load_settings(self.config).cloud, **_settings_in(self, CloudSettings))


@dataclasses.dataclass(frozen=True)
class KeyFlags:
    """What `cloud-key add` takes; None: the default of cloud.keys.KeyGrant."""

    keys: Annotated[Path, Option("--keys", metavar="FILE", help="The file of keys; made where there is none.")]
    max_sessions: Annotated[
        int | None, Option("--max-sessions", metavar="N", help="Sessions at once. [default: 64]")
    ] = None
    tokens_per_minute: Annotated[
        int | None, Option("--tokens-per-minute", metavar="N", help="Of text. [default: 0, no limit]")
    ] = None
    max_in_flight: Annotated[
        int | None, Option("--max-in-flight", metavar="N", help="Drafts that wait to be judged. [default: 128]")
    ] = None
    sees_metrics: Annotated[bool | None, Option("--sees-metrics", help="It may read /metrics.")] = None
    debug: DebugFlag = False


def checked(settings: DeviceSettings) -> DeviceSettings:
    """Refuse what would be refused later, before a model is loaded for it: sampling, gate, the cloud's address.

    Raises:
        ConfigError: one is wrong.
    """
    sampling = {name: getattr(settings, name) for name in ("temperature", "top_k", "top_p", "seed", "max_tokens")}
    SamplingParams(**sampling)
    if settings.gate is not None:
        parse_gate(settings.gate)
    parse_way(settings.way)
    if settings.cloud is not None:
        session_url(settings.cloud)
    return settings


def takes(flags_type: type[Flags]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a typer command take the fields of a dataclass as flags: it is called with them as `flags`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(flags_type, include_extras=True)
        options = [
            _keyword(field.name, hints[field.name], _default(field))
            for field in dataclasses.fields(flags_type)  # type: ignore[arg-type]
        ]
        own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "flags"]

        def flat(**given: Any) -> None:
            flags = flags_type(**{option.name: given.pop(option.name) for option in options})
            command(flags=flags, **given)

        parameters = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own] + options
        flat.__name__, flat.__doc__ = command.__name__, command.__doc__
        flat.__annotations__ = {item.name: item.annotation for item in parameters}
        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return flat

    return decorate


def _default(field: dataclasses.Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _settings_in(flags: object, settings_type: type[CloudSettings | DeviceSettings]) -> dict[str, Any]:
    """The flags that are settings, plain values as a settings file would give them."""
    names = set(settings_type.__struct_fields__)
    values = {name: getattr(flags, name) for name in names if hasattr(flags, name)}
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in values.items()}
