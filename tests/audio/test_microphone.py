"""The microphone, with a made-up sounddevice: no machine that tests run on can be relied on to have one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from skydraft.audio import microphone as module
from skydraft.audio.microphone import microphone, recording
from skydraft.audio.read import Clip
from skydraft.errors import AudioError
from tests.audio.sounds import RATE_HZ, tone


class PortAudioError(Exception):
    pass


class MadeUpSounddevice(SimpleNamespace):
    """A sound system with one microphone, which hears what a test says.

    rates_hz: that it can. names: of its devices.
    """

    PortAudioError = PortAudioError

    def __init__(self, rates_hz: tuple[int, ...] = (RATE_HZ,), names: tuple[str, ...] = ("USB mic",)) -> None:
        super().__init__(rates_hz=rates_hz, names=names, is_open=False, opened_hz=0)

    def hear(self, samples: np.ndarray) -> None:
        for start in range(0, len(samples), self.num_frames):
            self.callback(samples[start : start + self.num_frames, None], self.num_frames, None, None)

    def check_input_settings(self, device: object, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate not in self.rates_hz:
            raise PortAudioError("Invalid sample rate")

    def query_devices(self, device: object = None, kind: str | None = None) -> Any:
        if kind is None:
            return [{"name": "speaker", "max_input_channels": 0}] + [
                {"name": name, "max_input_channels": 1} for name in self.names
            ]
        if device not in (None, *self.names):
            raise ValueError(f"No input device matching {device!r}")
        return {"default_samplerate": float(self.rates_hz[0])}

    def InputStream(  # noqa: N802
        self, rate_hz: int, num_frames: int, device: object, *, channels: int, dtype: str, callback: Callable[..., None]
    ) -> MadeUpSounddevice:
        if device not in (None, 0, *self.names):
            raise ValueError(f"No input device matching {device!r}")
        self.opened_hz = rate_hz
        self.num_frames, self.callback = num_frames, callback
        return self

    def __enter__(self) -> MadeUpSounddevice:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False


def install(monkeypatch: pytest.MonkeyPatch, system: object) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", system)


@pytest.mark.parametrize("name", [None, "USB mic", "0"])
def test_what_is_heard_comes_in_blocks_until_the_context_is_left(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    system = MadeUpSounddevice()
    install(monkeypatch, system)
    with microphone(name) as blocks:
        system.hear(tone(0.35))
        heard = [next(blocks) for _ in range(4)]
        assert system.is_open
    assert not system.is_open
    assert [len(block) for block in heard] == [1600, 1600, 1600, 800]
    assert (np.concatenate(heard) == tone(0.35)).all()
    assert list(blocks) == []


def test_a_device_with_another_rate_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    system = MadeUpSounddevice(rates_hz=(44_100,))
    install(monkeypatch, system)
    with microphone() as blocks:
        system.hear(tone(3.0, 44_100))
    heard = np.concatenate(list(blocks))
    assert system.opened_hz == 44_100
    assert len(heard) > 2.9 * RATE_HZ
    assert np.abs(heard[4_000:40_000] - tone(3.0)[4_000:40_000]).max() < 0.01


def test_what_is_not_taken_in_time_becomes_silence_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    system = MadeUpSounddevice()
    losses: list[float] = []
    install(monkeypatch, system)
    monkeypatch.setattr(module, "MAX_WAITING_S", 0.2)
    with microphone(on_loss=losses.append) as blocks:
        system.hear(tone(0.5))
        first = [next(blocks) for _ in range(5)]
        system.hear(tone(0.1))
        last = next(blocks)
    assert [bool(block.any()) for block in [*first, last]] == [True, True, False, False, False, True]
    assert [len(block) for block in first] == [1600] * 5
    assert losses == [pytest.approx(0.3)]


@pytest.mark.parametrize(
    ("names", "way_out"),
    [(("USB mic", "built in"), "name another with --microphone, of USB mic, built in"), ((), "connect one")],
)
def test_a_microphone_that_is_not_there_is_named_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], way_out: str
) -> None:
    install(monkeypatch, MadeUpSounddevice(names=names))
    with pytest.raises(AudioError) as caught, microphone("webcam"):
        pass
    assert str(caught.value) == f"the microphone cannot be opened (No input device matching 'webcam'): {way_out}"


def test_without_sounddevice_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    with pytest.raises(AudioError, match=r"listening needs the package sounddevice.*pip install 'skydraft\[micro"):
        microphone().__enter__()


def test_without_portaudio_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise OSError("PortAudio library not found")

        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(AudioError, match="PortAudio library not found: install PortAudio"):
        microphone().__enter__()


def test_a_recording_stands_in_for_a_microphone() -> None:
    with recording(Clip("a.wav", tone(0.35))) as blocks:
        heard = list(blocks)
    assert [len(block) for block in heard] == [1600, 1600, 1600, 800]
    assert (np.concatenate(heard) == tone(0.35)).all()
