"""`skydraft cloud-key`: creates API keys and lists them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from skydraft.cli.screen import Screen
from skydraft.cloud.access.keys import KeyGrant, add_key, read_keys
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


def run_list_keys(keys: Path, is_json: bool) -> None:
    """Print the keys of a file: their names and their limits, where these are not the usual ones.

    Raises:
        ConfigError: as `read_keys`.
    """
    screen, usual = Screen(), msgspec.structs.asdict(KeyGrant())
    for name, entry in read_keys(keys).items():
        limits = {field: getattr(entry, field) for field in usual}
        if is_json:
            screen.json({"name": name, **limits})
        else:
            changed = (f"{field}={value}" for field, value in limits.items() if value != usual[field])
            screen.text("  ".join((name, *changed)))
