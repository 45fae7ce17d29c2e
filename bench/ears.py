"""Is there speech? What is found on real clips, and on sounds in which nobody speaks.

Sixty generated sounds of fifteen kinds (bench.sounds; seeds that the detector's settings were not chosen on), and every
clip of actors 17 to 20 as it is, 20 dB softer and louder (with 16 bits and clipping), and through a telephone (8 kHz,
300 to 3400 Hz, mu-law); the sounds through the telephone too.

Claims: no_speech_found, of the sounds; speech_refused, of the clips; what one question takes of a core, in seconds of
processor a second of sound.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soxr

from bench.claims import Claim, parse_arguments, show
from bench.identity import SPEECH
from bench.sounds import KINDS, sound
from skydraft.audio.read import read_clip
from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples
from skydraft.audio.speech import SpeechDetector

ACTORS = (17, 18, 19, 20)
SEEDS = (1000, 1001, 1002, 1003)
MU = 255
FULL_SCALE = 32768


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    if not SPEECH.is_dir():
        raise SystemExit(f"bench.ears needs the recordings in {SPEECH}; see README.md for where they are from")
    clips, sounds = _clips(), [sound(kind, seed) for kind in KINDS for seed in SEEDS]
    if arguments.quick:
        clips, sounds = clips[::12], sounds[:: len(SEEDS)]
    show(_measure(clips, sounds), arguments.json)


def telephone(samples: Samples) -> Samples:
    """8 kHz, 300 to 3400 Hz, mu-law with 8 bits."""
    narrow = soxr.resample(samples, SAMPLE_RATE_HZ, 8_000)
    spectrum, frequencies = np.fft.rfft(narrow), np.fft.rfftfreq(len(narrow), 1 / 8_000)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    band = np.clip(np.fft.irfft(spectrum, len(narrow)), -1, 1)
    steps = np.round(np.sign(band) * np.log1p(MU * np.abs(band)) / np.log1p(MU) * 127) / 127
    decoded = np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU
    back: Samples = soxr.resample(decoded.astype(np.float32), 8_000, SAMPLE_RATE_HZ)
    return back


def at_gain(samples: Samples, gain_db: float) -> Samples:
    """Recorded softer or louder, with 16 bits."""
    steps = np.clip(np.round(samples * 10 ** (gain_db / 20) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return (steps / FULL_SCALE).astype(np.float32)


RECORDED: dict[str, Callable[[Samples], Samples]] = {
    "as_is": lambda samples: samples,
    "20_db_softer": lambda samples: at_gain(samples, -20),
    "20_db_louder": lambda samples: at_gain(samples, 20),
    "telephone": telephone,
}


def _measure(clips: list[Samples], sounds: list[Samples]) -> Iterator[Claim]:
    detector = SpeechDetector()
    for name, record in RECORDED.items():
        num_missed = sum(not detector.has_speech(record(clip)) for clip in clips)
        yield Claim(f"speech_refused.{name}", num_missed / len(clips), "of clips", len(clips))
    for name in ("as_is", "telephone"):
        num_found = sum(not detector.has_speech(RECORDED[name](each)) for each in sounds)
        yield Claim(f"no_speech_found.{name}", num_found / len(sounds), "of sounds", len(sounds))
    yield _cost(detector, [*clips[:20], *sounds])


def _cost(detector: SpeechDetector, heard: Iterable[Samples]) -> Claim:
    heard = list(heard)
    start_s = time.process_time()
    for samples in heard:
        detector.has_speech(samples)
    spent_s = time.process_time() - start_s
    return Claim("cpu", spent_s / (sum(map(len, heard)) / SAMPLE_RATE_HZ), "of real time", len(heard))


def _clips() -> list[Samples]:
    rows = [json.loads(line) for line in (SPEECH / "labels.jsonl").read_text().splitlines()]
    return [read_clip(SPEECH / row["file"]).samples for row in rows if row["actor"] in ACTORS]


if __name__ == "__main__":
    main()
