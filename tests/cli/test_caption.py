import io
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
from rich.console import Console

from skydraft.audio.read import Clip
from skydraft.cli import caption
from skydraft.cli.caption import CaptionBatch
from skydraft.cli.ready_device import deaf_cloud
from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel
from skydraft.edge.device import CaptionedWindow
from skydraft.errors import AudioError, CacheOverflow, CloudFault, PromptRejected, TransportError
from tests.cli.made_up import TOKENIZER, report

SOUND = np.ones(16_000, np.float32)


class MadeUpDevice:
    """Captions by the name of the clip: an error of that name's, or always the same."""

    tokenizer = TOKENIZER

    def __init__(self, errors) -> None:
        self.errors = errors

    async def caption(self, clip, on_tokens=lambda _: None, notify=lambda _: None, on_window=lambda *_: None):
        if clip.name in self.errors:
            raise self.errors[clip.name]
        made = report((1, 2))
        on_tokens(made.tokens)
        return [CaptionedWindow(0.0, clip.duration_s, made)]


@pytest.fixture
def make_batch(monkeypatch, capsys):
    """Makes a batch of made-up clips; `batch.num_loads` counts the devices that were loaded."""

    def make(files, errors, is_json=False, is_terminal=False):
        def read(path):
            if path.name.startswith("bad"):
                raise AudioError(f"{path.name} is no sound")
            return Clip(path.name, SOUND, ("2 channels averaged to one",) if "stereo" in path.name else ())

        @asynccontextmanager
        async def ready_device(settings, screen):
            batch.num_loads += 1
            yield MadeUpDevice(errors)

        monkeypatch.setattr(caption, "read_clip", read)
        monkeypatch.setattr(caption, "ready_device", ready_device)
        options = {"force_terminal": is_terminal, "color_system": "256" if is_terminal else None, "width": 80}
        streams = (Console(file=io.StringIO(), highlight=False, **options) for _ in range(2))
        batch = CaptionBatch(files, DeviceSettings(), Screen(*streams), is_json)
        batch.num_loads = 0
        return batch

    return make


def shown(batch):
    return batch.screen.out.file.getvalue(), batch.screen.err.file.getvalue()


async def test_one_file_is_one_line_of_text_and_nothing_else(make_batch) -> None:
    batch = make_batch(["a.wav"], {})
    await batch.run()
    assert shown(batch) == ("be bi\n", "")


async def test_a_bad_file_does_not_stop_the_others(make_batch, capsys) -> None:
    batch = make_batch(["a.wav", "bad.wav", "b.wav"], {})
    await batch.run()
    assert shown(batch)[0] == "a.wav: be bi\nb.wav: be bi\n"
    assert capsys.readouterr().err == "Error: bad.wav is no sound\n"
    assert (batch.num_captioned, batch.num_failed, batch.num_loads) == (2, 1, 1)


async def test_a_file_name_cannot_turn_break_or_fake_a_line(make_batch) -> None:
    batch = make_batch(["a\u202egpj.wav", "b.wav\nc.wav: lies\x1b[2J"], {})
    await batch.run()
    assert shown(batch)[0] == "agpj.wav: be bi\nb.wav c.wav: lies [2J: be bi\n"


async def test_json_has_an_object_for_each_file_in_order(make_batch) -> None:
    batch = make_batch(["bad1.wav", "a.wav", "bad2.wav", "b.wav"], {"b.wav": PromptRejected("too long")}, is_json=True)
    await batch.run()
    lines = [json.loads(line) for line in shown(batch)[0].splitlines()]
    assert [line["file"] for line in lines] == ["bad1.wav", "a.wav", "bad2.wav", "b.wav"]
    assert [line.get("error") for line in lines] == ["bad1.wav is no sound", None, "bad2.wav is no sound", "too long"]
    assert lines[1]["text"] == "be bi"
    assert batch.num_failed == 3


async def test_nothing_is_loaded_for_files_that_cannot_be_read(make_batch) -> None:
    batch = make_batch(["bad1.wav", "bad2.wav"], {})
    await batch.run()
    assert (batch.num_loads, batch.num_failed) == (0, 2)


@pytest.mark.parametrize("error", [CacheOverflow("full"), CloudFault("limit", "too long"), CloudFault("prompt", "no")])
async def test_what_is_wrong_with_one_clip_does_not_stop_the_others(make_batch, error) -> None:
    batch = make_batch(["a.wav", "b.wav"], {"a.wav": error})
    await batch.run()
    assert shown(batch)[0] == "b.wav: be bi\n"


@pytest.mark.parametrize("error", [TransportError("gone"), CloudFault("vocabulary", "another")])
async def test_what_is_wrong_with_the_cloud_stops_the_batch(make_batch, error) -> None:
    batch = make_batch(["a.wav", "b.wav", "c.wav"], {"b.wav": error}, is_json=True)
    with pytest.raises(type(error)):
        await batch.run()
    assert [json.loads(line)["file"] for line in shown(batch)[0].splitlines()] == ["a.wav", "b.wav"]


async def test_what_was_converted_is_a_note_and_no_result(make_batch) -> None:
    batch = make_batch(["stereo.wav"], {})
    await batch.run()
    assert shown(batch) == ("be bi\n", "stereo.wav: 2 channels averaged to one\n")


async def test_a_terminal_shows_the_text_in_colours_and_what_left_the_device(make_batch) -> None:
    batch = make_batch(["a.wav", "b.wav"], {}, is_terminal=True)
    await batch.run()
    out, err = shown(batch)
    assert out == "".join(f"{name}.wav: \x1b[38;5;31mbe\x1b[0m \x1b[38;5;31mbi\x1b[0m\n" for name in "ab")
    assert err.count("Left the device: the instruction") == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DeviceSettings(mode=Mode.CLOUD), "without having heard the clip"),
        (DeviceSettings(accept="exact"), "--accept exact the text is that of a cloud that has not heard"),
        (DeviceSettings(accept="rejection"), "has not heard"),
    ],
)
def test_a_caption_of_a_cloud_that_has_not_heard_the_clip_is_announced(settings, words) -> None:
    assert words in deaf_cloud(settings, "heard the clip", "hear")


@pytest.mark.parametrize(
    "settings",
    [
        DeviceSettings(),
        DeviceSettings(accept="rank:5"),
        DeviceSettings(mode=Mode.EDGE),
        DeviceSettings(mode=Mode.CLOUD, share=ShareLevel.FEATURES),
        DeviceSettings(accept="exact", share=ShareLevel.FEATURES),
    ],
)
def test_nothing_is_announced_where_the_device_or_the_cloud_has_heard(settings) -> None:
    assert deaf_cloud(settings, "heard the clip", "hear") is None
