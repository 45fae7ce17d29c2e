"""The command line: arguments -> settings -> a run.

Only `--help`'s share is imported at first; each command imports its own body when it runs.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from skydraft.cli.exit_status import INTERRUPTED


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few characters is no reason to fail
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = INTERRUPTED
    _leave(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit status: see cli/exit_status."""
    from skydraft.cli.app import app

    try:
        app(args=list(arguments), prog_name="skydraft")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _leave(status: int) -> NoReturn:
    """End; at once where something failed, for a model that still loads in a thread would hold up the usual way out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads any more
            status = status or 1
    if status:
        os._exit(status)
    sys.exit(0)
