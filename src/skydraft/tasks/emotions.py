"""The emotion that a caption names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

# The words of the embedded pair's captions; other models use most of them too.
EMOTION_WORDS = MappingProxyType(
    {
        "neutral": ("neutral",),
        "calm": ("calm", "relaxed"),
        "happy": ("happy", "cheerful"),
        "sad": ("sad", "sorrowful"),
        "angry": ("angry", "furious"),
        "fearful": ("fearful", "afraid"),
        "disgusted": ("disgusted", "repelled"),
        "surprised": ("surprised", "astonished"),
    }
)
_EMOTIONS = {word: emotion for emotion, words in EMOTION_WORDS.items() for word in words}


class EmotionWord(NamedTuple):
    """The word by which a caption names an emotion.

    is_clouds: a cloud chose it, having heard the voice.
    probabilities: of each emotion in its place, by the device's model, which has heard the voice too.
    """

    emotion: str
    is_clouds: bool
    probabilities: Mapping[str, float]


def emotion_of(text: str) -> str | None:
    """The emotion whose word comes first in a caption; None: it names none."""
    words = (word.strip(".,;:!?").lower() for word in text.split())
    return next((_EMOTIONS[word] for word in words if word in _EMOTIONS), None)


def by_emotion(tokens: Mapping[int, str], shares: Sequence[float]) -> dict[str, float]:
    """Probabilities of emotions from those of the tokens with which their words begin.

    Args:
        tokens: the emotion of each. shares: of each, in that order.
    """
    probabilities = dict.fromkeys(tokens.values(), 0.0)
    for emotion, share in zip(tokens.values(), shares, strict=True):
        probabilities[emotion] += share
    return probabilities
