"""Where settings come from, layer over layer: what a higher one says counts.

    flags                       what was typed, or given in a call
    environment variables       SKYDRAFT_CLOUD and others, as the settings name them
    a file that was named       --config FILE, or SKYDRAFT_CONFIG
    the user's own file         ~/.config/skydraft/config.toml ($XDG_CONFIG_HOME)
    defaults                    of the settings

No file is read because it lies in the working directory: a folder that somebody else made must not decide which cloud
gets a text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

import msgspec

from skydraft.config.cloud import CloudSettings
from skydraft.config.device import DeviceSettings
from skydraft.config.file import AnySettings, read_table, with_flags
from skydraft.config.gateway import GatewaySettings
from skydraft.core import setting_fields
from skydraft.errors import ConfigError

FILE_VARIABLE = "SKYDRAFT_CONFIG"
TYPED = "the command line"
TABLES: Mapping[type[msgspec.Struct], str] = {
    DeviceSettings: "device",
    GatewaySettings: "gateway",
    CloudSettings: "cloud",
}
# Of these a device needs one: what a higher layer says of one puts the other of a lower layer aside.
ALTERNATIVES = (("cloud", "target"), ("target", "cloud"))

Environment = Mapping[str, str]


class Layer(NamedTuple):
    """Settings of one source, by name, as they are written there. source: in words."""

    source: str
    values: Mapping[str, Any]


class Sourced(NamedTuple, Generic[AnySettings]):
    """Settings, and where those that were set come from, in words; the others have their defaults."""

    settings: AnySettings
    sources: Mapping[str, str]


def user_file(environment: Environment = os.environ) -> Path:
    """Where a user keeps settings; there may be none."""
    folder = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or "~").expanduser() / ".config"
    return Path(folder) / "skydraft" / "config.toml"


def layers(kind: type[AnySettings], named: Path | None = None, environment: Environment = os.environ) -> list[Layer]:
    """What files and environment say of some settings, the lowest layer first.

    Args:
        named: a file that was named; None: SKYDRAFT_CONFIG names one, or nothing does.
    Raises:
        ConfigError: a file cannot be read or is wrong, or a variable has no value of its setting.
    """
    variable = environment.get(FILE_VARIABLE)
    paths: list[Path] = []
    if (own := user_file(environment)).is_file():
        paths.append(own)
    if named is not None or variable:
        paths.append(named or Path(str(variable)))
    return [*(Layer(str(path), read_table(path, TABLES[kind])) for path in paths), *_variables(kind, environment)]


def combine(kind: type[AnySettings], found: Sequence[Layer], flags: Mapping[str, Any]) -> Sourced[AnySettings]:
    """Lay settings over each other.

    Args:
        found: the lowest first. flags: above all of them; None was not given.
    Raises:
        ConfigError: a value is wrong, or two do not go together.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    typed = {name: value for name, value in flags.items() if value is not None}
    for source, layer in (*found, Layer(TYPED, typed)):
        for name, other in ALTERNATIVES:
            if name in layer and other not in layer:
                values.pop(other, None)
                sources.pop(other, None)
        values |= layer
        sources |= dict.fromkeys(layer, source)
    return Sourced(with_flags(kind(), **values), sources)


def _variables(kind: type[AnySettings], environment: Environment) -> list[Layer]:
    """Each variable is a layer, so that it can be named; an empty one counts as unset."""
    found = []
    for field in setting_fields(kind):
        variable = field.setting and field.setting.envvar
        if not variable or not (text := environment.get(variable)):
            continue
        try:
            value = msgspec.convert(text, field.kind, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"the environment variable {variable} is {text!r}: {error}") from error
        found.append(Layer(variable, {field.name: msgspec.to_builtins(value)}))
    return found
