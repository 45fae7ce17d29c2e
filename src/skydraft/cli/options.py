"""click options made from the fields of a settings struct: each flag is declared once, where its setting is.

click and these functions rather than typer or cyclopts: both make options of the parameters of a function or of a
dataclass, so that each setting would be declared a second time, and `--help` of a command takes 0.28 s and 0.2 s of
CPU with them before a setting is imported; with click and all settings it takes 0.2 s.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeAlias, get_args, get_origin

import click
import msgspec

from skydraft.config import FILE_VARIABLE, CloudSettings, DeviceSettings, GatewaySettings, Layer, combine, layers
from skydraft.core import Setting, SettingField, read_float, read_int, setting_fields
from skydraft.errors import ConfigError

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
Flags: TypeAlias = Mapping[str, Any]  # what was typed, by the names of the settings; None or (): not given

_READERS: dict[type, Callable[[str], float]] = {int: read_int, float: read_float}
OTHER = "Other"  # what is no setting
_NO_WORDS: Mapping[str, str] = MappingProxyType({})


class HeadedOption(click.Option):
    """An option that `--help` lists under a heading; an empty one: among the few that come first."""

    def __init__(self, *args: Any, heading: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class Number(click.ParamType[Any]):
    """Numbers in ASCII digits; click's own types read `1_0`, `nan` and digits of other scripts too.

    Args:
        kind: int or float.
        bounds: least and most; None: the settings check it.
    """

    def __init__(self, kind: type, bounds: tuple[int, int] | None = None) -> None:
        self.name = "integer" if kind is int else "float"
        self._read = _READERS[kind]
        self._bounds = bounds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if self._bounds is not None and not self._bounds[0] <= number <= self._bounds[1]:
            self.fail(f"{number} is not {self._bounds[0]} to {self._bounds[1]}.", param, ctx)
        return number


def options_of(settings_type: type[msgspec.Struct], *names: str, unset: Mapping[str, str] = _NO_WORDS) -> Decorator:
    """Give a command the options of a settings struct.

    Args:
        names: of the settings; none: all that have a flag.
        unset: what no value means to this command, where it is not what the setting says.
    """

    def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(setting_fields(settings_type)):
            setting = field.setting
            if setting is not None and setting.flag is not None and (not names or field.name in names):
                run = _option(field, setting, unset.get(field.name, setting.unset))(run)
        return run

    return decorate


CONFIG = click.option(
    "--config",
    type=Path,
    metavar="FILE",
    cls=HeadedOption,
    heading=OTHER,
    help=f"Settings file (TOML), over your own in ~/.config/skydraft/config.toml; flags and environment variables "
    f"override both. Also {FILE_VARIABLE}.",
)
JSON = click.option(
    "--json",
    "is_json",
    is_flag=True,
    cls=HeadedOption,
    heading=OTHER,
    help="Print one JSON object per line, with texts as they are; without it, control and invisible characters are "
    "left out of them.",
)
KEYS = click.option(
    "--keys", type=Path, required=True, metavar="FILE", help="The file of keys; add creates it if there is none."
)


def cloud_settings(config: Path | None, flags: Flags) -> CloudSettings:
    """What the layers of settings say, flags on top.

    Raises:
        ConfigError: a value is wrong.
    """
    return combine(CloudSettings, layers(CloudSettings, config), given(flags)).settings


def gateway_settings(config: Path | None, flags: Flags) -> GatewaySettings:
    """The settings of a file with flags over them.

    Raises:
        ConfigError: a value is wrong.
    """
    return combine(GatewaySettings, layers(GatewaySettings, config), given(flags)).settings


def device_settings(config: Path | None, flags: Flags, usual: Flags = _NO_WORDS) -> DeviceSettings:
    """The same of a device.

    Args:
        usual: what the command has in the place of defaults.
    Raises:
        ConfigError: a value is wrong, or both a running cloud and the model of a cloud to be started are named, and
            neither in a higher layer than the other.
    """
    found = [Layer("the command", usual), *layers(DeviceSettings, config)]
    settings, sources = combine(DeviceSettings, found, given(flags))
    # `doctor` has no --target, and looks at no target.
    if settings.cloud is not None and "target" in flags and "target" in sources:
        raise ConfigError(
            f"--target {settings.target} is the model of a cloud to be started and --cloud {settings.cloud} one that "
            "runs with a model of its own: leave one of them out"
        )
    return settings


def given(flags: Flags) -> dict[str, Any]:
    """The flags that were typed, as plain values such as a settings file has."""
    return {
        name: value.value if isinstance(value, enum.Enum) else value
        for name, value in flags.items()
        if value is not None and value != ()
    }


def _option(field: SettingField, setting: Setting, unset: str | None) -> Decorator:
    is_list = get_origin(field.kind) is tuple
    return click.option(
        *(flag for flag in (setting.flag, setting.alias) if flag is not None),
        field.name,
        type=str if is_list else _type(field.kind),
        default=None,
        is_flag=field.kind is bool,
        multiple=is_list,
        help=setting.help + _variable_words(setting) + _default_words(field.default, unset),
        metavar=setting.metavar,
        cls=HeadedOption,
        heading=setting.group,
    )


def _type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    kind = next((part for part in get_args(kind) if part is not NoneType), kind)
    if kind in _READERS:
        return Number(kind)
    if issubclass(kind, enum.Enum):
        return click.Choice(kind, case_sensitive=False)  # by name, which is the value in capitals
    return kind


def _variable_words(setting: Setting) -> str:
    return f" Also {setting.envvar}." if setting.envvar else ""


def _default_words(default: object, unset: str | None) -> str:
    """What `--help` says of a default: its words where there are some, else the value."""
    if unset is not None:
        return f" [default: {unset}]"
    if default is None or isinstance(default, bool):
        return ""
    return f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"
