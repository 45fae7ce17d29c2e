"""The emotion that a caption names."""

from __future__ import annotations

from types import MappingProxyType

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


def emotion_of(text: str) -> str | None:
    """The emotion whose word comes first in a caption; None: it names none."""
    words = (word.strip(".,;:!?").lower() for word in text.split())
    return next((_EMOTIONS[word] for word in words if word in _EMOTIONS), None)
