"""One declaration for each setting: its type and default on the field, its help, flag and bounds beside them."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from skydraft.errors import ConfigError, first_line, require


@dataclass(frozen=True)
class Setting:
    """What there is to say about a setting, as `name: Annotated[int, Setting(...)] = 8`.

    help: what it sets, in one or two sentences; `--help` shows it, and the default after it.
    flag: its option on the command line; None: it can be set in a settings file only. alias: another word for it.
    metavar: what `--help` shows for its value.
    unset: what the default means, for a default that does not say so itself: None, or 0 for "no limit".
    bounds: the least and the largest number that are allowed; None is, where the type takes it.
    envvar: an environment variable that sets it too.
    group: the heading of `--help` that it stands under; empty: it is one of the few that come first.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    unset: str | None = None
    bounds: tuple[float, float] | None = None
    envvar: str | None = None
    group: str = ""
    alias: str | None = None


class SettingField(NamedTuple):
    """A field of a settings struct. kind: its type, without the annotation. setting: None if it is declared without."""

    name: str
    kind: Any
    default: Any
    setting: Setting | None


@functools.cache  # msgspec evaluates all annotations in each call
def setting_fields(settings_type: type[msgspec.Struct]) -> tuple[SettingField, ...]:
    """The fields of a settings struct, in their order."""
    return tuple(_setting_field(field) for field in msgspec.structs.fields(settings_type))


def _setting_field(field: msgspec.structs.FieldInfo) -> SettingField:
    if get_origin(field.type) is not Annotated:
        return SettingField(field.name, field.type, field.default, None)
    kind, *notes = get_args(field.type)
    setting = next((note for note in notes if isinstance(note, Setting)), None)
    return SettingField(field.name, kind, field.default, setting)


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
    for name, kind, _, setting in setting_fields(type(settings)):
        value = getattr(settings, name)
        try:
            msgspec.structs.force_setattr(settings, name, msgspec.convert(value, kind))
        except msgspec.ValidationError as error:
            words = _words_of(kind)
            wanted = f"must be one of {', '.join(words)}" if words else f"is of the wrong type: {first_line(error)}"
            raise ConfigError(f"{where}{name} is {value!r} and {wanted}") from None
        if setting is not None and setting.bounds is not None and value is not None:
            least, most = setting.bounds
            require(least <= value <= most, f"{where}{name}", value, f"{least:,} to {most:,}")


def _words_of(kind: Any) -> tuple[str, ...]:
    """The words that a setting takes; none where it takes other values too."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, enum.StrEnum) else ()
