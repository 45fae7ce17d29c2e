"""A settings file (TOML), and flags over settings."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from skydraft.config.cloud import CloudSettings
from skydraft.config.device import DeviceSettings
from skydraft.config.gateway import GatewaySettings
from skydraft.core import setting_fields
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
        content = _by_name(tomllib.loads(path.read_text()), path)
        return content, msgspec.convert(content, Settings)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"the settings file {path} has a wrong setting: {error}") from error


def _by_name(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content with the settings by their names: a file may spell them as flags do (`max-tokens`, `threads`).

    Raises:
        ConfigError: a table or a key is unknown, or a setting is there in two spellings.
    """
    tables = {field.name: _spellings(field.type) for field in msgspec.structs.fields(Settings)}
    named = dict(content)
    for table, values in content.items():
        if table not in tables or not isinstance(values, dict):
            raise ConfigError(f"the settings file {path} has {_unknown(table, tables, tables)}")
        named[table] = {}
        for key, value in values.items():
            name = tables[table].get(key)
            if name is None:
                raise ConfigError(f"the settings file {path} has in [{table}] {_unknown(key, tables[table], tables)}")
            if name in named[table]:
                raise ConfigError(f"the settings file {path} has in [{table}] {name} in two spellings: leave one out")
            named[table][name] = value
    return named


def _spellings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The names of settings by what a file may call them."""
    spelled = {}
    for field in setting_fields(kind):
        spelled[field.name] = spelled[field.name.replace("_", "-")] = field.name
        for flag in (field.setting.flag, field.setting.alias) if field.setting is not None else ():
            if flag is not None:
                spelled[flag.removeprefix("--")] = field.name
    return spelled


def _unknown(key: str, known: Iterable[str], tables: Mapping[str, Mapping[str, str]]) -> str:
    """`the unknown key 'shair': did you mean 'share'?`

    Args:
        known: what may stand in its place. tables: their keys.
    """
    homes = [f"[{table}]" for table, keys in tables.items() if key in keys]
    nearest = difflib.get_close_matches(key, set(known) - {key}, 1)
    if homes:
        hint = f"it belongs in {' or '.join(homes)}"
    elif nearest:
        hint = f"did you mean {nearest[0]!r}?"
    else:
        hint = "skydraft settings --all shows what there is"
    return f"the unknown key {key!r}: {hint}"
