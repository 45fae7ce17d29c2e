"""Choices and guesses by compiled code, kernel.c, for float32 logits on a CPU.

A C compiler of the system makes it when it is first wanted, which takes a second, and keeps it in the user's cache.
`python -m skydraft.sampling.kernel` makes it beside its source instead, for installations that many users or machines
without a compiler run. Where it cannot be made, or does not choose as numpy does, there is none: numpy chooses.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from ctypes import c_double, c_int, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from array_api_compat import is_torch_array

from skydraft.core import SamplingParams
from skydraft.core.cache_folder import cache_folder
from skydraft.sampling.arrays import Array
from skydraft.sampling.gumbel_max import Place, gumbel_argmax
from skydraft.sampling.noise import Stream
from skydraft.sampling.warp import COLDEST, warp

_SOURCE = Path(__file__).with_name("kernel.c")
_IS_X86 = platform.machine() in ("x86_64", "AMD64")
_FLAGS = (
    *("-std=gnu11", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"),
    *(("-mavx2", "-mfma", "-mbmi2") if _IS_X86 else ()),
)
_COMPILE_S = 60.0
_ROWS = (c_void_p, c_int64, c_int64, c_uint32)
_WARP = (c_double, c_uint32, c_double)
_UNDECIDED = -1
MOST_WANTED = 64  # guesses of a row


class Kernel:
    """The compiled code.

    Args:
        path: of the shared library.
    Raises:
        OSError: it is no library of this machine.
        AttributeError: it is another library.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._runs_here = library.skydraft_runs_here
        self._choose = library.skydraft_choose
        self._choose.argtypes = (*_ROWS, *_WARP, c_void_p, c_void_p, c_uint32, c_void_p)
        self._guess = library.skydraft_guess
        self._guess.argtypes = (*_ROWS, c_int, *_WARP, c_uint64, c_void_p, c_uint32, c_int, c_uint32, *[c_void_p] * 3)
        self._choose.restype = self._guess.restype = None

    def choose(self, rows: Array, params: SamplingParams, places: Sequence[Place], stream: Stream) -> list[int | None]:
        """The sampled token of each row; None where rounding errors leave it open or no token can be sampled.

        Args:
            rows: as `rows_for` gives them.
        """
        num_rows = len(places)
        seeds = (c_uint64 * num_rows)(*[seed for seed, _ in places])
        positions = (c_uint32 * num_rows)(*[position for _, position in places])
        choices = (c_int64 * num_rows)()
        self._choose(*_shape(rows), *_warp(params, rows.shape[1]), seeds, positions, stream, choices)
        return [None if choice == _UNDECIDED else choice for choice in choices]

    def guess(
        self, rows: Array, params: SamplingParams, positions: Sequence[int], count: int, max_candidates: int
    ) -> list[tuple[tuple[int, ...], tuple[float, ...]]] | None:
        """Ids and scores of the best guesses of each row, of the max_candidates most probable tokens, as `Guesses` has
        them; None where a row has none.

        The weight of the tokens that are no candidates is taken to some per cent, so scores of rows where these have a
        large share are some thousandths off.

        Args:
            rows: as `rows_for` gives them.
            count: at most MOST_WANTED.
        """
        num_rows, vocab_size = rows.shape
        numbers, at = (c_int * num_rows)(), (c_uint32 * num_rows)(*positions)
        token_ids, scores = (c_int64 * (num_rows * count))(), (c_double * (num_rows * count))()
        where = (params.seed, at, Stream.TARGET, count, min(max_candidates, vocab_size))
        self._guess(*_shape(rows), params.is_greedy, *_warp(params, vocab_size), *where, numbers, token_ids, scores)
        if _UNDECIDED in numbers:
            return None
        parts = [slice(row * count, row * count + number) for row, number in enumerate(numbers)]
        return [(tuple(token_ids[part]), tuple(scores[part])) for part in parts]

    def is_right(self) -> bool:
        """Whether it runs on this processor and chooses as numpy does, in a few rows of each kind."""
        if not self._runs_here():
            return False
        irregular = np.cos(np.arange(3 * 9001.0) ** 1.5)
        rows = (np.reshape(irregular, (3, 9001)) * [[3.0], [9.0], [27.0]]).astype(np.float32)
        places = [(2**64 - 59, 2**32 - 1), (7, 0), (8, 123)]
        for cut in ({}, {"top_k": 30}, {"top_p": 0.9}, {"top_k": 30, "top_p": 0.9}):
            params = SamplingParams(temperature=0.8, **cut)
            if self.choose(rows, params, places, Stream.TARGET) != gumbel_argmax(
                warp(rows, params), places, Stream.TARGET
            ):
                return False
        return True


def rows_for(logits: Array) -> Array | None:
    """Logits [num_rows, vocab_size] as the kernel takes them, float32 in numpy; None where that loses something."""
    if is_torch_array(logits):
        if logits.device.type != "cpu" or not logits.dtype.is_floating_point or logits.dtype.itemsize > 4:
            return None
        logits = logits.detach().float().numpy()
    if logits.dtype not in (np.float16, np.float32) or logits.shape[1] == 0:
        return None
    rows = logits.astype(np.float32, copy=False)
    return rows if rows.strides[1] == rows.itemsize and rows.ctypes.data % 4 == 0 else np.ascontiguousarray(rows)


def kernel_for(logits: Array) -> tuple[Kernel, Array] | None:
    """The kernel, and these logits [num_rows, vocab_size] as `rows_for` gives them; None where arrays are to choose."""
    compiled = kernel()
    rows = None if compiled is None else rows_for(logits)
    return None if compiled is None or rows is None else (compiled, rows)


@cache
def kernel() -> Kernel | None:
    """The kernel, which is compiled if need be."""
    if os.name != "posix":
        return None
    beside = _SOURCE.with_name(_name())
    if beside.exists():
        return _load(beside)
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / _name()
    return _load(path) if path.exists() or _compile(path) is None else None


def _name() -> str:
    """Another one for each version of the source and each kind of machine."""
    kind = " ".join((sys.platform, platform.machine(), *_FLAGS))
    return f"kernel-{hashlib.sha256(_SOURCE.read_bytes() + kind.encode()).hexdigest()[:16]}.so"


def _load(path: Path) -> Kernel | None:
    try:
        loaded = Kernel(path)
    except (OSError, AttributeError):
        return None
    return loaded if loaded.is_right() else None


def _compile(path: Path) -> str | None:
    """Make the library; returns what was in the way, None where nothing was."""
    compiler = _compiler()
    if compiler is None:
        return "no C compiler was found (cc, gcc, clang, or what CC names)"
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [*compiler, *_FLAGS, "-o", str(made), str(_SOURCE), "-lm"]
            outcome = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
            if outcome.returncode != 0:
                return f"{shlex.join(command)} failed: {outcome.stderr.strip()}"
            made.replace(path)  # at once, for others may be making it too
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def _compiler() -> list[str] | None:
    if named := shlex.split(os.environ.get("CC", "")):
        return named
    if sys.platform == "darwin" and subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode:
        return None  # cc is there, but only opens a window that offers to install it
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return None if found is None else [found]


def _shape(rows: Array) -> tuple[int, ...]:
    num_rows, vocab_size = rows.shape
    return rows.ctypes.data, num_rows, rows.strides[0] // rows.itemsize, vocab_size


def _warp(params: SamplingParams, vocab_size: int) -> tuple[float, int, float]:
    """Temperature, top_k (0: all) and top_p; a greedy guess is one of all tokens at temperature 1."""
    if params.is_greedy:
        return 1.0, 0, 1.0
    return max(params.temperature, COLDEST), min(params.top_k, vocab_size), params.top_p


def main() -> None:
    """Make the library beside its source, and say where it is."""
    path = _SOURCE.with_name(_name())
    if (obstacle := _compile(path)) is not None:
        sys.exit(f"the compiled choices were not made: {obstacle}")
    print(path)


if __name__ == "__main__":
    main()
