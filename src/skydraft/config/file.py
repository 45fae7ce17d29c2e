"""A settings file (TOML), and flags over settings."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from skydraft.config.cloud import CloudSettings
from skydraft.config.device import DeviceSettings
from skydraft.config.gateway import GatewaySettings
from skydraft.errors import ConfigError

AnySettings = TypeVar("AnySettings", CloudSettings, DeviceSettings, GatewaySettings)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A settings file: tables [device], [gateway] and [cloud]."""

    device: DeviceSettings = DeviceSettings()
    gateway: GatewaySettings = GatewaySettings()
    cloud: CloudSettings = CloudSettings()


def load_settings(path: Path | None) -> Settings:
    """Read a TOML file; None gives the defaults.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown key or a wrong value.
    """
    return Settings() if path is None else _read(path)[1]


def read_table(path: Path, table: str) -> dict[str, Any]:
    """What a file says in one of its tables, and only that; errors as `load_settings`, of the other table too."""
    values: dict[str, Any] = _read(path)[0].get(table, {})
    return values


def with_flags(settings: AnySettings, **flags: object) -> AnySettings:
    """Settings with flags over them; flags that are None were not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return msgspec.convert({**msgspec.structs.asdict(settings), **given}, type(settings))
    except msgspec.ValidationError as error:
        raise ConfigError(f"wrong setting: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], Settings]:
    """As it is written, and what it means."""
    try:
        content = tomllib.loads(path.read_text())
        return content, msgspec.convert(content, Settings)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"the settings file {path} has a wrong setting: {error}") from error
