"""Settings that several of device, cloud and gateway have, declared once."""

from __future__ import annotations

from typing import Annotated, Literal

from skydraft.core import Setting
from skydraft.engines.settings import DTYPES
from skydraft.text.checkpoint import DEFAULT_MAX_LENGTH

MODELS = "a folder, a Hugging Face name, a GGUF file, 'embedded' or 'stories'"
DeviceName = Annotated[
    str, Setting("Where models run: cpu, cuda, cuda:N, mps or auto.", "--device", "NAME", group="This machine")
]
Dtype = Annotated[
    str, Setting(f"Number format of the weights: {', '.join(DTYPES)}.", "--dtype", "TYPE", group="This machine")
]
MaxLength = Annotated[
    int,
    Setting(
        "Maximum number of tokens of a text and its prompt together.",
        "--max-length",
        "N",
        unset=f"the model's limit, at most {DEFAULT_MAX_LENGTH}",
        bounds=(0, 2**20),
        group="This machine",
    ),
]
MaxPrefixBytes = Annotated[
    int,
    Setting(
        "Memory for what was read of prompts, so that others that begin with the same words need not read them again; "
        "0 keeps nothing.",
        "--prefix-cache",
        "BYTES",
        bounds=(0, 2**44),
        group="This machine",
    ),
]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormatSetting = Annotated[LogFormat, Setting("Format of the log on standard error.", "--log-format", group="Logs")]
LogLevelSetting = Annotated[LogLevel, Setting("Least severe messages that are logged.", "--log-level", group="Logs")]
TlsCert = Annotated[str | None, Setting("TLS certificate chain (PEM).", "--tls-cert", "FILE", group="Who may come in")]
TlsKey = Annotated[
    str | None, Setting("Private key of the certificate (PEM).", "--tls-key", "FILE", group="Who may come in")
]
BehindProxy = Annotated[
    bool, Setting("A proxy terminates TLS: listen without it.", "--behind-proxy", group="Who may come in")
]
DrainTime = Annotated[
    float,
    Setting(
        "How long texts in progress may continue after SIGTERM.",
        "--drain",
        "SECONDS",
        bounds=(0, 86400),
        group="Sessions",
    ),
]
