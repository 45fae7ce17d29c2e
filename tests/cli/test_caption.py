import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import pytest

from skydraft.audio.read import Clip
from skydraft.audio.windows import split_windows
from skydraft.cli import caption
from skydraft.cli.caption import CaptionBatch
from skydraft.cli.caption_output import CaptionOutput
from skydraft.cli.ready_device import deaf_cloud
from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings
from skydraft.core import Evidence, Mode, Objective, ShareLevel
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.device import OnWindow
from skydraft.edge.job import Notify, OnText
from skydraft.errors import AudioError, CacheOverflow, CloudFault, PromptRejected, TransportError
from tests.cli.made_up import TOKENIZER, console, features_record, printed, record, report

SOUND = np.sin(np.arange(16_000, dtype=np.float32))
LONG = ["[00:00 - 00:08] be bi", "[00:08 - 00:10] be bi", "Summary: no emotion was named."]
Errors: TypeAlias = Mapping[str, Exception]  # by the name of the clip


class MadeUpDevice:
    """Captions by the name of the clip: an error of that name's, or always the same."""

    tokenizer = TOKENIZER

    def __init__(self, errors: Errors) -> None:
        self.errors = errors

    async def caption(
        self,
        clip: Clip,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
        on_window: OnWindow = lambda window: None,
    ) -> list[CaptionedWindow]:
        if clip.name in self.errors:
            raise self.errors[clip.name]
        disclosure, captioned = features_record() if clip.name.startswith("heard") else record(), []
        for window in split_windows(clip.samples):
            made = report((1, 2), disclosure=disclosure)
            on_window(window)
            on_text(made.pieces)
            captioned.append(CaptionedWindow(window.start_s, window.end_s, made))
        return captioned


class CountedBatch(CaptionBatch):
    num_loads = 0  # of devices


class MakeBatch(Protocol):
    def __call__(
        self,
        files: Sequence[str],
        errors: Errors,
        to: str = "text",
        is_terminal: bool = False,
        output: Path | None = None,
    ) -> CountedBatch: ...


@pytest.fixture
def make_batch(monkeypatch: pytest.MonkeyPatch) -> MakeBatch:
    """Makes a batch of made-up clips."""

    def make(
        files: Sequence[str],
        errors: Errors,
        to: str = "text",
        is_terminal: bool = False,
        output: Path | None = None,
    ) -> CountedBatch:
        def read(name: str) -> Clip:
            if name.startswith("bad"):
                raise AudioError(f"{name} is no sound")
            sound = np.tile(SOUND, 10) if "long" in name else SOUND
            return Clip(name, sound, ("2 channels averaged to one",) if "stereo" in name else ())

        @asynccontextmanager
        async def ready_device(settings: DeviceSettings, screen: Screen, is_alone: bool) -> AsyncIterator[MadeUpDevice]:
            batch.num_loads += 1
            yield MadeUpDevice(errors)

        monkeypatch.setattr(caption, "read_recording", read)
        monkeypatch.setattr(caption, "ready_device", ready_device)
        screen = Screen(console(is_terminal), console(is_terminal))
        batch = CountedBatch(files, DeviceSettings(), screen, CaptionOutput(screen, to, output, files))
        return batch

    return make


def shown(batch: CaptionBatch) -> tuple[str, str]:
    return printed(batch.screen.out), printed(batch.screen.err)


async def test_one_file_is_one_line_of_text_and_nothing_else(make_batch: MakeBatch) -> None:
    batch = make_batch(["a.wav"], {})
    await batch.run()
    assert shown(batch) == ("be bi\n", "")


async def test_a_bad_file_does_not_stop_the_others(make_batch: MakeBatch, capsys: pytest.CaptureFixture[str]) -> None:
    batch = make_batch(["a.wav", "bad.wav", "b.wav"], {})
    await batch.run()
    assert shown(batch)[0] == "a.wav: be bi\nb.wav: be bi\n"
    assert capsys.readouterr().err == "Error: bad.wav is no sound\n"
    assert (batch.num_captioned, batch.num_failed, batch.num_loads) == (2, 1, 1)


async def test_a_file_name_cannot_turn_break_or_fake_a_line(make_batch: MakeBatch) -> None:
    batch = make_batch(["a\u202egpj.wav", "b.wav\nc.wav: lies\x1b[2J"], {})
    await batch.run()
    assert shown(batch)[0] == "agpj.wav: be bi\nb.wav c.wav: lies [2J: be bi\n"


async def test_json_has_an_object_for_each_file_in_order(make_batch: MakeBatch) -> None:
    batch = make_batch(["bad1.wav", "a.wav", "bad2.wav", "b.wav"], {"b.wav": PromptRejected("too long")}, to="json")
    await batch.run()
    lines = [json.loads(line) for line in shown(batch)[0].splitlines()]
    assert [line["file"] for line in lines] == ["bad1.wav", "a.wav", "bad2.wav", "b.wav"]
    assert [line.get("error") for line in lines] == ["bad1.wav is no sound", None, "bad2.wav is no sound", "too long"]
    assert lines[1]["text"] == "be bi"
    assert batch.num_failed == 3


async def test_nothing_is_loaded_for_files_that_cannot_be_read(make_batch: MakeBatch) -> None:
    batch = make_batch(["bad1.wav", "bad2.wav"], {})
    await batch.run()
    assert (batch.num_loads, batch.num_failed) == (0, 2)


@pytest.mark.parametrize("error", [CacheOverflow("full"), CloudFault("limit", "too long"), CloudFault("prompt", "no")])
async def test_what_is_wrong_with_one_clip_does_not_stop_the_others(make_batch: MakeBatch, error: Exception) -> None:
    batch = make_batch(["a.wav", "b.wav"], {"a.wav": error})
    await batch.run()
    assert shown(batch)[0] == "b.wav: be bi\n"


@pytest.mark.parametrize("error", [TransportError("gone"), CloudFault("vocabulary", "another")])
async def test_what_is_wrong_with_the_cloud_stops_the_batch(make_batch: MakeBatch, error: Exception) -> None:
    batch = make_batch(["a.wav", "b.wav", "c.wav"], {"b.wav": error}, to="json")
    with pytest.raises(type(error)):
        await batch.run()
    assert [json.loads(line)["file"] for line in shown(batch)[0].splitlines()] == ["a.wav", "b.wav"]


async def test_a_long_recording_has_a_line_for_each_window_and_a_summary(make_batch: MakeBatch) -> None:
    batch = make_batch(["long.wav"], {})
    await batch.run()
    assert shown(batch) == ("\n".join(LONG) + "\n", "")


async def test_lines_of_several_recordings_name_theirs(make_batch: MakeBatch) -> None:
    batch = make_batch(["long.wav", "a.wav"], {})
    await batch.run()
    assert shown(batch)[0].splitlines() == [*(f"long.wav: {line}" for line in LONG), "a.wav: be bi"]


async def test_a_file_has_the_lines_that_the_screen_would_show(make_batch: MakeBatch, tmp_path: Path) -> None:
    batch = make_batch(["long.wav", "a.wav"], {}, output=tmp_path / "captions.txt")
    await batch.run()
    lines = (tmp_path / "captions.txt").read_text().splitlines()
    assert lines == [*(f"long.wav: {line}" for line in LONG), "a.wav: be bi"]
    assert shown(batch) == ("", "")


async def test_what_was_converted_is_a_note_and_no_result(make_batch: MakeBatch) -> None:
    batch = make_batch(["stereo.wav"], {})
    await batch.run()
    assert shown(batch) == ("be bi\n", "stereo.wav: 2 channels averaged to one\n")


async def test_a_terminal_shows_the_text_in_colours_and_what_left_the_device(make_batch: MakeBatch) -> None:
    batch = make_batch(["a.wav", "b.wav"], {}, is_terminal=True)
    await batch.run()
    out, err = shown(batch)
    assert out == "".join(f"{name}.wav: \x1b[38;5;31mbe\x1b[0m \x1b[38;5;31mbi\x1b[0m\n" for name in "ab")
    assert err.count("Left the device: the instruction") == 2


async def test_of_several_clips_it_is_said_of_how_many_the_evidence_left(make_batch: MakeBatch) -> None:
    for settings, is_said in ((DeviceSettings(share=ShareLevel.FEATURES), True), (DeviceSettings(), False)):
        batch = make_batch(["a.wav", "bad.wav", "heard.wav"], {})
        batch.settings = settings
        await batch.run()
        assert ("The evidence of 1 of 2 clips left the device." in shown(batch)[1]) == is_said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DeviceSettings(mode=Mode.CLOUD), "without having heard the clip"),
        (DeviceSettings(accept="exact"), "--accept exact the text is that of a cloud that has not heard"),
        (DeviceSettings(accept="rejection"), "has not heard"),
        (
            DeviceSettings(mode=Mode.CLOUD, share=ShareLevel.FEATURES, evidence=Evidence.NEVER),
            "with --evidence never the cloud writes without having heard the clip; --evidence always lets it hear",
        ),
        (
            DeviceSettings(accept="exact", share=ShareLevel.FEATURES, evidence=Evidence.NEVER),
            "a cloud that has not heard the clip; use --evidence unsure, or --accept rank:20",
        ),
    ],
)
def test_a_caption_of_a_cloud_that_has_not_heard_the_clip_is_announced(settings: DeviceSettings, words: str) -> None:
    sentence = deaf_cloud(settings, "heard the clip", "hear")
    assert sentence is not None
    assert words in sentence


@pytest.mark.parametrize(
    "settings",
    [
        DeviceSettings(),
        DeviceSettings(accept="rank:5"),
        DeviceSettings(mode=Mode.EDGE),
        DeviceSettings(mode=Mode.AUTO, objective=Objective.PRIVACY, accept="exact"),
        DeviceSettings(mode=Mode.CLOUD, share=ShareLevel.FEATURES),
        DeviceSettings(accept="exact", share=ShareLevel.FEATURES),
    ],
)
def test_nothing_is_announced_where_the_device_or_the_cloud_has_heard(settings: DeviceSettings) -> None:
    assert deaf_cloud(settings, "heard the clip", "hear") is None
