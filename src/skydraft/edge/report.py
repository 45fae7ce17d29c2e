"""What a run did: for people, for --json, for benches."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec

from skydraft.core import Finish, Mode, Origin, ShareLevel, TextPiece, Token, tokens_of
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.timeline import TimeLine
from skydraft.policies.undrafted import Undrafted
from skydraft.tasks.emotions import EmotionWord

BETWEEN_WINDOWS = " "


class Unasked(enum.StrEnum):
    """Why a cloud that might have been asked was not."""

    DEAF = "deaf"  # it does not get the evidence, and without that it is no help
    SURE = "sure"  # the gate found nothing that the device was unsure of
    STRANGE = "strange"  # the voice is unlike those that the device knows, so nobody was to name an emotion


@dataclass(frozen=True)
class Report:
    """One text and how it came about.

    pieces: the text, as it came.
    finish: why it ended. stop: the stop string that ended it; None: an end token did, its grammar or its length.
    num_prompt_tokens: of the device's prompt; what is no text does not count.
    num_prompt_reused: of the prompt's tokens, those that the cloud had read for an earlier text.
    num_drafted: tokens of drafts that the cloud judged, of a tree all its nodes.
    mode: as asked for; `is_alone`: the cloud was lost, and the device went on by itself, to the end or for a time.
    seed: with which the same models write it again; None: it is greedy, and nothing was drawn.
    first_token_s, total_s: from the start of the run, the prompt's prefill included.
    rounds: verdicts. num_positions: that the cloud computed.
    reconnects: how often the connection was lost and taken up again.
    is_cloud_text: it is, token for token, what the cloud writes alone: promised by rule and cloud, or it wrote alone.
    num_near_ties: choices that the cloud's model decided by less than its logits are known to, so that the cloud alone
        might have made another one there; 0 where its rows are invariant; None: it has not measured that.
    ended_early: why the text ended before one of its end tokens and before it was as long as asked for; None: it did
        not.
    unasked: why the cloud knows nothing of the text; None: it was asked, or there was none to ask.
    undrafted: of a text without rounds, why drafts would not have made it faster; None: there were rounds, or there are
        none for another reason.
    is_repeated: nobody could write, and this is what the same question was answered before.
    time_line: when what happened.
    emotion_word: of a caption, by which it names an emotion; None: there is none, or no draft model to judge it.
    """

    pieces: tuple[TextPiece, ...]
    finish: Finish
    stop: str | None
    num_prompt_tokens: int
    num_drafted: int
    mode: Mode
    is_alone: bool
    seed: int | None
    first_token_s: float
    total_s: float
    rounds: int
    num_positions: int
    reconnects: int
    is_cloud_text: bool
    num_near_ties: int | None
    ended_early: str | None
    disclosure: DisclosureRecord
    unasked: Unasked | None = None
    undrafted: Undrafted | None = None
    is_repeated: bool = False
    num_prompt_reused: int = 0
    time_line: TimeLine = field(default=TimeLine(), repr=False)
    emotion_word: EmotionWord | None = None

    @cached_property
    def text(self) -> str:
        """Without the stop string that ended it."""
        return "".join(piece.text for piece in self.pieces)

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Those of which something is in the text, and the end token."""
        return tokens_of(self.pieces)

    @property
    def num_by_origin(self) -> dict[Origin, int]:
        counts = Counter(token.origin for token in self.tokens)
        return {origin: counts[origin] for origin in Origin}


def unwritten(text: str, mode: Mode, share: ShareLevel) -> Report:
    """A report of a text that no model wrote: the device knew it by itself, and nothing left."""
    return Report(
        pieces=(TextPiece(text, ()),),
        finish=Finish.STOP,
        stop=None,
        num_prompt_tokens=0,
        num_drafted=0,
        mode=mode,
        is_alone=False,
        seed=None,
        first_token_s=0.0,
        total_s=0.0,
        rounds=0,
        num_positions=0,
        reconnects=0,
        is_cloud_text=False,
        num_near_ties=0,
        ended_early=None,
        disclosure=DisclosureRecord(share),
    )


def joined(reports: Sequence[Report], between: str = BETWEEN_WINDOWS) -> Report:
    """One report of the texts of a clip's windows, at least one, or of several clips.

    Args:
        between: what stands between two of them.
    """
    first, last = reports[0], reports[-1]
    disclosure = DisclosureRecord(first.disclosure.level)
    for report in reports:
        disclosure.add(report.disclosure)
    pieces, time_line, total_s = list(first.pieces), first.time_line, first.total_s
    for report in reports[1:]:
        pieces += [TextPiece(between, ()), *_numbered_from(report.pieces, len(time_line.rounds))]
        time_line, total_s = time_line.followed_by(report.time_line, total_s), total_s + report.total_s
    near_ties = [report.num_near_ties for report in reports if report.num_near_ties is not None]
    return replace(
        first,
        pieces=tuple(pieces),
        finish=last.finish,
        stop=last.stop,
        num_prompt_tokens=sum(report.num_prompt_tokens for report in reports),
        num_prompt_reused=sum(report.num_prompt_reused for report in reports),
        num_drafted=sum(report.num_drafted for report in reports),
        is_alone=any(report.is_alone for report in reports),
        total_s=total_s,
        rounds=sum(report.rounds for report in reports),
        num_positions=sum(report.num_positions for report in reports),
        reconnects=sum(report.reconnects for report in reports),
        is_cloud_text=all(report.is_cloud_text for report in reports),
        num_near_ties=sum(near_ties) if len(near_ties) == len(reports) else None,
        ended_early=next((report.ended_early for report in reports if report.ended_early), None),
        disclosure=disclosure,
        unasked=first.unasked if all(report.unasked for report in reports) else None,
        undrafted=first.undrafted if all(report.undrafted for report in reports) else None,
        time_line=time_line,
    )


def _numbered_from(pieces: Sequence[TextPiece], num_rounds: int) -> list[TextPiece]:
    """Pieces of a text that follows one of so many rounds."""
    return [
        TextPiece(
            text,
            tuple(msgspec.structs.replace(token, round=token.round and token.round + num_rounds) for token in tokens),
        )
        for text, tokens in pieces
    ]
