"""The settings of a gateway: the OpenAI-compatible endpoint on a device."""

from __future__ import annotations

from typing import Annotated

import msgspec

from skydraft.config.cloud import is_web_address
from skydraft.config.shared import BehindProxy, DrainTime, LogFormatSetting, LogLevelSetting, TlsCert, TlsKey
from skydraft.core import Setting, check_settings
from skydraft.errors import require

DEFAULT_GATEWAY_PORT = 8472


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a gateway: table [gateway] of a settings file; those with a flag are options of `skydraft serve`.

    What it writes with are the settings of the device.
    """

    host: Annotated[
        str, Setting("Address that apps connect to; 127.0.0.1 serves this machine only.", "--host", "HOST")
    ] = "127.0.0.1"
    port: Annotated[
        int, Setting("Port that apps connect to; 0 takes a free one.", "--port", "PORT", bounds=(0, 65535))
    ] = DEFAULT_GATEWAY_PORT
    keys: Annotated[
        str | None,
        Setting(
            "File of API keys for apps, made with skydraft cloud-key.",
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
            "Origin of web pages that may use the endpoint, such as https://example.org; repeat the flag for several.",
            "--allow-origin",
            "ORIGIN",
            unset="none",
            group="Who may come in",
        ),
    ] = ()
    emulate_link: Annotated[
        bool,
        Setting(
            "Let each request choose an emulated round trip to the cloud, to see what it costs: the page has a switch.",
            "--emulate-link",
            group="What is shown",
        ),
    ] = False
    max_connections: Annotated[int, Setting("Requests at the same time.", bounds=(1, 2**16))] = 256
    max_connections_per_key: Annotated[int, Setting("The same, for each API key.", bounds=(1, 2**16))] = 64
    texts_together: Annotated[
        int,
        Setting("Texts written at once while several keys have some, as many of each.", bounds=(1, 2**16)),
    ] = 4
    max_body_bytes: Annotated[int, Setting("Size of a request.", bounds=(2**12, 2**30))] = 2**25
    body_s: Annotated[float, Setting("A request has to arrive within this time.", bounds=(0.1, 86400))] = 60.0
    stall_s: Annotated[
        float, Setting("A text ends if its reader does not take a piece in this time.", bounds=(0.1, 86400))
    ] = 20.0
    drain_s: DrainTime = 20.0
    log_format: LogFormatSetting = "text"
    log_level: LogLevelSetting = "warning"

    def __post_init__(self) -> None:
        check_settings(self, "gateway.")
        for origin in self.allowed_origins:
            require(is_web_address(origin), "gateway.allowed_origins", repr(origin), "as https://example.org")
