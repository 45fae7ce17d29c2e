"""Settings: frozen, checked when made, from a TOML file and flags.

Each field says all there is to say about its setting; the options of the commands and their help are made from it.
"""

from skydraft.config.cloud import CloudSettings, LogFormat, LogLevel
from skydraft.config.device import AUTO_DRAFT, DeviceSettings, Offline, require_rule_fits
from skydraft.config.file import Settings, load_settings, with_flags
from skydraft.config.gateway import GatewaySettings

__all__ = [
    "AUTO_DRAFT",
    "CloudSettings",
    "DeviceSettings",
    "GatewaySettings",
    "LogFormat",
    "LogLevel",
    "Offline",
    "Settings",
    "load_settings",
    "require_rule_fits",
    "with_flags",
]
