"""How much of a row of logits a session needs, for engines to which the whole is dear."""

from __future__ import annotations

from skydraft.core import AcceptanceRule, MinProb, Prompt, Rank, SamplingParams
from skydraft.engines.base import Engine, NarrowEngine, Prefilled


def num_logits_needed(sampling: SamplingParams, rule: AcceptanceRule) -> int | None:
    """How many of the largest logits of each row decide what a session's rule and sampling say; None: all.

    A greedy choice needs the largest, top_k the k largest (top_p is taken of what top_k left), a rank as many as it
    counts; sampling from the whole vocabulary and a rule that asks for probabilities need every logit. More than
    these are needed where logits tie at the edge.
    """
    if isinstance(rule, MinProb):
        return None
    chosen_from = 1 if sampling.is_greedy else sampling.top_k
    if not chosen_from:
        return None
    return max(chosen_from, rule.max_rank) if isinstance(rule, Rank) else chosen_from


def open_slot(engine: Engine, prompt: Prompt, sampling: SamplingParams, rule: AcceptanceRule) -> Prefilled:
    """Open a slot whose rows are judged by these alone.

    Raises:
        CacheOverflow, PromptRejected: from the engine.
        EngineError: the engine cannot tell as many logits as they need.
    """
    if isinstance(engine, NarrowEngine):
        return engine.open_narrow(prompt, num_logits_needed(sampling, rule))
    return engine.open(prompt)
