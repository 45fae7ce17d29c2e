"""The bundled clips: synthetic speech for the demo."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from skydraft.errors import AudioError


def bundled_clips() -> tuple[Path, ...]:
    """Paths of the bundled clips, in alphabetical order.

    Raises:
        AudioError: they are not on disk as files: skydraft was installed without them, or runs from a zip archive.
    """
    folder = Path(str(resources.files("skydraft.audio") / "clips"))
    paths = tuple(sorted(folder.glob("*.flac")))
    if not paths:
        raise AudioError(f"no bundled clips are in {str(folder)!r}; install skydraft again, unpacked, or name a file")
    return paths
