"""`skydraft cloud-key add`: makes an API key."""

from __future__ import annotations

import msgspec

from skydraft.cli.flags import KeyFlags
from skydraft.cli.screen import Screen
from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.errors import ConfigError


def run_add_key(name: str, flags: KeyFlags) -> None:
    """Put a new key into the file and print it.

    Raises:
        ConfigError: as `add_key`, or a limit is wrong.
    """
    given = {field: getattr(flags, field) for field in KeyGrant.__struct_fields__}
    try:
        grant = msgspec.convert({field: value for field, value in given.items() if value is not None}, KeyGrant)
    except msgspec.ValidationError as error:
        raise ConfigError(f"wrong limit of a key: {error}") from error
    screen = Screen()
    screen.text(add_key(flags.keys, name, grant))
    screen.note(f"This is the only time that the key is shown; {flags.keys} keeps its hash.")
