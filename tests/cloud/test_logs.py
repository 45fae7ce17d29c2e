from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from skydraft.cloud.logs import configure_logs
from skydraft.config import LogFormat, LogLevel

SECRET = "what a device said"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
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


def fail() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"cannot read {SECRET}") from error


def test_text_is_a_line_with_the_facts_behind() -> None:
    log, stream = logged("text")
    log.info("a device connected", extra={"facts": {"connection": 3, "key": "phone"}})
    assert re.fullmatch(rf"{TIME} INFO +skydraft.cloud: a device connected connection=3 key=phone\n", stream.getvalue())


def test_json_is_an_object_a_line() -> None:
    log, stream = logged("json")
    log.warning("refused %s", "it\nall", extra={"facts": {"status": 401}})
    (line,) = stream.getvalue().splitlines()
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
    text = stream.getvalue()
    assert SECRET not in text.replace('f"cannot read {SECRET}"', "")
    assert "builtins.ValueError" in text
    assert "builtins.KeyError" in text
    assert "test_logs.py" in text
    assert "in fail" in text


def test_levels_hold() -> None:
    log, stream = logged("text", "warning")
    log.info("small talk")
    log.warning("a word")
    assert "small talk" not in stream.getvalue()
    assert "a word" in stream.getvalue()


@pytest.mark.parametrize("library", ["websockets.server", "uvicorn.error", "asyncio", "urllib3"])
def test_other_libraries_say_no_more_than_warnings_at_any_level(library: str) -> None:
    _, stream = logged("text", "debug")
    other = logging.getLogger(library)
    other.debug("< BINARY %s", SECRET)
    other.info("< Authorization: Bearer %s", SECRET)
    other.warning("trouble")
    assert SECRET not in stream.getvalue()
    assert "trouble" in stream.getvalue()
