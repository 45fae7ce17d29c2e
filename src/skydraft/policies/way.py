"""The ways to draft, as numbers: what each of the field's ways is in them, and how one is written and read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from skydraft.core import read_int
from skydraft.errors import ConfigError

WAYS = "auto, wait:N, pipelined:N, prepared:N, tree, free, cloud"
MAX_BLOCK = 64


@dataclass(frozen=True)
class Way:
    """How to draft. Stop-and-wait, pipelined, prepared, tree and free-running drafts differ in these numbers only.

    width: nodes that one draft step reads at most; 1 drafts a chain, 0 nothing.
    num_guesses: at each node.
    least_prob: guesses that are less probable are not read: what would follow them is not worth the time.
    least_offer_prob: guesses that are less probable are not offered.
    least_gain: an offer leaves once its new nodes are expected to hold this many tokens.
    block_length: an offer leaves when it is a chain of this many tokens; 0: when the gain is enough.
    is_patient: an offer leaves when one more draft step would gain less than the same time gains on average.
    max_in_flight: offers without an answer.
    is_eager: drafts on while an answer is awaited.
    has_credit: the cloud writes on by itself.
    """

    width: int = 8
    num_guesses: int = 6
    least_prob: float = 0.01
    least_offer_prob: float = 0.01
    least_gain: float = 0.02
    block_length: int = 0
    is_patient: bool = False
    max_in_flight: int = 64
    is_eager: bool = True
    has_credit: bool = True


CLOUD = Way(width=0)
FREE = Way()
# One guess for a place, and only of tokens that are most likely in the text anyway: no alternatives leave the device.
SURE_PROB = 0.9
SURE = Way(width=1, least_prob=SURE_PROB, least_offer_prob=SURE_PROB, least_gain=2 * SURE_PROB)
# While the cloud computes the device does not, and the other way round: for a processor that both share.
TURNS = Way(least_prob=0.1, least_offer_prob=0.05, is_patient=True, max_in_flight=1, is_eager=False, has_credit=False)
TREE = Way(is_patient=True, max_in_flight=1, has_credit=False)


def chain(block_length: int, max_in_flight: int = 1, is_eager: bool = False) -> Way:
    """Chains of a fixed length: stop-and-wait, pipelined (several in flight), or prepared (eager, one in flight)."""
    return Way(
        width=1,
        num_guesses=1,
        least_prob=1e-9,
        least_offer_prob=1e-9,
        least_gain=0.0,
        block_length=block_length,
        max_in_flight=max_in_flight,
        is_eager=is_eager,
        has_credit=False,
    )


def parse_way(text: str) -> Way | None:
    """Read a way to draft; None for `auto`, which is to be chosen by measurement.

    Raises:
        ConfigError: it is none.
    """
    name, _, argument = text.partition(":")
    with suppress(ValueError):
        if 1 <= (length := read_int(argument)) <= MAX_BLOCK:
            match name:
                case "wait":
                    return chain(length)
                case "pipelined":
                    return chain(length, max_in_flight=4, is_eager=True)
                case "prepared":
                    return chain(length, is_eager=True)
    named = {"auto": None, "tree": TREE, "free": FREE, "cloud": CLOUD}
    if text not in named:
        raise ConfigError(f"unknown way to draft {text!r}; expected one of {WAYS} (N is 1 to {MAX_BLOCK})")
    return named[text]
