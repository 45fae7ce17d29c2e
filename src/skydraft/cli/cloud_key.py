"""`skydraft cloud-key add`: creates an API key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from skydraft.cli.screen import Screen
from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.errors import ConfigError


def run_add_key(name: str, keys: Path, limits: Mapping[str, object]) -> None:
    """Add a new key to the file and print it.

    Raises:
        ConfigError: as `add_key`, or a limit is out of range.
    """
    try:
        grant = msgspec.convert(limits, KeyGrant)
    except msgspec.ValidationError as error:
        raise ConfigError(f"wrong limit of a key: {error}") from error
    screen = Screen()
    screen.text(add_key(keys, name, grant))
    screen.note(f"This is the only time that the key is shown; {keys} stores its hash.")
