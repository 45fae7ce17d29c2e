"""Native libraries that write to the process's standard error."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

STDERR = 2
_redirection = threading.Lock()  # the file descriptor belongs to the whole process: one redirection at a time


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: libmpg123 prints warnings there that no setting of libsndfile turns off.

    What other threads print there meanwhile is lost too: keep it around the decoder alone.
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
