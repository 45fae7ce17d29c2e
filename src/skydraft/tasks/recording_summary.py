"""How the emotion goes through a recording, in a few words."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from skydraft.tasks.cues import Cue, clock

MOSTLY = 0.5  # of the time in which an emotion was named
THROUGHOUT = 0.95
MAX_SHARES = 3
MAX_STRETCHES = 3  # the longest are named


class _Stretch(NamedTuple):
    """Captions in a row that name the same emotion, with what is between them."""

    start_s: float
    end_s: float
    emotion: str


def summarise(cues: Sequence[Cue]) -> str:
    """Say how the emotion goes through a recording, for example "mostly calm, angry from 02:10 to 02:31".

    Emotions count by the seconds of the captions that name them; other captions are left out. Behind that stands how
    often such words are right, and how long the device did not know the voice, where that is known.
    """
    parts = [_course(cues)]
    named = [cue for cue in cues if cue.emotion is not None]
    if (confidence := _mean_confidence(named)) is not None:
        parts.append(in_words(confidence))
    spoken = [cue for cue in cues if cue.has_speech]
    if unknown := [cue for cue in spoken if cue.is_sure is False]:
        share = _length_s(unknown) / _length_s(spoken)
        parts.append("the voice is unlike those that the device knows" + (f" {share:.0%} of the time" if named else ""))
    return "; ".join(parts)


def in_words(confidence: float) -> str:
    """`right about 7 times in 10`"""
    times = min(max(round(10 * confidence), 1), 9)  # never certain, and never hopeless
    return f"right about {'once' if times == 1 else f'{times} times'} in 10"


def main_confidence(cues: Sequence[Cue]) -> float | None:
    """How often the main emotion is right: the mean over the time for which it is named; None: nobody can say."""
    main = main_emotion(cues)
    return _mean_confidence([cue for cue in cues if cue.emotion is not None and cue.emotion == main])


def is_sure(cues: Sequence[Cue]) -> bool | None:
    """Whether the device knows such voices in all that is spoken; None: nobody has measured what it knows."""
    known = [cue.is_sure for cue in cues if cue.has_speech and cue.is_sure is not None]
    return all(known) if known else None


def _mean_confidence(cues: Sequence[Cue]) -> float | None:
    known = [(cue.confidence, cue.end_s - cue.start_s) for cue in cues if cue.confidence is not None]
    if not known:
        return None
    return sum(confidence * length_s for confidence, length_s in known) / sum(length_s for _, length_s in known)


def _length_s(cues: Sequence[Cue]) -> float:
    return sum(cue.end_s - cue.start_s for cue in cues)


def _course(cues: Sequence[Cue]) -> str:
    named = [cue for cue in cues if cue.emotion is not None]
    if not named:
        return "no emotion was named" if any(cue.has_speech for cue in cues) else "no speech"
    shares = _shares(named)
    main, share = shares[0]
    if share >= THROUGHOUT:
        return f"{main} throughout"
    if share < MOSTLY:
        return "changing: " + ", ".join(f"{emotion} {part:.0%} of the time" for emotion, part in shares[:MAX_SHARES])
    others = [stretch for stretch in _stretches(named) if stretch.emotion != main]
    longest = sorted(others, key=lambda stretch: stretch.start_s - stretch.end_s)[:MAX_STRETCHES]
    words = [f"{emotion} from {clock(start_s)} to {clock(end_s)}" for start_s, end_s, emotion in sorted(longest)]
    num_more = len(others) - len(longest)
    more = [f"and {num_more} shorter {'stretch' if num_more == 1 else 'stretches'} of others"] if num_more else []
    return ", ".join([f"mostly {main}", *words, *more])


def main_emotion(cues: Sequence[Cue]) -> str | None:
    """The emotion that is named for the longest time; None: none is."""
    named = [cue for cue in cues if cue.emotion is not None]
    return _shares(named)[0][0] if named else None


def _shares(named: Sequence[Cue]) -> list[tuple[str, float]]:
    """Emotions with their shares of the time, the largest first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for cue in named:
        seconds[str(cue.emotion)] += cue.end_s - cue.start_s
    total_s = sum(seconds.values())
    return sorted(((emotion, part_s / total_s) for emotion, part_s in seconds.items()), key=lambda pair: -pair[1])


def _stretches(named: Sequence[Cue]) -> list[_Stretch]:
    groups = [(str(emotion), list(group)) for emotion, group in itertools.groupby(named, lambda cue: cue.emotion)]
    return [_Stretch(group[0].start_s, group[-1].end_s, emotion) for emotion, group in groups]
