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

    Emotions count by the seconds of the captions that name them; other captions are left out.
    """
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
