"""The flags: each one with its help, named as the setting that it overrides. None: not given."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import click

from skydraft.config import (
    CloudSettings,
    DeviceSettings,
    LogFormat,
    LogLevel,
    Offline,
    load_settings,
    with_flags,
)
from skydraft.core import Mode, Objective, ShareLevel, read_float, read_int
from skydraft.errors import ConfigError

_READERS: dict[type, Callable[[str], float]] = {int: read_int, float: read_float}


class Number(click.ParamType[Any]):
    """Numbers in ASCII digits; click's own types read `1_0`, `nan` and digits of other scripts too.

    Args:
        kind: int or float.
        least, most: what is allowed; None: what the settings allow.
    """

    def __init__(self, kind: type, least: int | None = None, most: int | None = None) -> None:
        self.name = "integer" if kind is int else "float"
        self._read = _READERS[kind]
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if (self._least is not None and number < self._least) or (self._most is not None and number > self._most):
            self.fail(f"{number} is not {self._least} to {self._most}.", param, ctx)
        return number


MODELS = "a folder, a Hugging Face name, a GGUF file, or 'embedded'"


@dataclasses.dataclass(frozen=True)
class Flag:
    """How a field is typed on the command line; its kind is the field's annotation."""

    name: str
    help: str
    metavar: str | None = None
    envvar: str | None = None
    hidden: bool = False
    bounds: click.ParamType[Any] | None = None


ModelFlag = Annotated[str | None, Flag("--draft", metavar="MODEL", help=f"The device's model: {MODELS}.")]
TargetFlag = Annotated[
    str | None, Flag("--target", metavar="MODEL", help="The model of a cloud that is started for the occasion.")
]
ShareFlag = Annotated[
    ShareLevel | None,
    Flag(
        "--share",
        help="What may leave the device. none: nothing (with --mode edge). tokens: token ids, no evidence. "
        "features: model inputs too, from which speech can be made audible again. [default: tokens]",
    ),
]
AcceptFlag = Annotated[
    str | None,
    Flag(
        "--accept",
        metavar="RULE",
        help="When a drafted token holds: exact, rejection, rank:R or prob:X. "
        "[default: exact; rank:20 where the cloud does not see what the device does]",
    ),
]
ThreadsFlag = Annotated[
    int | None,
    Flag(
        "--threads",
        metavar="N",
        help="Threads a model computes with. [default: as many as cores; half, where a cloud is started]",
    ),
]
DeviceFlag = Annotated[
    str | None, Flag("--device", metavar="NAME", help="Where models run: cpu, cuda, cuda:1, mps. [default: cpu]")
]
DtypeFlag = Annotated[
    str | None,
    Flag("--dtype", metavar="TYPE", help="Of the weights: float32, bfloat16, float16 or auto. [default: float32]"),
]
KeyFlag = Annotated[str | None, Flag("--key", metavar="KEY", envvar="SKYDRAFT_KEY", help="API key of the cloud.")]
QuantizeFlag = Annotated[
    bool | None, Flag("--quantize", help="Round the device's model to 8 bits: less memory, on a CPU.")
]
KeysFlag = Annotated[Path, Flag("--keys", metavar="FILE", help="The file of keys; add makes it where there is none.")]
ConfigFlag = Annotated[Path | None, Flag("--config", metavar="FILE", help="Settings (TOML); flags go over them.")]
JsonFlag = Annotated[
    bool,
    Flag(
        "--json",
        help="Print one JSON object a line, with texts as they are; without it, control and invisible characters are "
        "left out of them.",
    ),
]
DebugFlag = Annotated[bool, Flag("--debug", help="Show the traceback of an error. Also SKYDRAFT_DEBUG=1.")]


class DeviceFlags:
    """Flags of a command that is a device."""

    config: Path | None

    def settings(self) -> DeviceSettings:
        """The settings file's, with these flags over them.

        Raises:
            ConfigError: a value is wrong.
        """
        in_file, given = load_settings(self.config).device, _settings_in(self, DeviceSettings)
        settings = with_flags(in_file, **given)
        if "target" in given:
            _require_one_cloud(settings, given["target"] is not None, given.get("cloud") is not None)
        return settings


@dataclasses.dataclass(frozen=True)
class WritingFlags(DeviceFlags):
    """What `caption` and `generate` take."""

    mode: Annotated[
        Mode | None,
        Flag(
            "--mode",
            help="Who writes. hybrid: the device drafts and the cloud judges. edge: the device alone. "
            "cloud: the cloud alone. auto: whichever serves the objective. [default: hybrid]",
        ),
    ] = None
    objective: Annotated[
        Objective | None,
        Flag(
            "--objective",
            help="What drafting is to achieve. latency: the soonest text. cost: little work in the cloud. "
            "energy: little on the device. privacy: little that leaves it. [default: latency]",
        ),
    ] = None
    cloud: Annotated[
        str | None,
        Flag(
            "--cloud",
            metavar="URL",
            help="The cloud, as HOST:PORT (over TLS, but for this machine) or a URL. "
            "[default: one is started for the occasion]",
        ),
    ] = None
    key: KeyFlag = None
    draft: ModelFlag = None
    target: TargetFlag = None
    share: ShareFlag = None
    accept: AcceptFlag = None
    gate: Annotated[
        str | None,
        Flag(
            "--gate",
            metavar="GATE",
            help="Which drafted blocks go to the cloud: entropy:NATS, margin:PROB, logprob:NATS, always or never. "
            "[default: always; entropy:2.5 where the cloud does not see what the device does]",
        ),
    ] = None
    temperature: Annotated[
        float | None, Flag("--temperature", metavar="T", help="0 is greedy; 1 is the model's own law. [default: 0]")
    ] = None
    top_k: Annotated[
        int | None, Flag("--top-k", metavar="K", help="Keep the K most probable tokens. [default: all]")
    ] = None
    top_p: Annotated[
        float | None, Flag("--top-p", metavar="P", help="Keep the fewest tokens of probability P. [default: 1, all]")
    ] = None
    seed: Annotated[
        int | None,
        Flag(
            "--seed",
            metavar="N",
            help="The same seed, the same text. [default: drawn for each text or file; the summary and --json name it]",
        ),
    ] = None
    max_tokens: Annotated[
        int | None, Flag("--max-tokens", metavar="N", help="A text ends after N tokens. [default: 128]")
    ] = None
    max_length: Annotated[
        int | None,
        Flag(
            "--max-length",
            metavar="N",
            help="Tokens of a text and its prompt that models hold, on the device and in a cloud that is started for "
            "the occasion. [default: what the model takes, at most 4096]",
        ),
    ] = None
    way: Annotated[
        str | None,
        Flag(
            "--way",
            metavar="WAY",
            help="How drafts are made under exact: auto measures; wait:N, pipelined:N and prepared:N (chains of N "
            "tokens), tree, free and cloud are fixed. [default: auto]",
        ),
    ] = None
    max_escalated: Annotated[
        float | None,
        Flag(
            "--max-escalated",
            metavar="SHARE",
            help="Of the tokens under rank and prob, 0 to 1 may be judged. [default: 1]",
        ),
    ] = None
    block_length: Annotated[
        int | None,
        Flag(
            "--block-length",
            metavar="N",
            help="Tokens of a draft that is judged as a block. [default: 5, adapting between 3 and 7]",
        ),
    ] = None
    offline: Annotated[
        Offline | None,
        Flag(
            "--offline",
            help="When the cloud cannot be reached. wait: try again and resume. edge: the device goes on alone until "
            "it is back. fail: end with an error. [default: wait]",
        ),
    ] = None
    offline_wait_s: Annotated[
        float | None, Flag("--offline-wait", metavar="SECONDS", help="How long wait waits. [default: 30]")
    ] = None
    pad: Annotated[
        bool | None,
        Flag(
            "--pad",
            help="Pad messages to a few sizes and send at a fixed pace, so that who watches the connection learns "
            "less: 5 kB/s in each direction, 50 ms a round trip.",
        ),
    ] = None
    num_threads: ThreadsFlag = None
    device: DeviceFlag = None
    dtype: DtypeFlag = None
    quantize: QuantizeFlag = None
    raw: Annotated[
        bool | None,
        Flag(
            "--raw",
            help="Continue a prompt as it is, also where the model has a chat format; the names of special tokens in "
            "it are read as such.",
        ),
    ] = None
    config: ConfigFlag = None
    json: JsonFlag = False
    debug: DebugFlag = False


@dataclasses.dataclass(frozen=True)
class GenerateFlags(WritingFlags):
    """What `generate` takes beside that."""

    context: Annotated[
        Path | None,
        Flag(
            "--context",
            metavar="FILE",
            help="A text that the prompt is about: the device reads it, the cloud only with --share features.",
        ),
    ] = None


@dataclasses.dataclass(frozen=True)
class DemoFlags(DeviceFlags):
    """What `demo` takes."""

    clip: Annotated[
        Path | None, Flag("--clip", metavar="FILE", help="A sound file. [default: one that comes with skydraft]")
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


@dataclasses.dataclass(frozen=True)
class DoctorFlags(DeviceFlags):
    """What `doctor` takes."""

    cloud: Annotated[
        str | None,
        Flag(
            "--cloud",
            metavar="URL",
            help="The cloud, as HOST:PORT (over TLS, but for this machine) or a URL. [default: none is looked at]",
        ),
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


@dataclasses.dataclass(frozen=True)
class CloudFlags:
    """What `cloud` takes."""

    model: Annotated[
        str | None, Flag("--model", metavar="MODEL", help=f"What is served: {MODELS}. [default: embedded]")
    ] = None
    host: Annotated[
        str | None, Flag("--host", metavar="HOST", help="Where to listen. [default: 127.0.0.1, this machine only]")
    ] = None
    port: Annotated[int | None, Flag("--port", metavar="PORT", help="0 takes a free one. [default: 8471]")] = None
    num_slots: Annotated[
        int | None, Flag("--slots", metavar="N", help="Sessions that hold a KV cache at once. [default: 8]")
    ] = None
    max_length: Annotated[
        int | None,
        Flag("--max-length", metavar="N", help="Tokens of a session, prompt included. [default: what the model takes]"),
    ] = None
    num_threads: ThreadsFlag = None
    device: DeviceFlag = None
    dtype: DtypeFlag = None
    grace_s: Annotated[
        float | None,
        Flag("--grace", metavar="SECONDS", help="How long a session outlives its connection. [default: 60]"),
    ] = None
    keys: Annotated[
        str | None,
        Flag(
            "--keys",
            metavar="FILE",
            help="API keys, made with skydraft cloud-key. [default: none; this machine only is served]",
        ),
    ] = None
    tls_cert: Annotated[str | None, Flag("--tls-cert", metavar="FILE", help="Certificate chain (PEM).")] = None
    tls_key: Annotated[str | None, Flag("--tls-key", metavar="FILE", help="Its private key (PEM).")] = None
    behind_proxy: Annotated[
        bool | None, Flag("--behind-proxy", help="A proxy in front ends TLS: listen without it.")
    ] = None
    allowed_origins: Annotated[
        list[str] | None,
        Flag("--allow-origin", metavar="ORIGIN", help="Web pages that may connect, as https://example.org."),
    ] = None
    drain_s: Annotated[
        float | None,
        Flag("--drain", metavar="SECONDS", help="How long running texts may go on after SIGTERM. [default: 20]"),
    ] = None
    log_format: Annotated[
        LogFormat | None, Flag("--log-format", help="Of the log on standard error. [default: text]")
    ] = None
    log_level: Annotated[
        LogLevel | None, Flag("--log-level", help="From which on things are logged. [default: warning]")
    ] = None
    otel_endpoint: Annotated[
        str | None,
        Flag(
            "--otel-endpoint",
            metavar="URL",
            envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
            help="OpenTelemetry collector, as http://HOST:4318. [default: none]",
        ),
    ] = None
    num_replicas: Annotated[
        int | None,
        Flag(
            "--ray",
            metavar="N",
            bounds=Number(int, least=1, most=1024),
            help="Serve N replicas of the model by Ray Serve on this machine, each with a GPU of its own where "
            "--device is cuda. [default: one, without Ray]",
        ),
    ] = None
    config: ConfigFlag = None
    with_stdin: Annotated[bool, Flag("--with-stdin", hidden=True, help="End when standard input closes.")] = False
    debug: DebugFlag = False

    def settings(self) -> CloudSettings:
        """As `DeviceFlags.settings`."""
        return with_flags(load_settings(self.config).cloud, **_settings_in(self, CloudSettings))


@dataclasses.dataclass(frozen=True)
class KeyFlags:
    """What `cloud-key add` takes; None: the default of cloud.keys.KeyGrant."""

    keys: KeysFlag
    max_sessions: Annotated[int | None, Flag("--max-sessions", metavar="N", help="Sessions at once. [default: 64]")] = (
        None
    )
    tokens_per_minute: Annotated[
        int | None, Flag("--tokens-per-minute", metavar="N", help="Of text. [default: 0, no limit]")
    ] = None
    max_in_flight: Annotated[
        int | None, Flag("--max-in-flight", metavar="N", help="Drafts that wait to be judged. [default: 128]")
    ] = None
    sees_metrics: Annotated[bool | None, Flag("--sees-metrics", help="It may read /metrics.")] = None
    debug: DebugFlag = False


@dataclasses.dataclass(frozen=True)
class RemoveKeyFlags:
    """What `cloud-key remove` takes."""

    keys: KeysFlag
    debug: DebugFlag = False


def _require_one_cloud(settings: DeviceSettings, is_target_typed: bool, is_cloud_typed: bool) -> None:
    """A cloud that runs has its model; only one that is named on the command line puts a file's target aside.

    Raises:
        ConfigError: both a cloud that runs and the model of one to be started are named.
    """
    is_target_in_file = settings.target != DeviceSettings().target
    if settings.cloud is not None and (is_target_typed or (is_target_in_file and not is_cloud_typed)):
        raise ConfigError(
            f"--target {settings.target} is the model of a cloud to be started and --cloud {settings.cloud} one that "
            "runs with a model of its own: leave one of them out"
        )


def options_of(flags: type[Any]) -> list[click.Option]:
    """What click takes for the fields of a dataclass of flags."""
    hints = get_type_hints(flags, include_extras=True)
    return [_option(field, *get_args(hints[field.name])) for field in dataclasses.fields(flags)]


def _option(field: dataclasses.Field[Any], hint: Any, flag: Flag) -> click.Option:
    kind = next((part for part in get_args(hint) if part is not NoneType), hint)
    is_list = get_origin(kind) is list
    return click.Option(
        [flag.name, field.name],
        type=flag.bounds or _type(get_args(kind)[0] if is_list else kind),
        **({"required": True} if field.default is dataclasses.MISSING else {"default": field.default}),
        is_flag=kind is bool,
        multiple=is_list,
        callback=(lambda context, option, value: list(value) or None) if is_list else None,
        help=flag.help,
        metavar=flag.metavar,
        envvar=flag.envvar,
        show_envvar=True,
        hidden=flag.hidden,
    )


def _type(kind: Any) -> Any:
    if kind in _READERS:
        return Number(kind)
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if issubclass(kind, enum.Enum):
        return click.Choice(kind, case_sensitive=False)  # by name, which is the value in capitals
    return kind


def _settings_in(flags: object, settings_type: type[CloudSettings | DeviceSettings]) -> dict[str, Any]:
    """The flags that are settings, plain values as a settings file would give them."""
    names = set(settings_type.__struct_fields__)
    values = {name: getattr(flags, name) for name in names if hasattr(flags, name)}
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in values.items()}
