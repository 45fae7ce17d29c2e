"""Captions of how a speaker sounds: what the label says, what was measured, in varied wording."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skydraft.audio.voice import VoiceMeasurement
from skydraft.tasks.emotions import EMOTION_WORDS as EMOTION_WORDS
from skydraft.tasks.emotions import emotion_of as emotion_of
from training.clips import EMOTIONS, Clip

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

# The emotion never follows "a" or "an": the article would give it away, or force it, one token early.
_TEMPLATES = (
    ("{A} sounds {emotion}, {loudly}; the pitch is {pitch} and {moves}, and {he} {talks}.", 0.4),
    ("{A} speaks in a {loud}, {emotion} voice; the pitch is {pitch} and {moves}, and the pace is {pace}.", 0.2),
    ("{A} sounds {emotion}. {His} voice is {loud}, the pitch is {pitch} and {moves}, and {he} {talks}.", 0.2),
    ("This voice is {emotion}. {He} speaks {loudly} at a {pace} pace; the pitch is {pitch} and {moves}.", 0.1),
    ("Speaking {loudly} and at a {pace} pace, {a} sounds {emotion}; the pitch is {pitch} and {moves}.", 0.1),
)


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


def thresholds(clips: Sequence[Clip], measurements: Sequence[VoiceMeasurement]) -> Thresholds:
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


def traits(clip: Clip, measurement: VoiceMeasurement, limits: Thresholds) -> Traits:
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


class Stated(NamedTuple):
    """What a caption says; levels and movements as in Traits."""

    emotion: str
    is_female: bool
    pitch_level: int
    movement: str
    loudness_level: int
    pace_level: int


def is_well_formed(text: str) -> bool:
    """Whether a text is one that `caption` can make of some facts."""
    return parse(text) is not None


def parse(text: str) -> Stated | None:
    """Read a caption back; None where it is no caption of this grammar."""
    found = next((match for pattern in _PATTERNS if (match := pattern.fullmatch(text))), None)
    if found is None:
        return None
    words = {name: word for name, word in found.groupdict().items() if word is not None}
    persons = {_PERSONS[word.lower()] for name, word in words.items() if name.startswith("person")}
    if len(persons) > 1:  # "a woman ... he"
        return None
    (is_female,) = persons
    return Stated(
        emotion=next(emotion for emotion, names in EMOTION_WORDS.items() if words["emotion"] in names),
        is_female=is_female,
        pitch_level=_level_of(words["pitch"], _PITCHES),
        movement=next(movement for movement, names in _MOVEMENTS.items() if words["moves"] in names),
        loudness_level=_level_of(words.get("loud") or words["loudly"], _LOUDNESSES, _LOUDLY),
        pace_level=_level_of(words.get("pace") or words["talks"], _PACES, _TALKS),
    )


def _level_of(word: str, *tables: Sequence[Sequence[str]]) -> int:
    neutral = word.replace(" her ", " {his} ").replace(" his ", " {his} ")
    return next(level for table in tables for level, names in enumerate(table) if neutral in names)


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a pattern with a group for each of its words."""
    talks = [name.format(his=his) for names in _TALKS for name in names for his in ("her", "his")]
    choices: dict[str, Iterable[str]] = {
        "emotion": itertools.chain(*EMOTION_WORDS.values()),
        "loud": itertools.chain(*_LOUDNESSES),
        "loudly": itertools.chain(*_LOUDLY),
        "pitch": itertools.chain(*_PITCHES),
        "moves": itertools.chain(*_MOVEMENTS.values()),
        "pace": itertools.chain(*_PACES),
        "talks": talks,
    }
    persons = {"A": "A (?P<person_a>man|woman)", "a": "a (?P<person_a>man|woman)"}
    persons |= {"He": "(?P<person_b>He|She)", "he": "(?P<person_c>he|she)", "His": "(?P<person_d>His|Her)"}
    groups = {name: f"(?P<{name}>{'|'.join(map(re.escape, words))})" for name, words in choices.items()}
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join((groups | persons)[part] if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
    )


_PERSONS = {"man": False, "he": False, "his": False, "woman": True, "she": True, "her": True}
_PATTERNS = [_pattern(template) for template, _ in _TEMPLATES]


def _worded(template: str, facts: Traits, generator: np.random.Generator) -> str:
    def one_of(words: Sequence[str]) -> str:
        return words[0] if len(words) == 1 or generator.random() < _PITCH_WEIGHTS[0] else words[1]

    names = EMOTION_WORDS[facts.emotion]
    emotion = names[0] if generator.random() >= _SYNONYM_SHARE else names[-1]
    person, he, his = ("woman", "she", "her") if facts.is_female else ("man", "he", "his")
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
    )


def _level(value: float, limits: tuple[float, float]) -> int:
    return int(value >= limits[0]) + int(value >= limits[1])


def _movement(measurement: VoiceMeasurement, limits: Thresholds) -> str:
    if measurement.pitch_range_semitones < limits.even_below_semitones:
        return "even"
    if measurement.pitch_change_semitones < limits.falls_below_semitones:
        return "falls"
    if measurement.pitch_change_semitones > limits.rises_above_semitones:
        return "rises"
    return "swings"


assert tuple(EMOTION_WORDS) == EMOTIONS
