"""How far a device's word is to be trusted: how often an emotion is right beside how often it says so, and not sure.

Every clip of actors 17 to 20 is captioned as recorded, by telephone and in noise at 20 dB by the draft of the embedded
pair, and as recorded by the target, whose words the draft weighs. And the same clips are made strange: backwards,
shuffled, joined, cut, faster and slower. Confidence was fitted on 17 and 18, and so was where "not sure" begins.

Claims: calibration_error, the expected calibration error: clips in five groups of one size by confidence, the mean
difference between confidence and share right of a group; with its interval (speakers and clips are resampled), and what
a perfectly calibrated device would show with as many clips (`by_chance`). confidence_auc: how often a right word has
the higher confidence of a right and a wrong one. not_sure, of clips; strange_found, of clips made strange, and of the
sounds in each folder below --foreign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.claims import Claim, argument_parser, show
from bench.identity import SPEECH
from skydraft.audio.read import read_clip
from skydraft.core import Calibration
from skydraft.edge import ears
from skydraft.engines.load import load_calibration, load_ears
from training.calibrate import Captioner, Named, named_emotions
from training.clips import Clip, read_clips
from training.conditions import CONDITIONS, PLAIN, TELEPHONE
from training.familiarity import STRANGE

ACTORS = range(17, 21)
NUM_GROUPS = 5
NUM_DRAWS = 2000
RECORDED = {"as_recorded": PLAIN, "telephone": TELEPHONE, "noise": "noise at 20 dB"}


class Judged(NamedTuple):
    """Of some clips, each: how sure the device is, whether the emotion is right, and who speaks."""

    confidences: np.ndarray
    is_right: np.ndarray
    actors: np.ndarray


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--foreign", type=Path, help="a folder with a folder of sound files for each kind of speech")
    arguments = parser.parse_args()
    if not SPEECH.is_dir():
        raise SystemExit(f"bench.confidence needs the recordings in {SPEECH}; see README.md for where they are from")
    clips = [clip for clip in read_clips(SPEECH) if clip.actor in ACTORS]
    clips = clips[::12] if arguments.quick else clips
    claims = [*_confidence(clips), *_familiarity(clips)]
    show([*claims, *(_foreign(arguments.foreign) if arguments.foreign else ())], arguments.json)


def calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """The expected calibration error in groups of one size, both [num_clips]."""
    order = np.argsort(confidences, kind="stable")
    groups = [group for group in np.array_split(order, NUM_GROUPS) if len(group)]
    gaps = [abs(confidences[group].mean() - is_right[group].mean()) * len(group) for group in groups]
    return float(sum(gaps) / len(confidences))


def interval(judged: Judged, generator: np.random.Generator) -> tuple[float, float]:
    """95 % of the errors of speakers and clips drawn again."""
    of_actor = [np.flatnonzero(judged.actors == actor) for actor in np.unique(judged.actors)]
    errors = []
    for _ in range(NUM_DRAWS):
        drawn = generator.integers(len(of_actor), size=len(of_actor))
        rows = np.concatenate([generator.choice(of_actor[actor], len(of_actor[actor])) for actor in drawn])
        errors.append(calibration_error(judged.confidences[rows], judged.is_right[rows]))
    low, high = np.percentile(errors, [2.5, 97.5])
    return float(low), float(high)


def by_chance(confidences: np.ndarray, generator: np.random.Generator) -> float:
    """The median error where a word is right exactly as often as its confidence says."""
    draws = [calibration_error(confidences, generator.random(len(confidences)) < confidences) for _ in range(NUM_DRAWS)]
    return float(np.median(draws))


def _confidence(clips: Sequence[Clip]) -> Iterator[Claim]:
    calibration = _calibration()
    draft, target = Captioner("embedded"), Captioner("embedded", "target")
    for name, condition in RECORDED.items():
        yield from _claims(name, clips, named_emotions(draft, draft, clips, [condition]), calibration, False)
    yield from _claims("clouds_word", clips, named_emotions(draft, target, clips, [PLAIN]), calibration, True)


def _claims(
    name: str, clips: Sequence[Clip], named: Sequence[Named], calibration: Calibration, is_clouds: bool
) -> Iterator[Claim]:
    assert calibration.confidence is not None, "the embedded draft is calibrated"
    assert len(named) == len(clips), "each caption of the pair names an emotion"
    judged = Judged(
        np.array([calibration.confidence.of(each.probability, is_clouds) for each in named]),
        np.array([each.is_right for each in named]),
        np.array([clip.actor for clip in clips]),
    )
    generator = np.random.default_rng(0)
    low, high = interval(judged, generator)
    right, wrong = judged.confidences[judged.is_right], judged.confidences[~judged.is_right]
    found = {
        "calibration_error": calibration_error(judged.confidences, judged.is_right),
        "calibration_error_low": low,
        "calibration_error_high": high,
        "calibration_error_by_chance": by_chance(judged.confidences, generator),
        "confidence_auc": float((right[:, None] > wrong).mean()),
    }
    for claim, value in found.items():
        yield Claim(f"{claim}.{name}", value, "of clips", len(clips))


def _familiarity(clips: Sequence[Clip]) -> Iterator[Claim]:
    for name, condition in RECORDED.items():
        sounds = [_recorded(clip, condition, index) for index, clip in enumerate(clips)]
        yield Claim(f"not_sure.{name}", _share_strange(sounds), "of clips", len(sounds))
    for name, change in STRANGE.items():
        sounds = [change(clip.samples(), np.random.default_rng([2, i])) for i, clip in enumerate(clips)]
        yield Claim(f"strange_found.{name}", _share_strange(sounds), "of clips", len(sounds))


def _recorded(clip: Clip, condition: str, index: int) -> np.ndarray:
    return CONDITIONS[condition](clip.samples(), np.random.default_rng([1, index]))


def _foreign(folder: Path) -> Iterator[Claim]:
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        sounds = [read_clip(file).samples for file in sorted(kind.iterdir())]
        yield Claim(f"strange_found.{kind.name}", _share_strange(sounds), "of sounds", len(sounds))


def _share_strange(sounds: Sequence[np.ndarray]) -> float:
    hear, calibration = load_ears("embedded", "draft"), _calibration()
    assert hear is not None, "the embedded draft hears"
    return float(np.mean([ears.knows(calibration, hear(sound.astype(np.float32))) is False for sound in sounds]))


def _calibration() -> Calibration:
    calibration = load_calibration("embedded", "draft")
    assert calibration is not None, "the embedded draft is calibrated"
    return calibration


if __name__ == "__main__":
    main()
