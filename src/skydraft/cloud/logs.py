"""A cloud's logs: events and facts about them, and nothing that a device said.

Callers log constant sentences and give numbers, names and codes as `extra={"facts": {...}}`. Four things are prevented:
other libraries' loggers stay at warnings, because at debug level they print frames and headers; tracebacks are printed
without the texts of their exceptions, which may quote what a device sent; a pipe that is not read blocks only the
thread that writes; and a peer that causes the same warning again and again does not fill a disk.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from skydraft.config import LogFormat, LogLevel

MAX_UNWRITTEN = 1000  # lines that wait until the stream takes them
FLUSH_S = 1.0  # that the end of the process waits for the stream
MAX_REPEATS, PERIOD_S = 10, 10.0  # of the same warning
MAX_KINDS = 100  # different warnings that are counted

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure_logs(log_format: LogFormat, level: LogLevel, stream: TextIO = sys.stderr) -> None:
    """Send this process's logs to a stream, one line each (tracebacks of `text` take several)."""
    handler = StreamThread(stream)
    handler.addFilter(RepeatFilter())
    handler.setFormatter(LineFormatter(log_format))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("skydraft").setLevel(level.upper())


def flush_logs() -> None:
    """Wait until what was logged is written, FLUSH_S at most."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class StreamThread(logging.Handler):
    """Writes lines in a thread of its own; where too many wait, new ones are counted and dropped.

    A stream of the system is written to without Python's buffer, whose lock the end of the process would wait for.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_UNWRITTEN)
        self._num_dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="skydraft-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            if self._num_dropped:
                line = f"{self._num_dropped} lines are left out: they were not read as fast as they came\n{line}"
            self._lines.put_nowait(line)
            self._num_dropped = 0
        except queue.Full:
            self._num_dropped += 1
        except Exception:  # as all handlers do it: a mistake in a line of the log ends nothing
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all is written, FLUSH_S at most."""
        until_s = time.monotonic() + FLUSH_S
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks and (left_s := until_s - time.monotonic()) > 0:
                self._lines.all_tasks_done.wait(left_s)

    def close(self) -> None:
        """End the thread, once it has written what there is."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):  # the stream is closed, at its other end or at ours
                self._write(line)
            self._lines.task_done()

    def _write(self, line: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except OSError:  # a stream of this process only
            self._stream.write(line)
            return
        data = line.encode(errors="backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]


class RepeatFilter(logging.Filter):
    """Lets the same warning or error pass MAX_REPEATS times in PERIOD_S; then the next says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._repeats: dict[str, _Repeats] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        repeats = self._repeats_of(record.getMessage(), time.monotonic())
        repeats.num_come += 1
        if repeats.num_come > MAX_REPEATS:
            repeats.num_left_out += 1
            return False
        if repeats.num_left_out:
            record.facts = _facts(record) | {"left_out": repeats.num_left_out}
            repeats.num_left_out = 0
        return True

    def _repeats_of(self, message: str, now_s: float) -> _Repeats:
        if message not in self._repeats and len(self._repeats) >= MAX_KINDS:
            self._repeats.clear()
        repeats = self._repeats.setdefault(message, _Repeats(now_s))
        if now_s - repeats.began_s > PERIOD_S:
            repeats.began_s, repeats.num_come = now_s, 0
        return repeats


@dataclass
class _Repeats:
    """Of one message. num_come: since began_s. num_left_out: since one passed."""

    began_s: float
    num_come: int = 0
    num_left_out: int = 0


class LineFormatter(logging.Formatter):
    """One line a record. text: time, level, sentence, facts, for people. json: an object, for programs."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._is_json = log_format == "json"

    def format(self, record: logging.LogRecord) -> str:
        time_of = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        if self._is_json:
            fields: dict[str, Any] = {
                "time": time_of,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **_facts(record),
            }
            return json.dumps(fields | ({"exception": exception} if record.exc_info else {}), default=str)
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = f"{time_of} {record.levelname:7} {record.name}: {record.getMessage()}{facts}"
        return f"{line}\n{exception}" if record.exc_info else line

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802
        """Where it happened and of what kind, of the error and of its causes, without their texts."""
        lines: list[str] = []
        error = ei[1]
        while error is not None:
            lines += traceback.format_tb(error.__traceback__)
            lines.append(f"{type(error).__module__}.{type(error).__qualname__}\n")
            error = error.__cause__ or error.__context__
        return "".join(lines).rstrip()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts: dict[str, Any] = getattr(record, "facts", {})
    return facts
