"""`skydraft caption FILE...`"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skydraft.audio.read import Clip
from skydraft.audio.windows import MAX_WINDOW_S
from skydraft.cli.caption_output import CaptionOutput, summary_line
from skydraft.cli.exit_status import ENDED_EARLY, FAILED
from skydraft.cli.live_text import LiveText
from skydraft.cli.ready_device import deaf_cloud, ready_device
from skydraft.cli.recordings import find_recordings, read_recording
from skydraft.cli.results import Result, result_of_clip
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import disclosure, summary
from skydraft.cli.terminal_text import counted, safe_line
from skydraft.config import DeviceSettings
from skydraft.core import Evidence
from skydraft.edge.device import Device
from skydraft.errors import AudioError, CacheOverflow, CloudFault, PromptRejected, SkydraftError
from skydraft.protocol.messages import FaultCode

CLIP_FAULTS = (FaultCode.LIMIT, FaultCode.PROMPT)  # they concern one clip, not the cloud


def run_caption(
    named: Sequence[str], settings: DeviceSettings, to: str, path: Path | None, is_recursive: bool = False
) -> int:
    """Caption files; returns the exit status.

    Args:
        named: files, `-` for standard input; with is_recursive folders too.
        to, path: the format of the captions, and where they go: as `CaptionOutput` takes them.
    Raises:
        ConfigError: as `CaptionOutput` and `find_recordings`.
        SkydraftError: an error that concerns all files.
    """
    screen, files = Screen(), find_recordings(named, is_recursive)
    output = CaptionOutput(screen, to, path, files)
    if warning := deaf_cloud(settings, "heard the clip", "hear"):
        screen.warn(warning)
    batch = CaptionBatch(files, settings, screen, output)
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
    output: CaptionOutput
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
                clip = read_recording(file)
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
                self.output.fail(file, error)
                raise
            self._fail(file, error)
        else:
            self.num_captioned += 1
            self.num_cut_short += result.ended_early is not None
            self.num_told += bool(result.shared_evidence)
            self._show(file, result)

    async def _write(self, device: Device, file: str, clip: Clip) -> Result:
        screen = self.screen
        if not self.output.is_live:
            return result_of_clip(await device.caption(clip, notify=screen.warn))
        heading = f"{safe_line(file)}: " if len(self.files) > 1 else ""
        is_long = clip.duration_s > MAX_WINDOW_S
        with LiveText(screen, heading, is_timed=is_long) as live:
            captioned = await device.caption(clip, live.add, screen.warn, live.next_window)
            result = result_of_clip(captioned)
        if is_long:
            screen.text(f"{heading}{summary_line(result)}")
        return result

    def _show(self, file: str, result: Result) -> None:
        screen = self.screen
        if not self.output.is_live:
            self.output.add(file, result)
        elif screen.err.is_terminal:
            screen.note(f"{summary(result)}.")
            screen.note(disclosure(result))

    def _fail(self, file: str, error: SkydraftError) -> None:
        self.num_failed += 1
        self.screen.error(str(error))
        self.output.fail(file, error)


def _is_of_clip(error: SkydraftError) -> bool:
    """Whether an error concerns one clip only."""
    if isinstance(error, CloudFault):
        return error.code in CLIP_FAULTS
    return isinstance(error, AudioError | PromptRejected | CacheOverflow)
