"""The settings of a cloud."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from skydraft.config.shared import (
    MODELS,
    BehindProxy,
    DeviceName,
    DrainTime,
    Dtype,
    LogFormatSetting,
    LogLevelSetting,
    MaxLength,
    MaxPrefixBytes,
    TlsCert,
    TlsKey,
)
from skydraft.core import Setting, check_settings
from skydraft.engines.settings import require_place
from skydraft.errors import require
from skydraft.transport.address import DEFAULT_PORT


class CloudSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a cloud: table [cloud] of a settings file; those with a flag are options of `skydraft cloud`."""

    model: Annotated[
        str, Setting(f"The target model, which is served: {MODELS}.", "--target", "MODEL", alias="--model")
    ] = "embedded"
    host: Annotated[str, Setting("Address to listen on; 127.0.0.1 serves this machine only.", "--host", "HOST")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Setting("Port to listen on; 0 takes a free one.", "--port", "PORT", bounds=(0, 65535))] = (
        DEFAULT_PORT
    )
    num_slots: Annotated[
        int,
        Setting(
            "Sessions that have a KV cache at the same time.", "--slots", "N", bounds=(1, 4096), group="This machine"
        ),
    ] = 8
    max_sessions: Annotated[
        int, Setting("Sessions at the same time; those beyond num_slots take turns.", bounds=(1, 2**20))
    ] = 1024
    max_state_bytes: Annotated[
        int, Setting("Memory for the prompts and texts of all sessions.", bounds=(2**26, 2**44))
    ] = 2**30
    max_swap_bytes: Annotated[
        int,
        Setting(
            "Memory for the KV caches of sessions that have lost their slots to others; a session whose cache is not "
            "kept has its text read again.",
            bounds=(0, 2**44),
        ),
    ] = 2**30
    max_prefix_bytes: MaxPrefixBytes = 2**30
    max_positions: Annotated[int, Setting("Tokens in one forward pass, over all sessions.", bounds=(16, 2**20))] = 1024
    prefill_tokens: Annotated[
        int,
        Setting(
            "Prompt tokens in one forward pass, 1 to max_positions: a long prompt delays the verdicts of other "
            "sessions by so much at a time."
        ),
    ] = 256
    max_length: MaxLength = 0
    num_threads: Annotated[
        int,
        Setting(
            "Threads that the model computes with.",
            "--threads",
            "N",
            unset="one per core",
            bounds=(0, 1024),
            group="This machine",
        ),
    ] = 0
    device: DeviceName = "cpu"
    dtype: Dtype = "float32"
    fast_math: Annotated[
        bool,
        Setting(
            "Compute as fast as can be, even where logits then depend on what else is computed with them, so that "
            "texts may differ from what the cloud alone would write.",
            "--fast-math",
            group="This machine",
        ),
    ] = False
    skip_self_test: Annotated[
        bool,
        Setting(
            "Load the model without testing whether its logits depend on what else is computed with them.",
            "--no-self-test",
            group="This machine",
        ),
    ] = False
    grace_s: Annotated[
        float,
        Setting(
            "How long a session outlives its connection.", "--grace", "SECONDS", bounds=(0, 86400), group="Sessions"
        ),
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
    tls_cert: TlsCert = None
    tls_key: TlsKey = None
    behind_proxy: BehindProxy = False
    allowed_origins: Annotated[
        tuple[str, ...],
        Setting(
            "Origin of web pages that may connect, such as https://example.org; repeat the flag for several.",
            "--allow-origin",
            "ORIGIN",
            unset="none",
            group="Who may come in",
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
    drain_s: DrainTime = 20.0
    log_format: LogFormatSetting = "text"
    log_level: LogLevelSetting = "warning"
    otel_endpoint: Annotated[
        str | None,
        Setting(
            "OpenTelemetry collector that gets traces (OTLP over HTTP), such as http://HOST:4318.",
            "--otel-endpoint",
            "URL",
            unset="no traces",
            envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
            group="Logs",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_settings(self, "cloud.")
        require(bool(self.model), "cloud.model", repr(self.model), "the name of a model")
        require_place(self.device, self.dtype)
        for origin in self.allowed_origins:
            require(is_web_address(origin), "cloud.allowed_origins", repr(origin), "as https://example.org")
        if self.otel_endpoint is not None:
            is_address = is_web_address(self.otel_endpoint)
            require(is_address, "cloud.otel_endpoint", repr(self.otel_endpoint), "as http://HOST:4318")
        is_part = 1 <= self.prefill_tokens <= self.max_positions
        require(is_part, "cloud.prefill_tokens", self.prefill_tokens, f"1 to max_positions ({self.max_positions:,})")


def is_web_address(text: str) -> bool:
    """Whether a text is as https://HOST:PORT."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
