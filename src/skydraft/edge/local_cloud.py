"""A cloud that a command starts on this machine: a process of its own, which ends with the one that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from skydraft.errors import TransportError

ANNOUNCEMENT = "skydraft cloud listens on "  # what `skydraft cloud` prints before its address
STOP_S = 5.0


@asynccontextmanager
async def local_cloud(model: str, *arguments: str, start_s: float = 300.0) -> AsyncIterator[str]:
    """Run `skydraft cloud` on a free port for as long as the context lasts.

    Args:
        model: what it serves.
        arguments: further ones of its command line.
        start_s: how long loading may take.
    Yields:
        Its address.
    Raises:
        TransportError: it did not start; with its own last words.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "skydraft", "cloud", "--target", model),
        *("--port", "0", "--with-stdin", "--drain", "0", *arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=2**20,
        start_new_session=True,  # Ctrl-C is for the process that started it, which then ends it
    )  # fmt: skip
    errors = asyncio.create_task(_tail(process.stderr))
    try:
        yield await _started(process, errors, model, start_s)
    finally:
        await _stop(process)
        await errors


async def _started(process: asyncio.subprocess.Process, errors: asyncio.Task[str], model: str, start_s: float) -> str:
    """Its address, as soon as it takes connections."""
    try:
        return await asyncio.wait_for(_address(process), start_s)
    except TimeoutError as error:
        raise TransportError(f"a cloud for {model} did not start within {start_s:g} s") from error
    except EOFError as error:
        last_words = await errors
        raise TransportError(f"a cloud for {model} did not start: {last_words}") from error


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        text = line.decode(errors="replace").strip()
        if text.startswith(ANNOUNCEMENT):
            return text.removeprefix(ANNOUNCEMENT)
    raise EOFError


async def _tail(stream: asyncio.StreamReader | None) -> str:
    """Read to the end; the last line that is not empty."""
    last = "it said nothing"
    assert stream is not None
    while line := await stream.readline():
        last = line.decode(errors="replace").strip().removeprefix("Error: ") or last
    return last


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)  # process.terminate() would take the status away from asyncio's watcher
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
