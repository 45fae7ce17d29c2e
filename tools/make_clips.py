"""Make the bundled clips: one sentence in four voices, by the speech synthesiser espeak-ng.

    apt-get install espeak-ng        (or: brew install espeak-ng)
    python tools/make_clips.py [--out src/skydraft/audio/clips]

The same words in each clip: what differs is how the speaker sounds. Needs the extra `audio`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from skydraft.audio.read import read_clip
from skydraft.audio.samples import SAMPLE_RATE_HZ, Samples

SENTENCE = "The children are talking by the door."
CLIPS_FOLDER = Path(__file__).parents[1] / "src" / "skydraft" / "audio" / "clips"
LENGTH_S = 3.0
MIN_PAUSE_S = 0.25  # before and after the words


class Prosody(NamedTuple):
    """How a clip is spoken.

    voice: espeak-ng's voice and variant.
    words_per_minute: espeak-ng's usual rate is 175.
    pitch, range_percent: SSML prosody; range 0% is monotone, above 100% is lively.
    peak_dbfs: the clip is scaled to this.
    """

    voice: str
    words_per_minute: int
    pitch: str
    range_percent: int
    peak_dbfs: float


CLIPS = {
    "neutral": Prosody("en-us", 165, "medium", 80, -12.0),
    "sad": Prosody("en-us", 105, "-18%", 30, -24.0),
    "angry": Prosody("en-us", 205, "+70%", 180, -1.0),
    "happy": Prosody("en-us+f3", 190, "+30%", 200, -5.0),
}


def synthesise(prosody: Prosody, folder: Path) -> Samples:
    """Speak the sentence: float32 [num_samples] at 16 kHz."""
    wav = folder / "spoken.wav"
    ssml = f'<prosody pitch="{prosody.pitch}" range="{prosody.range_percent}%">{SENTENCE}</prosody>'
    command = ["espeak-ng", "-m", "-v", prosody.voice, "-s", str(prosody.words_per_minute), "-w", str(wav), ssml]
    subprocess.run(command, check=True, timeout=60)
    return read_clip(wav).samples


def frame(spoken: Samples, peak_dbfs: float) -> Samples:
    """Scale to the peak and stand the words in the middle of 3 s of silence."""
    scaled = spoken * (10 ** (peak_dbfs / 20) / np.abs(spoken).max())
    num_missing = max(int(LENGTH_S * SAMPLE_RATE_HZ) - len(scaled), int(2 * MIN_PAUSE_S * SAMPLE_RATE_HZ))
    return np.pad(scaled, (num_missing // 2, num_missing - num_missing // 2))


def make_clip(name: str, out: Path) -> Path:
    """Write one clip as 16-bit FLAC and give its path."""
    prosody = CLIPS[name]
    path = out / f"{name}.flac"
    with tempfile.TemporaryDirectory() as folder:
        samples = frame(synthesise(prosody, Path(folder)), prosody.peak_dbfs)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16", compression_level=1.0)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CLIPS_FOLDER)
    out: Path = parser.parse_args().out
    if shutil.which("espeak-ng") is None:
        parser.error("espeak-ng is not installed: apt-get install espeak-ng")
    out.mkdir(parents=True, exist_ok=True)
    for name in CLIPS:
        path = make_clip(name, out)
        print(f"{path}: {path.stat().st_size:,} bytes, {soundfile.info(path).duration:.2f} s")


if __name__ == "__main__":
    main()
