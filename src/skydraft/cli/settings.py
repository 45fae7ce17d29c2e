"""`skydraft settings`: what counts, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from skydraft.cli.screen import Screen
from skydraft.cli.terminal_text import safe_line
from skydraft.config import CloudSettings, DeviceSettings, GatewaySettings, Sourced, combine, layers, user_file

DEFAULT = "default"
HIDDEN = "(set)"  # in place of a key


def run_settings(config: Path | None, all_settings: bool, is_json: bool) -> None:
    """Print the settings of a device, a gateway and a cloud that were set; all of them, where that is asked for.

    Raises:
        ConfigError: a file or an environment variable is wrong.
    """
    screen = Screen()
    found: dict[str, Sourced[Any]] = {
        "device": combine(DeviceSettings, layers(DeviceSettings, config), {}),
        "gateway": combine(GatewaySettings, layers(GatewaySettings, config), {}),
        "cloud": combine(CloudSettings, layers(CloudSettings, config), {}),
    }
    rows = [
        (f"{table}.{name}", HIDDEN if name == "key" and value else value, sourced.sources.get(name, DEFAULT))
        for table, sourced in found.items()
        for name, value in msgspec.to_builtins(sourced.settings).items()
        if all_settings or name in sourced.sources
    ]
    if is_json:
        for name, value, source in rows:
            screen.json({"setting": name, "value": value, "source": source})
        return
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name, value, source in rows:
        lines.add_row(name, safe_line(msgspec.json.encode(value).decode()), safe_line(source))
    screen.show(lines)
    if not rows:
        screen.note(f"All settings have their defaults; your own go into {user_file()}, and --all shows them.")
