"""Long recordings: real clips in a row, captioned by the embedded models alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from skydraft.audio.read import Clip, read_clip
from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples
from skydraft.audio.windows import MAX_WINDOW_S
from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.device import Device
from skydraft.models import embedded_path
from training.captions import is_well_formed

Name = Literal["draft", "target"]
SPEECH = Path(__file__).parents[3] / "shared" / "speech"
FIRST_UNSEEN_ACTOR = 17
pytestmark = [
    pytest.mark.speech,
    pytest.mark.skipif(not SPEECH.is_dir(), reason="the recordings are not in ../shared/speech"),
]


def joined(duration_s: float) -> Samples:
    """Clips of speakers that the models were not trained on, in random order."""
    rows = [json.loads(line) for line in (SPEECH / "labels.jsonl").read_text().splitlines()]
    files = [row["file"] for row in rows if row["actor"] >= FIRST_UNSEEN_ACTOR]
    generator, parts, length = np.random.default_rng(0), [], 0
    while length < duration_s * SAMPLE_RATE_HZ:
        parts.append(read_clip(SPEECH / generator.choice(files)).samples)
        length += len(parts[-1])
    return np.concatenate(parts)


async def captioned_by(model: str, samples: Samples) -> list[CaptionedWindow]:
    settings = DeviceSettings(mode=Mode.EDGE, share=ShareLevel.NONE, draft=model, num_threads=1, any_voice=True)
    with Device.load(settings) as device:
        return await device.caption(Clip("joined", samples))


def require_well_formed(windows: list[CaptionedWindow], num_samples: int) -> None:
    assert [window.start_s for window in windows] == [0.0, *(window.end_s for window in windows[:-1])]
    assert windows[-1].end_s == num_samples / SAMPLE_RATE_HZ
    spoken = [window for window in windows if window.has_speech]
    assert max(window.end_s - window.start_s for window in spoken) <= MAX_WINDOW_S
    assert [window.report.text for window in spoken if not is_well_formed(window.report.text.strip())] == []
    assert {window.report.text for window in windows if not window.has_speech} <= {"No speech."}


@pytest.mark.parametrize("name", ["draft", "target"])
async def test_a_minute_of_clips_has_no_malformed_caption(name: Name) -> None:
    samples = joined(60.0)
    require_well_formed(await captioned_by(str(embedded_path(name)), samples), len(samples))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["draft", "target"])
async def test_twenty_minutes_of_clips_have_no_malformed_caption(name: Name) -> None:
    samples = joined(1200.0)
    windows = await captioned_by(str(embedded_path(name)), samples)
    assert len(windows) > 300
    require_well_formed(windows, len(samples))
