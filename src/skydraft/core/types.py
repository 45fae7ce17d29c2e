"""Types of settings, held where settings are made in Python."""

from __future__ import annotations

import enum
from typing import Any, Literal, get_args, get_origin

import msgspec

from skydraft.errors import ConfigError, first_line


def check_types(settings: msgspec.Struct, where: str = "") -> None:
    """Hold each field of settings against its type, as those of a file are: a constructor in Python checks none.

    Who makes settings in Python may write the word of an enumeration; it becomes its member here.

    Args:
        where: what to put before a field's name.
    Raises:
        ConfigError: a value is of another type, or none of the words.
    """
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        try:
            msgspec.structs.force_setattr(settings, field.name, msgspec.convert(value, field.type))
        except msgspec.ValidationError as error:
            words = _words_of(field.type)
            wanted = f"must be one of {', '.join(words)}" if words else f"is of the wrong type: {first_line(error)}"
            raise ConfigError(f"{where}{field.name} is {value!r} and {wanted}") from None


def _words_of(kind: Any) -> tuple[str, ...]:
    """The words that a setting takes; none where it takes more than words."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, enum.StrEnum) else ()
