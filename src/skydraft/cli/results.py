"""The result of a run for one clip or prompt, and its JSON object."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from skydraft.core import Finish, Mode, Origin, ShareLevel, TextPiece, Token, TokenLogprobs, tokens_of
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.report import BETWEEN_WINDOWS, Report, Unasked, joined
from skydraft.policies.undrafted import Undrafted
from skydraft.tasks.cues import Cue
from skydraft.tasks.recording_summary import is_sure, main_confidence, main_emotion, summarise

JsonObject = dict[str, object]


class Piece(NamedTuple):
    """A token and the text that it adds; of several tokens that make one character, the last adds it.

    logprobs: where they were asked for, and the target has judged the token.
    is_end: it is an end token, of which nothing is seen.
    """

    token_id: int
    text: str
    origin: Origin
    logprobs: TokenLogprobs | None = None
    is_end: bool = False


@dataclass(frozen=True)
class Result:
    """The result for one clip or prompt, over all its windows.

    text: the captions of all windows with speech, separated by spaces; without any, what says so.
    pieces: of the tokens that models wrote; their texts concatenate to the text, but for captions that no model wrote.
    num_offered, num_accepted: tokens of drafts that the cloud judged, and those that held.
    seed: of all windows; None: greedy.
    first_token_s: of the first window. total_s: of all windows, prefills included.
    finish, stop: of the last window, as Report has them.
    up, down: payload bytes by kind. contents: what left the device, by kind.
    cues: a clip's captions, window by window; none for a prompt.
    unasked: why the cloud was asked about no window; None: it was about one, or was not to be.
    undrafted: why no window was drafted, as Report has it; None: one was, or none for another reason.
    num_told: windows whose evidence left the device; of a prompt 1 where its context did.
    """

    text: str
    pieces: tuple[Piece, ...]
    num_offered: int
    mode: Mode
    share: ShareLevel
    seed: int | None
    first_token_s: float
    total_s: float
    rounds: int
    reconnects: int
    is_alone: bool
    is_cloud_text: bool
    num_near_ties: int | None
    ended_early: str | None
    finish: Finish
    stop: str | None
    up: Counter[str]
    down: Counter[str]
    contents: Counter[str]
    cues: tuple[Cue, ...] = ()
    unasked: Unasked | None = None
    undrafted: Undrafted | None = None
    num_told: int = 0

    @property
    def num_tokens(self) -> int:
        """Without end tokens, of which nothing is seen."""
        return self.num_by_origin.total()

    @property
    def num_by_origin(self) -> Counter[Origin]:
        """Likewise."""
        return Counter(piece.origin for piece in self.pieces if not piece.is_end)

    @property
    def num_accepted(self) -> int:
        return sum(piece.origin is Origin.ACCEPTED for piece in self.pieces)

    @property
    def shared_evidence(self) -> list[str]:
        """The kinds of evidence that left the device."""
        return [kind for kind in self.contents if kind.startswith("evidence")]


def result_of_text(report: Report) -> Result:
    """The result for a prompt."""
    return _merge([report])


def result_of_clip(captioned: Sequence[CaptionedWindow]) -> Result:
    """The result for a clip, at least one window."""
    cues = tuple(window.cue for window in captioned)
    spoken = [window for window in captioned if window.has_speech] or captioned[:1]
    return _merge([window.report for window in spoken], cues)


def pieces_of(report: Report) -> list[Piece]:
    """Split a text into the parts that its tokens add; of one that no model wrote there are none."""
    pieces: list[Piece] = []
    for text, tokens in report.pieces:
        pieces += [Piece(token.token_id, "", token.origin, token.logprobs) for token in tokens]
        if pieces:
            pieces[-1] = pieces[-1]._replace(text=pieces[-1].text + text)
    if pieces and not pieces[-1].text and report.finish is Finish.STOP and report.stop is None:
        pieces[-1] = pieces[-1]._replace(is_end=True)
    return pieces


def as_json(subject: JsonObject, result: Result) -> JsonObject:
    """Make the object that --json prints.

    Args:
        subject: the input of the result: `file` or `prompt`.
    """
    return {
        **subject,
        "text": result.text,
        "mode": result.mode.value,
        "seed": result.seed,
        "tokens": [{**_token_json(piece), "text": piece.text} for piece in result.pieces],
        "first_token_s": round(result.first_token_s, 6),
        "total_s": round(result.total_s, 6),
        "rounds": result.rounds,
        "offered": result.num_offered,
        "accepted": result.num_accepted,
        "reconnects": result.reconnects,
        "is_alone": result.is_alone,
        "is_cloud_text": result.is_cloud_text,
        "near_ties": result.num_near_ties,
        "ended_early": result.ended_early,
        "finish": result.finish.value,
        "stop": result.stop,
        "unasked": result.unasked and result.unasked.value,
        "undrafted": result.undrafted and result.undrafted.value,
        "bytes": {"up": dict(result.up), "down": dict(result.down)},
        "disclosure": {
            "share": result.share.value,
            "has_evidence": bool(result.shared_evidence),
            "windows_with_evidence": result.num_told,
            "contents": dict(result.contents),
        },
        **_cues_as_json(result.cues),
    }


def _cues_as_json(cues: Sequence[Cue]) -> JsonObject:
    """What is said of a clip beside its text; of a clip of several windows also of each, and in summary."""
    if not cues:
        return {}
    said: JsonObject = {
        "speech": any(cue.has_speech for cue in cues),
        "emotion": main_emotion(cues),
        "confidence": _rounded(main_confidence(cues)),
        "is_sure": is_sure(cues),
    }
    if len(cues) == 1:
        return said
    windows = [
        {
            "start_s": round(cue.start_s, 3),
            "end_s": round(cue.end_s, 3),
            "text": cue.text,
            "speech": cue.has_speech,
            "emotion": cue.emotion,
            "confidence": _rounded(cue.confidence),
            "is_sure": cue.is_sure,
        }
        for cue in cues
    ]
    return {**said, "summary": summarise(cues), "windows": windows}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)


def batch_as_json(pieces: Sequence[TextPiece]) -> JsonObject:
    """Make the object that --json-stream prints of what came at once of a text."""
    return {
        "text": "".join(piece.text for piece in pieces),
        "tokens": [_token_json(token) for token in tokens_of(pieces)],
    }


def _token_json(token: Piece | Token) -> JsonObject:
    told: JsonObject = {"id": token.token_id, "origin": token.origin.value}
    if token.logprobs is not None:
        told["logprob"] = token.logprobs.logprob
        told["top_logprobs"] = [{"id": token_id, "logprob": logprob} for token_id, logprob in token.logprobs.top]
    return told


def to_line(json_object: JsonObject) -> str:
    """Write an object as one line of ASCII, which is valid in every encoding and for every file name."""
    return json.dumps(json_object, ensure_ascii=True, allow_nan=False)


def _merge(reports: Sequence[Report], cues: tuple[Cue, ...] = ()) -> Result:
    whole, pieces = joined(reports), _joined([pieces_of(report) for report in reports])
    return Result(
        text=whole.text,
        pieces=pieces,
        num_offered=whole.num_drafted,
        mode=whole.mode,
        share=whole.disclosure.level,
        seed=whole.seed,
        first_token_s=whole.first_token_s,
        total_s=whole.total_s,
        rounds=whole.rounds,
        reconnects=whole.reconnects,
        is_alone=whole.is_alone,
        is_cloud_text=whole.is_cloud_text,
        num_near_ties=whole.num_near_ties,
        ended_early=whole.ended_early,
        finish=whole.finish,
        stop=whole.stop,
        up=whole.disclosure.up,
        down=whole.disclosure.down,
        contents=whole.disclosure.contents,
        cues=cues,
        unasked=whole.unasked,
        undrafted=whole.undrafted,
        num_told=sum(report.disclosure.has_evidence for report in reports),
    )


def _joined(texts: Sequence[Sequence[Piece]]) -> tuple[Piece, ...]:
    """Join the pieces of several texts; the first piece of each later text begins with a space."""
    pieces: list[Piece] = []
    for text in texts:
        space = BETWEEN_WINDOWS if pieces and text else ""
        pieces += [piece._replace(text=space + piece.text) if index == 0 else piece for index, piece in enumerate(text)]
    return tuple(pieces)
