"""What a cloud makes of an `Open`: the session that is asked for, or a fault that says why there can be none."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from skydraft.core import Prompt, SamplingParams, parse_rule
from skydraft.decoding.cloud_session import CloudSession, SessionTerms
from skydraft.decoding.text_end import TextEnd
from skydraft.errors import CacheOverflow, CloudFault, ConfigError, PromptRejected
from skydraft.protocol import messages, segments
from skydraft.protocol.messages import FaultCode
from skydraft.text.token_reader import TokenReader
from skydraft.text.vocabulary import Vocabulary


def require_shared_vocabulary(theirs: messages.VocabularyMark, ours: Vocabulary) -> None:
    """Compare the device's vocabulary with the target's; a device whose own is larger compares by itself.

    Raises:
        CloudFault: the models do not mean the same by their ids.
    """
    if theirs.num_tokens <= ours.num_tokens and ours.digest(theirs.num_tokens) != theirs.digest:
        raise CloudFault(
            FaultCode.VOCABULARY, f"the draft model and the target model {ours.name} do not share a vocabulary"
        )


def new_session(
    message: messages.Open,
    mark: messages.VocabularyMark,
    limits: messages.Limits,
    measure: Callable[[Prompt], int],
    gap_change: float | None,
    reader: TokenReader | None,
) -> tuple[CloudSession, int]:
    """The session that a device asks for, and how many tokens its prompt takes in a slot.

    Args:
        mark: of the target's vocabulary.
        limits: of the cloud; max_tokens is what a slot has room for, and the session's text ends where it is full.
        measure: tokens of a prompt; raises CacheOverflow, PromptRejected.
        gap_change: as CloudSession.
        reader: of the target's ids; None: nobody here can read them.
    Raises:
        CloudFault: the target cannot take the prompt, it leaves no room for a text, or the text cannot be written as it
            is asked to.
    """
    num_edge_ids = message.vocabulary.num_tokens
    terms = SessionTerms(
        prompt=segments.from_wire(message.segments, num_edge_ids),
        sampling=message.sampling,
        rule=parse_rule(message.rule),
        num_edge_ids=num_edge_ids,
        num_shared_ids=min(num_edge_ids, mark.num_tokens),
    )
    try:
        num_prompt = measure(terms.prompt)
    except PromptRejected as error:
        raise CloudFault(FaultCode.PROMPT, str(error)) from error
    except CacheOverflow as error:
        raise CloudFault(FaultCode.LIMIT, str(error)) from error
    room = limits.max_tokens - num_prompt
    if room < 1:
        raise CloudFault(
            FaultCode.LIMIT,
            f"the prompt has {num_prompt} tokens and a slot of this cloud has room for {limits.max_tokens}, "
            "the text included: shorten the prompt",
        )
    end = _text_end(terms.sampling, reader)
    return CloudSession(terms, replace(limits, max_tokens=room), message.session, gap_change, end), num_prompt


def _text_end(sampling: SamplingParams, reader: TokenReader | None) -> TextEnd | None:
    if not sampling.stop and sampling.grammar is None:
        return None
    if reader is None:
        raise CloudFault(
            FaultCode.SAMPLING,
            "this cloud cannot read its model's tokens as text: leave stop strings and the grammar out",
        )
    try:
        matcher = reader.matcher(sampling)
    except ConfigError as error:
        raise CloudFault(FaultCode.SAMPLING, str(error)) from error
    return TextEnd(reader.until_stop(sampling) if sampling.stop else None, matcher)
