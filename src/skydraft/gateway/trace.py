"""How a text came about, for whoever asks (`trace`): where each token is from, and the time line of the rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from skydraft.core import TextPiece, Token
from skydraft.edge.report import Report
from skydraft.edge.timeline import Span
from skydraft.gateway.counts import own_facts, timings

DIGITS = 6  # microseconds


def facts_of_piece(piece: TextPiece, has_trace: bool) -> dict[str, object]:
    """What a streamed piece carries beside OpenAI's fields; without a trace nothing."""
    return {"skydraft": {"pieces": _traced([piece])}} if has_trace else {}


def facts_of_texts(reports: Sequence[Report], has_trace: bool) -> dict[str, object]:
    """What an answer carries beside OpenAI's fields, the last of a stream too."""
    traces = {"traces": [trace_of(report) for report in reports]} if has_trace else {}
    return {"timings": timings(reports), "skydraft": {**own_facts(reports), **traces}}


def _traced(pieces: Iterable[TextPiece]) -> list[dict[str, object]]:
    """Pieces of a text, each with what is known of its tokens."""
    return [{"text": piece.text, "tokens": [_token(token) for token in piece.tokens]} for piece in pieces]


def trace_of(report: Report) -> dict[str, object]:
    """All of a text, and when what happened: seconds from its start."""
    line = report.time_line
    rounds = [
        {
            "round": each.number,
            "sent_s": [_rounded(sent_s) for sent_s in each.sent_s],
            "at_cloud_s": _span(each.at_cloud),
            "answered_s": _rounded(each.answered_s),
            "round_trip_s": None if each.round_trip_s is None else _rounded(each.round_trip_s),
            "drafted": each.num_drafted,
            "accepted": each.num_accepted,
            "tokens": each.num_tokens,
        }
        for each in line.rounds
    ]
    return {
        "pieces": _traced(report.pieces),
        "time_line": {
            "total_s": _rounded(report.total_s),
            "first_token_s": _rounded(report.first_token_s),
            "round_trip_s": None if line.round_trip_s is None else _rounded(line.round_trip_s),
            "drafted_s": [_span(span) for span in line.drafted],
            "rounds": rounds,
            "dropped_s": [_span(span) for span in line.dropped],
            "grown": [[_rounded(at_s), num_tokens] for at_s, num_tokens in line.grown],
        },
    }


def _token(token: Token) -> dict[str, object]:
    """rank: among the tokens whose probabilities were asked for; None: it is none of them."""
    told: dict[str, object] = {"origin": token.origin.value, "round": token.round}
    if token.logprobs is not None:
        ranked = [token_id for token_id, _ in token.logprobs.top]
        told["probability"] = round(math.exp(token.logprobs.logprob), DIGITS)
        told["rank"] = ranked.index(token.token_id) + 1 if token.token_id in ranked else None
    return told


def _span(span: Span) -> list[float]:
    return [_rounded(span.start_s), _rounded(span.end_s)]


def _rounded(seconds: float) -> float:
    return round(seconds, DIGITS)
