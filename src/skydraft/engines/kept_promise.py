"""What self-tests found, kept in the user's cache: a model is tested once, not at each start.

What was found counts for the same files of the model, settings, processor, libraries and code of the engines.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from skydraft.core.cache_folder import cache_folder
from skydraft.engines.base import RowPromise
from skydraft.engines.settings import EngineSettings

LIBRARIES = ("numpy", "torch", "transformers", "llama-cpp-python")


class KeptPromise:
    """The place of what a test of a model in these settings found.

    Args:
        files: of the model; none: nothing is kept.
    """

    def __init__(self, files: Sequence[Path], settings: EngineSettings) -> None:
        folder = cache_folder() if files else None
        self._path = None if folder is None else folder / "self-tests" / f"{_key(files, settings)}.json"

    def load(self) -> RowPromise | None:
        """None where it was not tested, or what was kept cannot be read."""
        try:
            return None if self._path is None else msgspec.json.decode(self._path.read_bytes(), type=RowPromise)
        except (OSError, msgspec.DecodeError):
            return None

    def save(self, promise: RowPromise) -> None:
        """A cache that cannot be written to is no reason not to start."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(promise))
            new.replace(self._path)
        except OSError:
            pass


def _key(files: Iterable[Path], settings: EngineSettings) -> str:
    parts = [repr(settings), platform.machine(), _processor(), *map(_state, files), *_code()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _state(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"


def _code() -> Iterator[str]:
    """What computes the rows. A library that was built again has the same version and other files."""
    for name in LIBRARIES:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield f"{name} {found.version} {_installed_ns(found)}"
    engines = Path(__file__).parent
    yield from (f"{file.relative_to(engines)} {file.stat().st_mtime_ns}" for file in sorted(engines.rglob("*.py")))


def _installed_ns(found: Distribution) -> int | None:
    record = found.locate_file(f"{found.name.replace('-', '_')}-{found.version}.dist-info/RECORD")
    path = Path(str(record))
    return path.stat().st_mtime_ns if path.exists() else None


def _processor() -> str:
    """Its name and features: kernels are chosen by them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted(line for line in lines if line.startswith(("model name", "flags", "Features"))))
