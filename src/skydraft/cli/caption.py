"""`skydraft caption FILE...`"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skydraft.audio.read import Clip, read_clip
from skydraft.cli.exit_status import ENDED_EARLY, FAILED
from skydraft.cli.live_text import LiveText
from skydraft.cli.ready_device import deaf_cloud, ready_device
from skydraft.cli.results import Result, as_json, result_of_clip
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import disclosure, summary
from skydraft.cli.terminal_text import counted, safe_line, seconds
from skydraft.config import DeviceSettings
from skydraft.core import Evidence
from skydraft.edge.device import Device
from skydraft.errors import AudioError, CacheOverflow, CloudFault, PromptRejected, SkydraftError
from skydraft.protocol.messages import FaultCode

CLIP_FAULTS = (FaultCode.LIMIT, FaultCode.PROMPT)  # they concern one clip, not the cloud


def run_caption(files: Sequence[str], settings: DeviceSettings, is_json: bool) -> int:
    """Caption files; returns the exit status.

    Raises:
        SkydraftError: an error that concerns all files.
    """
    screen = Screen()
    if warning := deaf_cloud(settings, "heard the clip", "hear"):
        screen.warn(warning)
    batch = CaptionBatch(files, settings, screen, is_json)
    asyncio.run(batch.run())
    if batch.num_failed:
        return FAILED
    return ENDED_EARLY if batch.num_cut_short else 0


@dataclass
class CaptionBatch:
    """Captions files one after the other with one device.

    num_captioned, num_failed, num_cut_short: files with a caption, without one, and with a caption that ended early.
    num_told: files whose evidence left the device.
    """

    files: Sequence[str]
    settings: DeviceSettings
    screen: Screen
    is_json: bool
    num_captioned: int = 0
    num_failed: int = 0
    num_cut_short: int = 0
    num_told: int = 0

    async def run(self) -> None:
        """Caption the files that can be read. Models are loaded once the first one was read."""
        clips = self._clips()
        first = next(clips, None)
        if first is None:
            return
        async with ready_device(self.settings, self.screen, self.settings.captions_alone) as device:
            with self.screen.counting("captioning", len(self.files)) as count:
                for file, clip in itertools.chain([first], clips):
                    count(self.num_captioned + self.num_failed)
                    await self._caption(device, file, clip)
        if self.settings.evidence_leaves is Evidence.UNSURE and len(self.files) > 1:
            num_clips = counted(self.num_captioned, "clip")
            self.screen.note(f"The evidence of {self.num_told} of {num_clips} left the device.")

    def _clips(self) -> Iterator[tuple[str, Clip]]:
        for file in self.files:
            try:
                clip = read_clip(Path(file))
            except AudioError as error:
                self._fail(file, error)
            else:
                for note in clip.notes:
                    self.screen.note(f"{file}: {note}")
                yield file, clip

    async def _caption(self, device: Device, file: str, clip: Clip) -> None:
        try:
            result = await self._write(device, file, clip)
        except SkydraftError as error:
            if not _is_of_clip(error):
                self._show_error(file, error)
                raise
            self._fail(file, error)
        else:
            self.num_captioned += 1
            self.num_cut_short += result.ended_early is not None
            self.num_told += bool(result.shared_evidence)
            self._show(file, result)

    async def _write(self, device: Device, file: str, clip: Clip) -> Result:
        screen = self.screen
        if self.is_json:
            return result_of_clip(file, await device.caption(clip, notify=screen.warn), device.tokenizer)
        heading = f"{safe_line(file)}: " if len(self.files) > 1 else ""
        with LiveText(screen, device.tokenizer, heading) as live:
            captioned = await device.caption(clip, live.add, screen.warn, live.next_window)
            return result_of_clip(file, captioned, device.tokenizer)

    def _show(self, file: str, result: Result) -> None:
        screen = self.screen
        if self.is_json:
            screen.json(as_json({"file": file}, result))
            return
        for window in result.windows:
            if not window.text:
                screen.note(f"{file}: silent from {seconds(window.start_s)} to {seconds(window.end_s)}")
        if screen.err.is_terminal:
            screen.note(f"{summary(result)}.")
            screen.note(disclosure(result))

    def _fail(self, file: str, error: SkydraftError) -> None:
        self.num_failed += 1
        self.screen.error(str(error))
        self._show_error(file, error)

    def _show_error(self, file: str, error: SkydraftError) -> None:
        if self.is_json:
            self.screen.json({"file": file, "error": str(error)})


def _is_of_clip(error: SkydraftError) -> bool:
    """Whether an error concerns one clip only."""
    if isinstance(error, CloudFault):
        return error.code in CLIP_FAULTS
    return isinstance(error, AudioError | PromptRejected | CacheOverflow)
