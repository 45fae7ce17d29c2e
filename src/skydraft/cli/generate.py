"""`skydraft generate PROMPT`"""

from __future__ import annotations

import asyncio
import enum
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from skydraft.cli.exit_status import ENDED_EARLY
from skydraft.cli.live_text import LiveText
from skydraft.cli.ready_device import deaf_cloud, ready_device
from skydraft.cli.results import Result, as_json, batch_as_json, result_of_text
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import summary
from skydraft.config import DeviceSettings
from skydraft.core import Grammar, json_schema
from skydraft.edge.device import Device
from skydraft.edge.job import OnText
from skydraft.edge.ready_device import require_language_models
from skydraft.edge.report import Report
from skydraft.errors import ConfigError, SkydraftError

FROM_STDIN = "-"
LAST_BREAK = re.compile(r"\r?\n\Z")
MAX_FILE_BYTES = 2**22  # far more than models take


class RequestFiles(NamedTuple):
    """Files that go with a prompt; None: there is none."""

    context: Path | None
    prediction: Path | None
    schema: Path | None


class Printed(enum.Enum):
    """How a text is printed."""

    LIVE = "live"  # as it comes, for people
    OBJECT = "object"  # a JSON object, when it has ended
    STREAM = "stream"  # a JSON object for all that comes at once, and then that of the whole


def run_generate(prompt: str, files: RequestFiles, settings: DeviceSettings, printed: Printed) -> int:
    """Continue a prompt; returns the exit status.

    Raises:
        SkydraftError: as Device.generate.
    """
    screen = Screen()
    require_language_models(settings)
    text = _read(prompt)
    context = None if files.context is None else _read_file(files.context, "context")
    prediction = None if files.prediction is None else _read_file(files.prediction, "prediction")
    grammar = None if files.schema is None else _read_schema(files.schema)
    if context and (warning := deaf_cloud(settings, "read the context", "read it")):
        screen.warn(warning)
    result = asyncio.run(_generate(Request(text, context, prediction, grammar), settings, screen, printed))
    if printed is not Printed.LIVE:
        screen.json(as_json({"prompt": text}, result))
    elif screen.err.is_terminal:
        screen.note(f"{summary(result)}.")
    return 0 if result.ended_early is None else ENDED_EARLY


class Request(NamedTuple):
    """What is asked for; as the arguments of Device.generate."""

    prompt: str
    context: str | None
    prediction: str | None
    grammar: Grammar | None


async def _generate(request: Request, settings: DeviceSettings, screen: Screen, printed: Printed) -> Result:
    prompt, context, prediction, grammar = request
    async with ready_device(settings, screen) as device:

        async def write(on_text: OnText = lambda _: None) -> Report:
            return await device.generate(prompt, on_text, screen.warn, context, prediction=prediction, grammar=grammar)

        if printed is Printed.OBJECT:
            report = await write()
        elif printed is Printed.STREAM:
            report = await write(lambda pieces: screen.json(batch_as_json(pieces)))
        else:
            with LiveText(screen) as live:
                report = await write(live.add)
            if report.is_alone and settings.offline == "tunnel":
                await tell_review(device, request, report, screen)
        return result_of_text(report)


async def tell_review(device: Device, request: Request, report: Report, screen: Screen) -> None:
    """Say what the cloud would have written where the device wrote alone, if it is back."""
    try:
        reviews = await device.review(request.prompt, report, request.context)
    except SkydraftError as error:
        screen.note(f"What the cloud would have written is not known: {error}")
        return
    for review in reviews:
        where = f"tokens {review.start + 1:,} to {review.end:,}"
        if review.is_same:
            screen.note(f"The cloud would have written {where} too.")
        else:
            screen.note(f"In place of {where} the cloud would have written: {review.cloud_text}")


def _read(prompt: str) -> str:
    """The prompt, or the text on standard input without the line break that `echo` and editors end it with.

    Raises:
        ConfigError: it is blank or not UTF-8.
    """
    try:
        text = LAST_BREAK.sub("", sys.stdin.buffer.read().decode()) if prompt == FROM_STDIN else prompt
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not UTF-8 text (byte {error.start}): give the prompt as text") from None
    if not text.strip():
        raise ConfigError("the prompt is blank: give a text to continue")
    return text


def _read_file(path: Path, what: str) -> str:
    """Read a text file: the context or the prediction.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, is blank or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the {what} {str(path)!r} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"the {what} {str(path)!r} has more than {MAX_FILE_BYTES} bytes: give a part of it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the {what} {str(path)!r} is not UTF-8 text (byte {error.start}): give a text file"
        ) from None
    if not text.strip():
        raise ConfigError(f"the {what} {str(path)!r} is blank: leave --{what} out")
    return text


def _read_schema(path: Path) -> Grammar:
    """The grammar of the JSON schema in a file.

    Raises:
        ConfigError: it cannot be read, or is no JSON object.
    """
    try:
        schema = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the schema {str(path)!r} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"the schema {str(path)!r} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"the schema {str(path)!r} is {type(schema).__name__} and must be a JSON object")
    return json_schema(schema)
