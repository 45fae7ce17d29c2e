"""What a text cost, and what of its drafts was right, in the words of others and in ours."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.core import Origin
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.report import Report


def usage(reports: Sequence[Report], has_prediction: bool = False) -> dict[str, object]:
    """As OpenAI has it. The prompt counts once, however many texts follow it.

    Args:
        has_prediction: only then do its words for accepted and rejected tokens mean what they say there.
    """
    num_prompt, num_written = reports[0].num_prompt_tokens, sum(len(report.tokens) for report in reports)
    counts: dict[str, object] = {
        "prompt_tokens": num_prompt,
        "prompt_tokens_details": {"cached_tokens": min(num_prompt, reports[0].num_prompt_reused)},
        "completion_tokens": num_written,
        "total_tokens": num_prompt + num_written,
    }
    if has_prediction:
        num_drafted, num_accepted = _drafts(reports)
        counts["completion_tokens_details"] = {
            "accepted_prediction_tokens": num_accepted,
            "rejected_prediction_tokens": num_drafted - num_accepted,
        }
    return counts


def timings(reports: Sequence[Report]) -> dict[str, object]:
    """As llama.cpp has it."""
    first_s = min(report.first_token_s for report in reports)
    total_s = max(report.total_s for report in reports)
    num_written = sum(len(report.tokens) for report in reports)
    num_drafted, num_accepted = _drafts(reports)
    writing_s = max(total_s - first_s, 1e-9)
    return {
        "prompt_n": reports[0].num_prompt_tokens,
        "prompt_ms": round(1000 * first_s, 3),
        "predicted_n": num_written,
        "predicted_ms": round(1000 * writing_s, 3),
        "predicted_per_second": round(num_written / writing_s, 3),
        "draft_n": num_drafted,
        "draft_n_accepted": num_accepted,
    }


def own_facts(reports: Sequence[Report]) -> dict[str, object]:
    """Ours, in one field: where the tokens came from, what left the device, and whose text it is."""
    first = reports[0]
    record = DisclosureRecord(first.disclosure.level)
    for report in reports:
        record.add(report.disclosure)
    return {
        "mode": first.mode.value,
        "seed": first.seed,
        "tokens": {origin.value: sum(report.num_by_origin[origin] for report in reports) for origin in Origin},
        "rounds": sum(report.rounds for report in reports),
        "reconnects": sum(report.reconnects for report in reports),
        "is_alone": any(report.is_alone for report in reports),
        "is_cloud_text": all(report.is_cloud_text for report in reports),
        "ended_early": next((report.ended_early for report in reports if report.ended_early), None),
        "unasked": first.unasked if len({report.unasked for report in reports}) == 1 else None,
        "undrafted": first.undrafted if len({report.undrafted for report in reports}) == 1 else None,
        "bytes": {"up": record.up.total(), "down": record.down.total()},
        "share": first.disclosure.level.value,
        "disclosure": {
            "has_evidence": record.has_evidence,
            "contents": record.contents,
            "up": record.up,
            "down": record.down,
        },
    }


def _drafts(reports: Sequence[Report]) -> tuple[int, int]:
    """Tokens of drafts that were judged, and those that held."""
    return (
        sum(report.num_drafted for report in reports),
        sum(report.num_by_origin[Origin.ACCEPTED] for report in reports),
    )
