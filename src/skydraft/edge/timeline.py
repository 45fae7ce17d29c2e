"""When what happened while a text was written: draft steps, offers on their way, verdicts, and growth.

What the device sees are its own steps, and when offers leave and verdicts arrive. How long an offer is on its way
nobody tells it: a ping does, and half of it is taken for each direction. What is left between is the cloud's: it waits
its turn there, and is judged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from skydraft.core import Draft, Origin
from skydraft.decoding.edge_session import EdgeSession


class Span(NamedTuple):
    """Seconds from the start of the run."""

    start_s: float
    end_s: float

    def later(self, seconds: float) -> Span:
        return Span(self.start_s + seconds, self.end_s + seconds)


class Grown(NamedTuple):
    """The text grew. at_s: when, from the start of the run."""

    at_s: float
    num_tokens: int


@dataclass(frozen=True)
class Round:
    """A verdict, and the offers that it answers. Times in seconds from the start of the run.

    number: from 1, as `Token.round` has it; over several windows they go on.
    sent_s: when each of these offers left, ascending; none where the connection that they left by was lost.
    answered_s: when the verdict arrived.
    round_trip_s: of the link, as pings had measured it by then; None: none had come back.
    num_drafted: tokens that were judged, of a tree all its nodes. num_accepted: that held. num_tokens: that it brought.
    """

    number: int
    sent_s: tuple[float, ...]
    answered_s: float
    round_trip_s: float | None
    num_drafted: int
    num_accepted: int
    num_tokens: int

    @property
    def at_cloud(self) -> Span:
        """From when the last of its offers had arrived to when the verdict left, as far as pings tell."""
        sent_s = self.sent_s[-1] if self.sent_s else self.answered_s
        on_way_s = min(self.round_trip_s or 0.0, self.answered_s - sent_s) / 2
        return Span(sent_s + on_way_s, self.answered_s - on_way_s)


@dataclass(frozen=True)
class TimeLine:
    """Of one text, or of a clip's windows one after the other.

    drafted: the draft model's steps. dropped: offers from when they left to when it was known that no verdict would
    answer them. grown: the text, by whoever wrote it. round_trip_s: of the link, as pings measured it last; None: none
    came back.
    """

    drafted: tuple[Span, ...] = ()
    rounds: tuple[Round, ...] = ()
    dropped: tuple[Span, ...] = ()
    grown: tuple[Grown, ...] = ()
    round_trip_s: float | None = None

    def followed_by(self, other: TimeLine, seconds: float) -> TimeLine:
        """One time line of two texts, of which the second began so many seconds after the first."""
        later = [
            replace(
                each,
                number=each.number + len(self.rounds),
                sent_s=tuple(sent_s + seconds for sent_s in each.sent_s),
                answered_s=each.answered_s + seconds,
            )
            for each in other.rounds
        ]
        return TimeLine(
            drafted=(*self.drafted, *(span.later(seconds) for span in other.drafted)),
            rounds=(*self.rounds, *later),
            dropped=(*self.dropped, *(span.later(seconds) for span in other.dropped)),
            grown=(*self.grown, *(Grown(grown.at_s + seconds, grown.num_tokens) for grown in other.grown)),
            round_trip_s=self.round_trip_s if other.round_trip_s is None else other.round_trip_s,
        )


class TimeKeeper:
    """Keeps the time line of a text that is being written; each method is called when it has happened."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._on_way: dict[int, tuple[Draft, float]] = {}  # by identity: offers of the same tokens are several
        self._drafted: list[Span] = []
        self._rounds: list[Round] = []
        self._dropped: list[Span] = []
        self._grown: list[Grown] = []
        self._num_drafted = 0
        self._round_trip_s: float | None = None

    @property
    def time_line(self) -> TimeLine:
        """So far."""
        return TimeLine(
            tuple(self._drafted), tuple(self._rounds), tuple(self._dropped), tuple(self._grown), self._round_trip_s
        )

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self._started_s

    def drafted(self, seconds: float) -> None:
        """A draft step that took so long has ended."""
        now_s = self.now_s
        self._drafted.append(Span(max(0.0, now_s - seconds), now_s))

    def sent(self, in_flight: Sequence[Draft]) -> None:
        """What was due has left. in_flight: all offers without an answer."""
        now_s = self.now_s
        for draft in in_flight:
            self._on_way.setdefault(id(draft), (draft, now_s))

    def answered(self, session: EdgeSession, length: int, round_trip_s: float | None) -> None:
        """The session has taken in an answer. length: of the text before."""
        now_s, self._round_trip_s = self.now_s, round_trip_s
        if session.num_rounds > len(self._rounds):
            new_tokens = session.tokens(length)
            answered = (self._on_way.pop(id(draft), None) for draft in session.answered)
            self._rounds.append(
                Round(
                    number=session.num_rounds,
                    sent_s=tuple(sent_s for _, sent_s in filter(None, answered)),
                    answered_s=now_s,
                    round_trip_s=round_trip_s,
                    num_drafted=session.num_drafted - self._num_drafted,
                    num_accepted=sum(token.origin is Origin.ACCEPTED for token in new_tokens),
                    num_tokens=sum(token.round == session.num_rounds for token in new_tokens),
                )
            )
            self._num_drafted = session.num_drafted
        self._drop(self._on_way.keys() - {id(draft) for draft in session.in_flight})

    def lost(self) -> None:
        """The connection is gone, and what was on its way with it."""
        self._drop(set(self._on_way))

    def grew(self, num_tokens: int) -> None:
        """The text has so many tokens more."""
        self._grown.append(Grown(self.now_s, num_tokens))

    def _drop(self, ids: set[int]) -> None:
        now_s = self.now_s
        self._dropped += sorted(Span(self._on_way.pop(each)[1], now_s) for each in ids)
