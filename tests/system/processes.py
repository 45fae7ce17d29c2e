"""The command line as people meet it: processes, their streams and their ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from skydraft.edge.local_cloud import ANNOUNCEMENT
from tests.waiting import PATIENCE_S

COMMAND = [sys.executable, "-m", "skydraft"]


class Process(subprocess.Popen[str]):
    """Its streams are piped, so that they are there."""

    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str]


def skydraft(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing to read and no terminal."""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": PATIENCE_S} | options
    return subprocess.run([*COMMAND, *map(str, arguments)], **options)


@contextlib.contextmanager
def started(*arguments: object, **options: Any) -> Iterator[Process]:
    """A command under way; killed at the end of the context."""
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    } | options
    with Process([*COMMAND, *map(str, arguments)], **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def running_cloud(model: str, port: int = 0, *flags: str) -> Iterator[tuple[Process, str]]:
    """A cloud and its address."""
    arguments = ("--model", model, "--port", str(port), "--with-stdin", *flags)
    with started("cloud", *arguments, stdin=subprocess.PIPE) as process:
        line = process.stdout.readline()
        assert line.startswith(ANNOUNCEMENT), line + process.stderr.read()
        yield process, line.removeprefix(ANNOUNCEMENT).strip()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(process_id: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def is_alive(process_id: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: to the process and all of its group, as a terminal does it."""
    os.killpg(process.pid, signal.SIGINT)
