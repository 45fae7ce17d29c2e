"""Silences native libraries that write to the standard error of the process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

STDERR = 2
_redirection = threading.Lock()  # the file descriptor belongs to the whole process: one redirection at a time


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to /dev/null: libmpg123 prints warnings that libsndfile cannot turn off.

    What other threads print there meanwhile is lost too, so this must enclose the decoder only.
    """
    with _redirection:
        try:
            kept = os.dup(STDERR)
        except OSError:  # a daemon without standard error: nothing to silence
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), STDERR)
            yield
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
