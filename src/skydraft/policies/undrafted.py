"""Why a planner leaves the cloud to write alone, for the user."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import replace

from skydraft.policies.throughput import MOST_RUN, Conditions, cloud_tokens_per_s


class Undrafted(enum.StrEnum):
    """Why drafts would not have made a text faster: the first of these that explains it."""

    SLOW_DRAFT = "slow_draft"  # a draft step takes as long as a pass of the cloud, or longer
    FAR = "far"  # without the round trip they would
    WRONG = "wrong"  # they would if nearly all guesses were right
    NO_GAIN = "no_gain"  # they would not in any case


def why_undrafted(
    tokens_per_s: Callable[[Conditions], float], conditions: Conditions, least_gain: float
) -> Undrafted | None:
    """Why drafts do not pay; None: they do.

    Args:
        tokens_per_s: with drafts, by the model of docs/throughput.md.
        least_gain: how much faster than the cloud alone they have to make a text.
    """

    def pays(conditions: Conditions) -> bool:
        return tokens_per_s(conditions) >= least_gain * cloud_tokens_per_s(conditions)

    if pays(conditions):
        return None
    if conditions.draft_s >= conditions.step_s:
        return Undrafted.SLOW_DRAFT
    if pays(replace(conditions, round_trip_s=0.0)):
        return Undrafted.FAR
    return Undrafted.WRONG if pays(replace(conditions, run_length=MOST_RUN)) else Undrafted.NO_GAIN
