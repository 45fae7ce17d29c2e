"""One declaration for each setting: its type and default on the field, its help, flag and bounds beside them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from skydraft.errors import ConfigError, first_line, require


@dataclass(frozen=True)
class Setting:
    """What there is to say about a setting, as `name: Annotated[int, Setting(...)] = 8`.

    help: what it sets, in one or two sentences; `--help` shows it, and the default after it.
    flag: its option on the command line; None: it can be set in a settings file only.
    metavar: what `--help` shows for its value.
    unset: what the default means, for a default that does not say so itself: None, or 0 for "no limit".
    bounds: the least and the largest number that are allowed.
    envvar: an environment variable that sets it too.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    unset: str | None = None
    bounds: tuple[float, float] | None = None
    envvar: str | None = None


class SettingField(NamedTuple):
    """A field of a settings struct: kind is its type without the annotation."""

    name: str
    kind: Any
    default: Any
    setting: Setting


def setting_fields(settings_type: type[msgspec.Struct]) -> list[SettingField]:
    """The fields that are declared with a `Setting`, in their order."""
    return [
        SettingField(field.name, get_args(field.type)[0], field.default, setting)
        for field in msgspec.structs.fields(settings_type)
        for setting in get_args(field.type)
        if isinstance(setting, Setting)
    ]


def check_settings(settings: msgspec.Struct, where: str = "") -> None:
    """Check the type and the bounds of each field; for the `__post_init__` of a settings struct.

    msgspec checks types when it converts (a file), but not in a constructor call. Words of an enumeration and whole
    numbers become members and floats here, in both cases. `force_setattr` is how msgspec lets the `__post_init__` of
    a frozen struct set a field; without it, each place that makes settings would have to convert before.

    Args:
        where: what to put before a field's name.
    Raises:
        ConfigError: a value has another type or is out of bounds.
    """
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        try:
            msgspec.structs.force_setattr(settings, field.name, msgspec.convert(value, field.type))
        except msgspec.ValidationError as error:
            words = _words_of(field.type)
            wanted = f"must be one of {', '.join(words)}" if words else f"is of the wrong type: {first_line(error)}"
            raise ConfigError(f"{where}{field.name} is {value!r} and {wanted}") from None
    for name, _, _, setting in setting_fields(type(settings)):
        if setting.bounds is not None:
            least, most = setting.bounds
            value = getattr(settings, name)
            require(least <= value <= most, f"{where}{name}", value, f"{least:,} to {most:,}")


def _words_of(kind: Any) -> tuple[str, ...]:
    """The words that a setting takes; none where it takes other values too."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, enum.StrEnum) else ()
