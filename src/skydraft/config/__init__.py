"""Settings: frozen, checked when made, from a TOML file and flags.

Each field says all there is to say about its setting; the options of the commands and their help are made from it.
"""

from skydraft.config.cloud import CloudSettings
from skydraft.config.device import AUTO_DRAFT, LOOKUP_DRAFT, DeviceSettings, Offline, require_rule_fits
from skydraft.config.file import Settings, load_settings, with_flags
from skydraft.config.gateway import GatewaySettings
from skydraft.config.layers import FILE_VARIABLE, Layer, Sourced, combine, layers, user_file
from skydraft.config.shared import LogFormat, LogLevel

__all__ = [
    "AUTO_DRAFT",
    "FILE_VARIABLE",
    "LOOKUP_DRAFT",
    "CloudSettings",
    "DeviceSettings",
    "GatewaySettings",
    "Layer",
    "LogFormat",
    "LogLevel",
    "Offline",
    "Settings",
    "Sourced",
    "combine",
    "layers",
    "load_settings",
    "require_rule_fits",
    "user_file",
    "with_flags",
]
