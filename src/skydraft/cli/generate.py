"""`skydraft generate PROMPT`"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from skydraft.cli.exit_status import ENDED_EARLY
from skydraft.cli.live_text import LiveText
from skydraft.cli.ready_device import deaf_cloud, ready_device
from skydraft.cli.results import Result, as_json, result_of_text
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import summary
from skydraft.config import DeviceSettings
from skydraft.edge.ready_device import require_language_models
from skydraft.errors import ConfigError

FROM_STDIN = "-"
MAX_CONTEXT_BYTES = 2**22  # far more than models take


def run_generate(prompt: str, context_file: Path | None, settings: DeviceSettings, is_json: bool) -> int:
    """Continue a prompt; returns the exit status.

    Raises:
        SkydraftError: as Device.generate.
    """
    screen = Screen()
    require_language_models(settings)
    text = _read(prompt)
    context = None if context_file is None else _read_context(context_file)
    if context and (warning := deaf_cloud(settings, "read the context", "read it")):
        screen.warn(warning)
    result = asyncio.run(_generate(text, context, settings, screen, is_json))
    if is_json:
        screen.json(as_json({"prompt": text}, result))
    elif screen.err.is_terminal:
        screen.note(f"{summary(result)}.")
    return 0 if result.ended_early is None else ENDED_EARLY


async def _generate(
    prompt: str, context: str | None, settings: DeviceSettings, screen: Screen, is_json: bool
) -> Result:
    async with ready_device(settings, screen) as device:
        if is_json:
            return result_of_text(await device.generate(prompt, notify=screen.warn, context=context), device.tokenizer)
        with LiveText(screen, device.tokenizer) as live:
            report = await device.generate(prompt, live.add, screen.warn, context)
        return result_of_text(report, device.tokenizer)


def _read(prompt: str) -> str:
    """The prompt, or the text on standard input.

    Raises:
        ConfigError: it is blank or not UTF-8.
    """
    try:
        text = sys.stdin.buffer.read().decode() if prompt == FROM_STDIN else prompt
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not UTF-8 text (byte {error.start}): give the prompt as text") from None
    if not text.strip():
        raise ConfigError("the prompt is blank: give a text to continue")
    return text


def _read_context(path: Path) -> str:
    """Read a text file.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, is blank or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONTEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the context {str(path)!r} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_CONTEXT_BYTES:
        raise ConfigError(f"the context {str(path)!r} has more than {MAX_CONTEXT_BYTES} bytes: give a part of it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the context {str(path)!r} is not UTF-8 text (byte {error.start}): give a text file"
        ) from None
    if not text.strip():
        raise ConfigError(f"the context {str(path)!r} is blank: leave --context out")
    return text
