from __future__ import annotations

import asyncio
import io
import itertools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from skydraft.audio.microphone import Source, recording
from skydraft.audio.read import Clip
from skydraft.audio.samples import Samples
from skydraft.audio.windows import Window, is_heard
from skydraft.cli import listen
from skydraft.cli.listen import Listening, cut, run_listen
from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.job import Notify, OnText
from skydraft.edge.report import unwritten
from skydraft.errors import ConfigError
from tests.audio.sounds import RATE_HZ, tone, write
from tests.cli.made_up import TOKENIZER, console, printed, report

PAUSE = np.zeros(RATE_HZ, np.float32)
HEARD = np.concatenate([tone(3.0), PAUSE, np.zeros(9 * RATE_HZ, np.float32), tone(4.0), PAUSE, tone(2.0)])


class MadeUpDevice:
    """Captions every window with the same words."""

    tokenizer = TOKENIZER
    has_speech = staticmethod(is_heard)

    def draw_seed(self) -> int:
        return 0

    async def caption_window(
        self,
        window: Window,
        name: str,
        seed: int,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
    ) -> CaptionedWindow:
        if not window.has_speech:
            silent = unwritten("No speech.", Mode.HYBRID, ShareLevel.TOKENS)
            return CaptionedWindow(window.start_s, window.end_s, silent, has_speech=False)
        made = report((1, 2), text="be bi")
        on_text(made.pieces)
        return CaptionedWindow(window.start_s, window.end_s, made)


@pytest.fixture(autouse=True)
def made_up_device(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def ready_device(settings: DeviceSettings, screen: Screen, is_alone: bool) -> AsyncIterator[MadeUpDevice]:
        yield MadeUpDevice()

    monkeypatch.setattr(listen, "ready_device", ready_device)


def listening(source: Source, to: str = "text", stream: io.StringIO | None = None, duration_s: float = 0) -> Listening:
    return Listening(source, DeviceSettings(), Screen(console(), console()), to, stream, duration_s)


SPANS = [(0.0, 3.3), (11.2, 17.3), (17.3, 20.0)]


async def test_each_utterance_is_a_line_and_what_is_silent_is_none() -> None:
    heard = listening(recording(Clip("a.wav", HEARD)))
    await heard.run()
    assert printed(heard.screen.out).splitlines() == [
        "[00:00 - 00:03] be bi",
        "[00:11 - 00:17] be bi",
        "[00:17 - 00:20] be bi",
        "Summary: no emotion was named.",
    ]
    assert printed(heard.screen.err) == "Listening; Ctrl-C ends it.\n"


async def test_json_has_a_line_for_each_utterance() -> None:
    heard = listening(recording(Clip("a.wav", HEARD)), "json")
    await heard.run()
    lines = [json.loads(line) for line in printed(heard.screen.out).splitlines()]
    assert [(line["start_s"], line["end_s"]) for line in lines] == [pytest.approx(span, abs=0.35) for span in SPANS]
    assert {(line["text"], line["speech"]) for line in lines} == {("be bi", True)}


async def test_a_file_gets_subtitles() -> None:
    stream = io.StringIO()
    heard = listening(recording(Clip("a.wav", HEARD)), "vtt", stream)
    await heard.run()
    blocks = stream.getvalue().removesuffix("\n\n").split("\n\n")
    assert blocks[0] == "WEBVTT"
    assert [block.splitlines()[1] for block in blocks[1:]] == ["be bi"] * 3
    assert printed(heard.screen.out) == ""


async def test_a_file_of_plain_lines_ends_with_the_summary() -> None:
    stream = io.StringIO()
    await listening(recording(Clip("a.wav", HEARD[: 4 * RATE_HZ])), "text", stream).run()
    assert stream.getvalue().splitlines() == ["[00:00 - 00:03] be bi", "Summary: no emotion was named."]


async def test_ctrl_c_ends_it_with_the_summary() -> None:
    waiting = asyncio.Event()
    loop = asyncio.get_running_loop()

    @contextmanager
    def endless() -> Iterator[Iterator[Samples]]:
        is_left = threading.Event()

        def blocks() -> Iterator[Samples]:
            yield HEARD[: 5 * RATE_HZ]
            loop.call_soon_threadsafe(waiting.set)
            is_left.wait()

        yield blocks()
        is_left.set()

    heard = listening(endless())
    task = asyncio.create_task(heard.run())
    await waiting.wait()
    task.cancel()
    await task
    assert printed(heard.screen.out).splitlines()[-1] == "Summary: no emotion was named."


def test_listening_ends_after_the_seconds_asked_for() -> None:
    endless = itertools.repeat(np.ones(1_700, np.float32))
    assert [window[:2] for window in cut(endless, is_heard, 2.5)] == [(0.0, 2.5)]


def test_a_rest_too_short_to_be_speech_is_left() -> None:
    assert list(cut(iter([np.ones(1_599, np.float32)]), is_heard)) == []


def test_the_command_listens_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write(tmp_path / "a.wav", tone(3.0))
    run_listen(str(sound), None, 1.5, DeviceSettings(mode=Mode.CLOUD), "csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "microphone,0.000,1.500,true,,,,be bi"
    assert "the cloud writes without having heard the clip" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigError, match="cannot be written"):
        run_listen(str(sound), None, 1.5, DeviceSettings(), "csv", tmp_path)


def test_what_was_not_heard_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    listen._warn_of_loss(Screen(), 1.5)
    assert capsys.readouterr().err == "Note: captions come slower than speech: 1.50 s were not heard\n"
