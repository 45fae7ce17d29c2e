"""Captions of how a speaker sounds: what the label says, what was measured, in varied wording."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skydraft.tasks.emotions import EMOTION_WORDS as EMOTION_WORDS
from skydraft.tasks.emotions import emotion_of as emotion_of
from training.clips import EMOTIONS, Clip
from training.measure import Measurement

_SYNONYM_SHARE = 0.1  # small, so that two words for one emotion do not split a greedy choice

_PITCHES = (("low", "deep"), ("medium", "middle"), ("high", "raised"))
_PITCH_WEIGHTS = (0.7, 0.3)
_MOVEMENTS = {
    "even": ("stays even", "hardly moves"),
    "falls": ("falls", "drops towards the end"),
    "rises": ("rises", "climbs towards the end"),
    "swings": ("swings widely", "moves up and down"),
}
_LOUDNESSES = (("quiet", "soft"), ("medium-loud", "moderate"), ("loud", "strong"))
_LOUDLY = (("quietly", "softly"), ("at normal volume", "neither loudly nor quietly"), ("loudly", "with a loud voice"))
_PACES = (("slow", "unhurried"), ("medium", "steady"), ("quick", "brisk"))
_TALKS = (
    ("takes {his} time", "talks slowly"),
    ("keeps a steady pace", "talks at a normal pace"),
    ("talks quickly", "hurries"),
)
_FEELINGS = (("mild", "held back"), ("strong", "intense"))

# The emotion never follows "a" or "an": the article would give it away, or force it, one token early.
_TEMPLATES = (
    ("{A} sounds {emotion}, {loudly}; the pitch is {pitch} and {moves}, and {he} {talks}.", 0.4),
    ("{A} speaks in a {loud}, {emotion} voice; the pitch is {pitch} and {moves}, and the pace is {pace}.", 0.2),
    ("{A} sounds {emotion}. {His} voice is {loud}, the pitch is {pitch} and {moves}, and {he} {talks}.", 0.2),
    ("This voice is {emotion}. {He} speaks {loudly} at a {pace} pace; the pitch is {pitch} and {moves}.", 0.1),
    ("Speaking {loudly} and at a {pace} pace, {a} sounds {emotion}; the pitch is {pitch} and {moves}.", 0.1),
)
_PERSONS = {False: ("man", "he", "his"), True: ("woman", "she", "her")}  # by whether it is a woman
_FEELING_TEMPLATE = " The feeling is {feeling}."
_FEELING_SHARE = 0.5


@dataclass(frozen=True)
class Traits:
    """What a caption states; levels count 0, 1, 2 from low, quiet, slow."""

    emotion: str
    is_strong: bool
    is_female: bool
    pitch_level: int
    movement: str
    loudness_level: int
    pace_level: int


@dataclass(frozen=True)
class Thresholds:
    """Where levels begin, measured on the train split; pitch and loudness by sex, since bodies differ."""

    pitch_hz: dict[bool, tuple[float, float]]  # is_female -> (medium from, high from)
    loudness_db: dict[bool, tuple[float, float]]
    active_s: tuple[float, float]
    even_below_semitones: float
    falls_below_semitones: float
    rises_above_semitones: float


def thresholds(clips: Sequence[Clip], measurements: Sequence[Measurement]) -> Thresholds:
    """Thirds of the given clips (the unaugmented train split)."""

    def thirds(values: Sequence[float]) -> tuple[float, float]:
        low, high = np.percentile(values, [100 / 3, 200 / 3])
        return float(low), float(high)

    pairs = list(zip(clips, measurements, strict=True))
    return Thresholds(
        pitch_hz={sex: thirds([m.pitch_hz for c, m in pairs if c.is_female == sex]) for sex in (False, True)},
        loudness_db={sex: thirds([m.loudness_db for c, m in pairs if c.is_female == sex]) for sex in (False, True)},
        active_s=thirds([m.active_s for m in measurements]),
        even_below_semitones=float(np.percentile([m.pitch_range_semitones for m in measurements], 30)),
        falls_below_semitones=float(np.percentile([m.pitch_change_semitones for m in measurements], 40)),
        rises_above_semitones=float(np.percentile([m.pitch_change_semitones for m in measurements], 80)),
    )


def traits(clip: Clip, measurement: Measurement, limits: Thresholds) -> Traits:
    """What is true of one rendering of a clip."""
    return Traits(
        emotion=clip.emotion,
        is_strong=clip.is_strong,
        is_female=clip.is_female,
        pitch_level=_level(measurement.pitch_hz, limits.pitch_hz[clip.is_female]),
        movement=_movement(measurement, limits),
        loudness_level=_level(measurement.loudness_db, limits.loudness_db[clip.is_female]),
        pace_level=2 - _level(measurement.active_s, limits.active_s),
    )


def caption(facts: Traits, generator: np.random.Generator) -> str:
    """One wording of the facts, drawn at random."""
    template = _TEMPLATES[generator.choice(len(_TEMPLATES), p=[weight for _, weight in _TEMPLATES])][0]
    return _worded(template, facts, generator)


def references(facts: Traits, num_references: int, seed: int) -> list[str]:
    """Different wordings of the same facts, the templates in turn: what BLEU compares with."""
    generator = np.random.default_rng(seed)
    found: dict[str, None] = {}
    for attempt in range(50 * num_references):
        found[_worded(_TEMPLATES[attempt % len(_TEMPLATES)][0], facts, generator)] = None
        if len(found) == num_references:
            break
    return list(found)


def is_well_formed(text: str) -> bool:
    """Whether a text is one that `caption` can make of some facts."""
    return any(pattern.fullmatch(text) for pattern in _grammar())


@functools.cache
def _grammar() -> tuple[re.Pattern[str], ...]:
    """A pattern for each template and sex."""
    choices = {
        "emotion": [word for words in EMOTION_WORDS.values() for word in words],
        "loud": itertools.chain(*_LOUDNESSES),
        "loudly": itertools.chain(*_LOUDLY),
        "pitch": itertools.chain(*_PITCHES),
        "moves": itertools.chain(*_MOVEMENTS.values()),
        "pace": itertools.chain(*_PACES),
        "feeling": itertools.chain(*_FEELINGS),
    }
    either = {name: f"(?:{'|'.join(words)})" for name, words in choices.items()}
    talks = [words for pair in _TALKS for words in pair]
    patterns = []
    for person, he, his in _PERSONS.values():
        either["talks"] = f"(?:{'|'.join(talks)})".format(his=his)
        names = {"A": f"A {person}", "a": f"a {person}", "He": he.capitalize(), "he": he, "His": his.capitalize()}
        for template, _ in _TEMPLATES:
            pattern = f"{template}(?:{_FEELING_TEMPLATE})?".replace(".", r"\.").format(**names, **either)
            patterns.append(re.compile(pattern))
    return tuple(patterns)


def _worded(template: str, facts: Traits, generator: np.random.Generator) -> str:
    def one_of(words: Sequence[str]) -> str:
        return words[0] if len(words) == 1 or generator.random() < _PITCH_WEIGHTS[0] else words[1]

    names = EMOTION_WORDS[facts.emotion]
    emotion = names[0] if generator.random() >= _SYNONYM_SHARE else names[-1]
    if generator.random() < _FEELING_SHARE:
        template += _FEELING_TEMPLATE
    person, he, his = _PERSONS[facts.is_female]
    return template.format(
        A=f"A {person}",
        a=f"a {person}",
        He=he.capitalize(),
        he=he,
        His=his.capitalize(),
        emotion=emotion,
        loud=one_of(_LOUDNESSES[facts.loudness_level]),
        loudly=one_of(_LOUDLY[facts.loudness_level]),
        pitch=one_of(_PITCHES[facts.pitch_level]),
        moves=one_of(_MOVEMENTS[facts.movement]),
        pace=one_of(_PACES[facts.pace_level]),
        talks=one_of(_TALKS[facts.pace_level]).format(his=his),
        feeling=one_of(_FEELINGS[facts.is_strong]),
    )


def _level(value: float, limits: tuple[float, float]) -> int:
    return int(value >= limits[0]) + int(value >= limits[1])


def _movement(measurement: Measurement, limits: Thresholds) -> str:
    if measurement.pitch_range_semitones < limits.even_below_semitones:
        return "even"
    if measurement.pitch_change_semitones < limits.falls_below_semitones:
        return "falls"
    if measurement.pitch_change_semitones > limits.rises_above_semitones:
        return "rises"
    return "swings"


assert tuple(EMOTION_WORDS) == EMOTIONS
