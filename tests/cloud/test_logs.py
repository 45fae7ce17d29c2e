from __future__ import annotations

import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator

import pytest

from skydraft.cloud import logs
from skydraft.cloud.logs import RepeatFilter, StreamThread, configure_logs, flush_logs
from skydraft.config import LogFormat, LogLevel
from tests.waiting import PATIENCE_S, wait_until

SECRET = "what a device said"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "FLUSH_S", PATIENCE_S)
    root, ours = logging.getLogger(), logging.getLogger("skydraft")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


def logged(log_format: LogFormat, level: LogLevel = "info") -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    configure_logs(log_format, level, stream)
    return logging.getLogger("skydraft.cloud"), stream


def written(stream: io.StringIO) -> str:
    flush_logs()
    return stream.getvalue()


def fail() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"cannot read {SECRET}") from error


def test_text_is_a_line_with_the_facts_behind() -> None:
    log, stream = logged("text")
    log.info("a device connected", extra={"facts": {"connection": 3, "key": "phone"}})
    assert re.fullmatch(rf"{TIME} INFO +skydraft.cloud: a device connected connection=3 key=phone\n", written(stream))


def test_json_is_an_object_a_line() -> None:
    log, stream = logged("json")
    log.warning("refused %s", "it\nall", extra={"facts": {"status": 401}})
    (line,) = written(stream).splitlines()
    record = json.loads(line)
    assert re.fullmatch(TIME, record.pop("time"))
    assert record == {"level": "warning", "logger": "skydraft.cloud", "message": "refused it\nall", "status": 401}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_shows_where_and_not_what(log_format: LogFormat) -> None:
    log, stream = logged(log_format, "debug")
    try:
        fail()
    except ValueError:
        log.exception("it failed")
    text = written(stream)
    assert SECRET not in text.replace('f"cannot read {SECRET}"', "")
    assert "builtins.ValueError" in text
    assert "builtins.KeyError" in text
    assert "test_logs.py" in text
    assert "in fail" in text


def test_levels_hold() -> None:
    log, stream = logged("text", "warning")
    log.info("small talk")
    log.warning("a word")
    assert "small talk" not in written(stream)
    assert "a word" in written(stream)


@pytest.mark.parametrize("library", ["websockets.server", "uvicorn.error", "asyncio", "urllib3"])
def test_other_libraries_say_no_more_than_warnings_at_any_level(library: str) -> None:
    _, stream = logged("text", "debug")
    other = logging.getLogger(library)
    other.debug("< BINARY %s", SECRET)
    other.info("< Authorization: Bearer %s", SECRET)
    other.warning("trouble")
    assert SECRET not in written(stream)
    assert "trouble" in written(stream)


# Nobody reads, or somebody wants to fill a disk


def record(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("skydraft.cloud", level, "", 0, message, None, None)


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_tells_later_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "FLUSH_S", 0.1)
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours) as pipe:
        handler = StreamThread(stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
        for number in range(5000):
            handler.handle(record(f"{number} {'x' * 200}"))
        handler.flush()
        lines = [pipe.readline() for _ in range(500)]
        wait_until(lambda: handler._lines.qsize() < logs.MAX_UNWRITTEN)
        handler.handle(record("after it"))
        lines += iter(pipe.readline, "after it\n")
        expected = 0
        for line in lines:
            number = int(line.split()[0])
            if line.endswith(" lines are left out: they were not read as fast as they came\n"):
                expected += number
            else:
                assert number == expected
                expected += 1
        assert expected == 5000
        assert len(lines) < 4000
        handler.close()
        handler._thread.join(PATIENCE_S)
        assert not handler._thread.is_alive()


def test_a_pipe_whose_reader_is_gone_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as stream:
        handler = StreamThread(stream)
        handler.handle(record("to nobody"))
        handler.flush()
        assert handler._thread.is_alive()
        handler.close()
        handler._thread.join(PATIENCE_S)
    assert capfd.readouterr() == ("", "")


def test_the_same_warning_passes_some_times_in_a_while_and_then_says_how_often_it_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    repeats = RepeatFilter()
    assert [repeats.filter(record("refused")) for _ in range(50)] == [True] * 10 + [False] * 40
    assert repeats.filter(record("something else"))
    now_s += logs.PERIOD_S + 1
    later = record("refused")
    assert repeats.filter(later)
    assert later.facts == {"left_out": 40}  # type: ignore[attr-defined]
    again = record("refused")
    assert repeats.filter(again)
    assert not hasattr(again, "facts")


def test_what_is_no_warning_passes_always_and_kinds_are_not_kept_without_end() -> None:
    repeats = RepeatFilter()
    assert all(repeats.filter(record("a device connected", logging.INFO)) for _ in range(100))
    for number in range(10 * logs.MAX_KINDS):
        assert repeats.filter(record(f"kind {number}"))
    assert len(repeats._repeats) <= logs.MAX_KINDS
