"""What is said of a sound."""

from __future__ import annotations

from skydraft.audio.read import Clip
from skydraft.audio.sounds import clip_of_bytes
from skydraft.client.async_client import Caption
from skydraft.config import DeviceSettings
from skydraft.edge.in_thread import in_thread
from skydraft.edge.job import OnText
from skydraft.edge.report import Report, joined, unwritten
from skydraft.edge.text_pace import TextPace
from skydraft.errors import SilentAudio
from skydraft.gateway.caps import refuse_asking_about_sounds
from skydraft.gateway.gateway import Gateway
from skydraft.tasks.caption import INSTRUCTION


async def clip_of_sound(data: bytes) -> Clip | None:
    """Read a sound; None: it is silent.

    Raises:
        AudioError: it cannot be read.
    """
    try:
        return await in_thread(lambda: clip_of_bytes(data))
    except SilentAudio:
        return None


async def caption_of_clip(
    gateway: Gateway,
    clip: Clip | None,
    settings: DeviceSettings,
    on_text: OnText,
    pace: TextPace,
    instruction: str = INSTRUCTION,
) -> Caption:
    """What is said of each window of a sound; of a silent one there are none.

    Raises:
        BadRequest: the settings would have a cloud asked about it that is not to be.
    """
    refuse_asking_about_sounds(gateway.device_settings, settings)
    if clip is None:
        return Caption(())
    return await gateway.client.write_caption(clip, settings, on_text, instruction, pace)


def report_of(caption: Caption, settings: DeviceSettings) -> Report:
    """One report for all windows; of silence it says nothing."""
    reports = [window.report for window in caption.windows if window.has_speech]
    return joined(reports) if reports else unwritten("", settings.mode, settings.share)
