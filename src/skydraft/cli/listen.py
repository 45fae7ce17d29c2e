"""`skydraft listen`: captions of what the microphone hears, as each utterance ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from skydraft.audio.decode import MIN_DURATION_S
from skydraft.audio.microphone import Source, microphone, recording
from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples
from skydraft.audio.windows import HasSpeech, Window, WindowCutter
from skydraft.cli.caption_output import JSON, TEXT, open_output
from skydraft.cli.live_text import LiveText
from skydraft.cli.ready_device import deaf_cloud, ready_device
from skydraft.cli.recordings import read_recording
from skydraft.cli.results import as_json, result_of_clip, to_line
from skydraft.cli.screen import Screen
from skydraft.cli.terminal_text import safe_text, seconds
from skydraft.config import DeviceSettings
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.device import Device
from skydraft.tasks.cues import CUE_FORMATS, Cue
from skydraft.tasks.recording_summary import summarise

NAME = "microphone"


def run_listen(
    file: str | None, device_name: str | None, duration_s: float, settings: DeviceSettings, to: str, path: Path | None
) -> None:
    """Caption what is heard until it ends, or Ctrl-C.

    Args:
        file: a recording in the place of the microphone; `-`: standard input.
        device_name: as `microphone` takes it.
        duration_s: after which listening ends; 0: it does not.
        to, path: the format of the captions and a file for them.
    Raises:
        SkydraftError: the source cannot be opened or read, or as `Device.caption_window`.
        ConfigError: the file for the captions cannot be written.
    """
    screen = Screen()
    if warning := deaf_cloud(settings, "heard the clip", "hear"):
        screen.warn(warning)
    source = microphone(device_name, lambda lost_s: _warn_of_loss(screen, lost_s))
    if file is not None:
        source = recording(read_recording(file))
    with nullcontext() if path is None else open_output(path) as stream:
        asyncio.run(Listening(source, settings, screen, to, stream, duration_s).run())


@dataclass
class Listening:
    """One time of listening.

    stream: a file for the captions; None: standard output.
    """

    source: Source
    settings: DeviceSettings
    screen: Screen
    to: str = TEXT
    stream: TextIO | None = None
    duration_s: float = 0.0
    cues: list[Cue] = field(default_factory=list)

    async def run(self) -> None:
        """Caption windows until there are no more; Ctrl-C, which cancels, is a usual end."""
        self._write("" if self.to == JSON else CUE_FORMATS[self.to].header)
        async with ready_device(self.settings, self.screen, self.settings.captions_alone) as device:
            seed = device.draw_seed()
            with self.source as blocks:
                self.screen.note("Listening; Ctrl-C ends it.")
                windows = cut(blocks, device.has_speech, self.duration_s)
                try:
                    # In a thread, because it waits for sound; what comes meanwhile is kept by the source.
                    while (window := await asyncio.to_thread(next, windows, None)) is not None:
                        await self._caption(device, window, seed)
                except asyncio.CancelledError:
                    pass
        if self.to == TEXT:
            self._write(f"Summary: {summarise(self.cues)}.\n")

    async def _caption(self, device: Device, window: Window, seed: int) -> None:
        screen = self.screen
        if self.to != TEXT or self.stream is not None:
            self._show(await device.caption_window(window, NAME, seed, notify=screen.warn), device)
        elif not window.has_speech:
            self.cues.append((await device.caption_window(window, NAME, seed)).cue)
        else:
            with LiveText(screen, is_timed=True) as live:
                live.next_window(window)
                captioned = await device.caption_window(window, NAME, seed, live.add, screen.warn)
                self.cues.append(captioned.cue)

    def _show(self, captioned: CaptionedWindow, device: Device) -> None:
        cue = captioned.cue
        if not cue.has_speech:
            return
        self.cues.append(cue)
        if self.to == JSON:
            span = {"start_s": round(cue.start_s, 3), "end_s": round(cue.end_s, 3)}
            self._write(to_line(as_json({**span}, result_of_clip([captioned]))) + "\n")
        else:
            self._write(CUE_FORMATS[self.to].write(NAME, len(self.cues), cue))

    def _write(self, text: str) -> None:
        if self.stream is None:
            self.screen.whole(text if self.to == JSON else safe_text(text))
        else:
            self.stream.write(text)
            self.stream.flush()


def cut(blocks: Iterator[Samples], has_speech: HasSpeech, duration_s: float = 0.0) -> Iterator[Window]:
    """The windows of what comes, each when it is whole.

    Args:
        has_speech: as `WindowCutter` takes it.
        duration_s: after which it ends; 0: where the blocks do.
    """
    cutter, num_left = WindowCutter(has_speech), round(duration_s * SAMPLE_RATE_HZ)
    for block in blocks:
        yield from cutter.feed(block[:num_left] if duration_s else block)
        num_left -= len(block)
        if duration_s and num_left <= 0:
            break
    last = cutter.flush()
    if last is not None and last.end_s - last.start_s >= MIN_DURATION_S:
        yield last


def _warn_of_loss(screen: Screen, lost_s: float) -> None:
    screen.warn(f"captions come slower than speech: {seconds(lost_s)} were not heard")
