"""Where this machine's user keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """A folder that nobody else can write to, for what is in it is trusted; None where there can be none."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skydraft"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except (OSError, RuntimeError):  # a disk that cannot be written to, a user without a home
        return None
    is_own = os.name != "posix" or (state.st_uid == os.geteuid() and not state.st_mode & 0o022)
    return folder if is_own else None
