"""A window of a clip and what was said of it."""

from __future__ import annotations

from typing import NamedTuple

from skydraft.edge.report import Report
from skydraft.tasks.cues import Cue
from skydraft.tasks.emotions import emotion_of


class CaptionedWindow(NamedTuple):
    """A window of a clip and its caption: "No speech." where nobody speaks, which no model was asked about.

    is_sure: False: the voice is unlike those that the draft model knows; None: nobody has measured what it knows.
    confidence: how often such an emotion is right, 0 to 1; None: no emotion is named, or nobody can say.
    """

    start_s: float
    end_s: float
    report: Report
    has_speech: bool = True
    is_sure: bool | None = None
    confidence: float | None = None

    @property
    def cue(self) -> Cue:
        """The caption with its times and the emotion that it names."""
        text = self.report.text.strip()
        emotion = emotion_of(text) if self.has_speech else None
        return Cue(self.start_s, self.end_s, text, self.has_speech, emotion, self.is_sure, self.confidence)
