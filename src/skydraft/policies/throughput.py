"""What each way to write gives in tokens per second: the model of docs/throughput.md."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

LEAST_RUN, MOST_RUN = 0.1, 50.0  # below 1: drafts made a text slower than the model knows of
BLOCK_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)
JUDGED = 1.3  # positions that the cloud judges for a token, where the device is ahead and guesses well
NUM_HALVINGS = 12  # of the range of logarithms in which a run length is sought: to 0.1 %


@dataclass(frozen=True)
class Conditions:
    """What throughput depends on. Times in seconds.

    draft_s: a draft step of the width in use.
    verify_s: a forward pass of the cloud with the nodes that are offered. step_s: with one position, the device idle.
    round_trip_s: of the link.
    run_length: mean number of tokens from one that the device's guesses lack to the next, that one included.
        `fitted_run_length` gives what fits a measurement.
    node_s: what each further node makes a pass longer.
    """

    draft_s: float
    verify_s: float
    step_s: float
    round_trip_s: float
    run_length: float
    node_s: float = 0.0


def cloud_tokens_per_s(conditions: Conditions) -> float:
    """The cloud alone: streaming, so that the link does not matter."""
    return 1.0 / conditions.step_s


def edge_tokens_per_s(step_s: float) -> float:
    """The device alone, with the time of a draft step of one token."""
    return 1.0 / step_s


def stop_and_wait_tokens_per_s(conditions: Conditions, block_length: int) -> float:
    """Draft a block, send it, wait: (expected tokens) / (block + round trip + pass).

    A run ends with probability 1 / run_length at each token.
    """
    hold = 1.0 - 1.0 / conditions.run_length
    expected = sum(hold**depth for depth in range(block_length + 1))
    cycle_s = block_length * conditions.draft_s + conditions.round_trip_s + conditions.verify_s
    return expected / cycle_s


def turns_tokens_per_s(conditions: Conditions) -> float:
    """Device and cloud compute in turns, on one processor: stop and wait, with the best of BLOCK_LENGTHS."""
    hold = 1.0 - 1.0 / max(conditions.run_length, 1.0)
    most = 0.0
    for length in BLOCK_LENGTHS:
        expected = (1.0 - hold ** (length + 1)) / (1.0 - hold)
        cycle_s = length * (conditions.draft_s + conditions.node_s) + conditions.round_trip_s + conditions.step_s
        most = max(most, expected / cycle_s)
    return most


def free_running_tokens_per_s(conditions: Conditions) -> float:
    """The cloud writes on by itself and takes guesses as they come.

    After a token that was not guessed the device starts behind: the cloud has written for a round trip before the
    first new guess arrives, and half a pass more before it is taken in. The device gains on the cloud with the
    difference of their paces, and is ahead after `lag` tokens. Until then a token takes a pass, from then on a draft
    step, or what judging it takes. Runs are geometric, so the share of tokens beyond `lag` is exp(-lag / run_length).
    """
    ahead_s = max(conditions.draft_s, JUDGED * conditions.node_s)
    gain_s = conditions.verify_s - ahead_s
    if gain_s <= 0:
        return 1.0 / conditions.verify_s
    lag = (conditions.round_trip_s + conditions.verify_s / 2) / gain_s
    ahead = math.exp(-lag / conditions.run_length)
    return 1.0 / (conditions.verify_s * (1.0 - ahead) + ahead_s * ahead)


def fitted_run_length(tokens_per_s: float, conditions: Conditions) -> float:
    """The run length with which free running would give the speed that was measured; `conditions` lacks it."""
    ahead_s = max(conditions.draft_s, JUDGED * conditions.node_s)
    gain_s = conditions.verify_s - ahead_s
    ahead = (conditions.verify_s - 1.0 / tokens_per_s) / gain_s if gain_s > 0 else 0.0
    if ahead <= 0:
        return LEAST_RUN
    if ahead >= 1:
        return MOST_RUN
    lag = (conditions.round_trip_s + conditions.verify_s / 2) / gain_s
    return min(max(-lag / math.log(ahead), LEAST_RUN), MOST_RUN)


def fitted_turns_run_length(tokens_per_s: float, conditions: Conditions) -> float:
    """The same of turns. Speeds grow with it, so it is found by halving."""
    least, most = math.log(LEAST_RUN), math.log(MOST_RUN)
    for _ in range(NUM_HALVINGS):
        middle = (least + most) / 2
        if turns_tokens_per_s(replace(conditions, run_length=math.exp(middle))) < tokens_per_s:
            least = middle
        else:
            most = middle
    return math.exp((least + most) / 2)
