"""Results for a person: colours by origin, one-line summaries."""

from __future__ import annotations

from rich.text import Text

from skydraft.cli.results import Result
from skydraft.cli.terminal_text import counted, seconds
from skydraft.core import Finish, Origin
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.report import Unasked
from skydraft.policies.undrafted import Undrafted
from skydraft.tasks.recording_summary import in_words, main_confidence, main_emotion

# Of medium lightness: contrast 3.8 or more on black and on white. A correction is visible without colours too.
STYLES = {
    Origin.EDGE: "color(64)",
    Origin.ACCEPTED: "color(31)",
    Origin.CORRECTED: "bold underline color(166)",
    Origin.CLOUD: "color(133)",
}
MEANINGS = {
    Origin.EDGE: "device alone",
    Origin.ACCEPTED: "drafted, accepted",
    Origin.CORRECTED: "corrected",
    Origin.CLOUD: "cloud's own",
}
UNASKED = {
    Unasked.DEAF: "the cloud was not asked, for it could not hear: --share features lets it",
    Unasked.SURE: "the cloud was not asked, for the device was sure",
    Unasked.STRANGE: "the cloud was not asked, for the voice is unlike those that the device knows: --evidence always "
    "lets the cloud say what it makes of it",
}
UNDRAFTED = {
    Undrafted.SLOW_DRAFT: "drafting would not have helped, for the cloud writes a token before the device drafts one",
    Undrafted.FAR: "drafting would not have helped, for guesses would come too late over this link",
    Undrafted.WRONG: "drafting would not have helped, for too few guesses are right",
    Undrafted.NO_GAIN: "drafting would not have helped",
}


def legend() -> Text:
    """The legend of the colours."""
    return Text("   ").join(Text.assemble(("■", _colour(origin)), " ", _meaning(origin)) for origin in STYLES)


def summary(result: Result) -> str:
    """Summarise a run in one line."""
    counts = result.num_by_origin
    origins = ", ".join(f"{counts[origin]:,} {origin.value}" for origin in Origin if counts[origin])
    parts = [
        counted(result.num_tokens, "token") + (f" ({origins})" if origins else ""),
        f"first after {seconds(result.first_token_s)}, all in {seconds(result.total_s)}{_pace(result)}",
    ]
    if result.up:
        bytes_moved = f"{result.up.total():,} bytes up, {result.down.total():,} down"
        parts.append(f"{counted(result.rounds, 'round')}, {bytes_moved}")
    if result.undrafted is not None:
        parts.append(UNDRAFTED[result.undrafted])
    if result.num_offered:
        share = result.num_accepted / result.num_offered
        parts.append(
            f"{result.num_accepted:,} of {counted(result.num_offered, 'offered token')} accepted ({100 * share:.0f} %)"
        )
    if result.up and (fidelity := _fidelity(result)):
        parts.append(fidelity)
    if (confidence := main_confidence(result.cues)) is not None:
        parts.append(f"{main_emotion(result.cues)}, {in_words(confidence)}")
    if result.unasked is not None:
        parts.append(UNASKED[result.unasked])
    if result.seed is not None:
        parts.append(f"seed {result.seed}")
    if result.ended_early:
        parts.append("ended early")
    if result.reconnects:
        parts.append(counted(result.reconnects, "reconnect"))
    return "; ".join(parts)


def turn_summary(result: Result, max_tokens: int) -> str:
    """Summarise an answer of a chat: its pace, who wrote how much of it, and how much left the device.

    Args:
        max_tokens: that it might have.
    """
    counts, total = result.num_by_origin, result.num_tokens or 1
    whose = {
        "by the cloud": counts[Origin.CORRECTED] + counts[Origin.CLOUD],
        "drafted here": counts[Origin.ACCEPTED],
        "by this device alone": counts[Origin.EDGE],
    }
    shares = ", ".join(f"{100 * count / total:.0f} % {who}" for who, count in whose.items() if count)
    left = f"{result.up.total():,} bytes left" if result.up else "nothing left this device"
    cut = f"ended at --max-tokens {max_tokens}" if result.finish is Finish.LENGTH and not result.ended_early else ""
    return "; ".join(filter(None, (_pace(result).strip(" ()"), shares, left, cut)))


def sent_so_far(record: DisclosureRecord) -> str:
    """Say what has left the device for all texts."""
    if not record.up:
        return "Nothing has left this device."
    kinds = ", ".join(f"{count:,} of {kind}" for kind, count in record.contents.items())
    return f"{record.up.total():,} bytes have left this device, in messages: {kinds}."


def _pace(result: Result) -> str:
    """Over the whole time, that to the first token included."""
    if not result.num_tokens or not result.total_s:
        return ""
    pace = result.num_tokens / result.total_s
    return f" ({pace:,.0f} tokens/s)" if pace >= 10 else f" ({pace:.1f} tokens/s)"


def _fidelity(result: Result) -> str:
    """Whether the text is the cloud's own, and else how many of its tokens may not be, where that was counted."""
    if result.is_cloud_text:
        return "the cloud's own text"
    return "" if result.num_near_ties is None else counted(result.num_near_ties, "near tie")


def disclosure(result: Result) -> str:
    """Say what left the device, in one or two sentences."""
    if not result.up:
        return "Nothing left the device."
    num_bytes = f"{result.up.total():,} bytes"
    if result.shared_evidence:
        kinds = (kind.removeprefix("evidence").strip(": ") for kind in result.shared_evidence)
        of_windows = f"the evidence of {result.num_told} of {len(result.cues)} windows"
        evidence = of_windows if len(result.cues) > 1 else "; ".join(kinds)
        return f"Left the device: {evidence}, from which speech can be reconstructed; in all {num_bytes}."
    num_drafts = sum(count for kind, count in result.contents.items() if kind.startswith("drafts"))
    sent = "the instruction" + (f" and the words of {counted(num_drafts, 'draft')}" if num_drafts else "")
    return f"Left the device: {sent}, {num_bytes}. The sound and its features stayed."


def _meaning(origin: Origin) -> Text:
    return Text(MEANINGS[origin], STYLES[origin])


def _colour(origin: Origin) -> str:
    return STYLES[origin].rpartition(" ")[2]
