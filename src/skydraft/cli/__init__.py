"""The command line: arguments -> settings -> a run.

Each command imports its body when it runs, so that --help is quick.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from skydraft.cli.exit_status import INTERRUPTED


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    sys.stdout, sys.stderr = _whole(sys.stdout), _whole(sys.stderr)
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = INTERRUPTED
    _leave(status)


def _whole(stream: TextIO) -> TextIO:
    """A stream that loses nothing: neither a character that a terminal lacks, which must not end the command, nor the
    rest of what the system took in part. PYTHONUNBUFFERED leaves no buffer that would write the rest.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if isinstance(stream.buffer, io.RawIOBase):
        number, errors = stream.fileno(), "backslashreplace"
        return open(number, "w", buffering=1, encoding=stream.encoding, errors=errors, closefd=False)
    stream.reconfigure(errors="backslashreplace")
    return stream


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit status: see cli/exit_status."""
    from skydraft.cli.app import app

    try:
        app(args=list(arguments), prog_name="skydraft")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _leave(status: int) -> NoReturn:
    """End the process. After a failure at once: the usual way would wait for a model that still loads in a thread."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader has closed the output
            status = status or 1
    if status:
        os._exit(status)
    sys.exit(0)
