"""The acceptance rules: when the target model accepts a drafted token.

Everything outside this file and `sampling/acceptance`, which judges by them, asks a rule for its properties only. A new
rule is a struct here, an entry in RULES and a function there.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import msgspec

from skydraft.core.numbers import read_float, read_int
from skydraft.core.text import SamplingParams
from skydraft.errors import ConfigError, require

MAX_RANK = 2**24  # the largest vocabulary


class Lattice(NamedTuple):
    """What draft distributions are rounded to.

    top_k: how many tokens a distribution has at most.
    denominator: probabilities are multiples of 1 / denominator.
    """

    top_k: int
    denominator: int


def logits_of_a_choice(sampling: SamplingParams) -> int | None:
    """How many of the largest logits of a row the target's choice, and what is told of it, depend on; None: all.

    A greedy choice needs the largest, top_k the k largest (top_p is taken of what top_k left); sampling from the whole
    vocabulary needs every logit.
    """
    return 1 if sampling.is_greedy else sampling.top_k or None


class AcceptanceRule(msgspec.Struct, frozen=True):
    """When a drafted token is accepted.

    name, form: as `parse_rule` reads it.
    promises_cloud_text: the text, or its distribution, is the cloud's own, so the cloud judges every token.
    promises_cloud_tokens: each token is the cloud's choice, so the text is the cloud's own, token for token, and
        choices alone judge a draft: they are made for many sessions together.
    merges_offers: an offer is a set of guesses, so that several may be judged as one and any of them may be left out.
    judges_shaped: it judges by the logits that choices are made from, bias, penalties and grammar included.
    draft_lattice: what drafted tokens are drawn from; None where the device offers its best guess.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    promises_cloud_text: ClassVar[bool] = False
    promises_cloud_tokens: ClassVar[bool] = False
    merges_offers: ClassVar[bool] = False
    judges_shaped: ClassVar[bool] = False

    @property
    def draft_lattice(self) -> Lattice | None:
        return None

    def num_logits(self, sampling: SamplingParams) -> int | None:
        """How many of the largest logits of a row decide, the target's choice included; None: all.

        The others may be -inf. More than these are needed where logits tie at the edge.
        """
        raise NotImplementedError

    def check_sampling(self, sampling: SamplingParams) -> None:
        """Refuse what the rule would let drafts get round: a token may be likely and penalised.

        Raises:
            ConfigError: naming both.
        """
        if sampling.shapes_logits and not self.judges_shaped:
            raise ConfigError(
                f"the rule {self} accepts what the model finds likely, whatever logit_bias, penalties and a grammar "
                "say: use the rule exact, or leave them out"
            )

    @classmethod
    def parse(cls, argument: str) -> AcceptanceRule:
        """Read what stands behind the name and its colon; empty where nothing does.

        Raises:
            ValueError: it is not of the form.
        """
        raise NotImplementedError


class Exact(AcceptanceRule, frozen=True):
    """A token is accepted when it is the target's choice: the text is the cloud's own."""

    name: ClassVar[str] = "exact"
    form: ClassVar[str] = "exact"
    promises_cloud_text: ClassVar[bool] = True
    promises_cloud_tokens: ClassVar[bool] = True
    merges_offers: ClassVar[bool] = True
    judges_shaped: ClassVar[bool] = True

    def num_logits(self, sampling: SamplingParams) -> int | None:
        return logits_of_a_choice(sampling)

    @classmethod
    def parse(cls, argument: str) -> Exact:
        if argument:
            raise ValueError(argument)
        return cls()

    def __str__(self) -> str:
        return "exact"


class Rejection(AcceptanceRule, frozen=True):
    """A token is accepted when u < target_prob / draft_prob: the text has the target's distribution.

    top_k: how many tokens the draft distribution is cut to.
    lattice: draft probabilities are multiples of 1 / lattice.
    Source: Leviathan et al. 2023, arXiv 2211.17192.
    """

    name: ClassVar[str] = "rejection"
    form: ClassVar[str] = "rejection:K,L"
    promises_cloud_text: ClassVar[bool] = True
    judges_shaped: ClassVar[bool] = True

    top_k: int = 8
    lattice: int = 64

    def __post_init__(self) -> None:
        require(1 <= self.top_k <= 256, "rejection:K", self.top_k, "1 to 256")
        require(1 <= self.lattice <= 65536, "rejection:K,L", self.lattice, "1 to 65536")

    @property
    def draft_lattice(self) -> Lattice:
        return Lattice(self.top_k, self.lattice)

    def num_logits(self, sampling: SamplingParams) -> int | None:
        return logits_of_a_choice(sampling)

    @classmethod
    def parse(cls, argument: str) -> Rejection:
        if not argument:
            return cls()
        top_k, lattice = argument.split(",")
        return cls(read_int(top_k), read_int(lattice))

    def __str__(self) -> str:
        return f"rejection:{self.top_k},{self.lattice}"


class Rank(AcceptanceRule, frozen=True):
    """A token is accepted when its rank under the target is at most max_rank (1 is the most probable)."""

    name: ClassVar[str] = "rank"
    form: ClassVar[str] = "rank:R"

    max_rank: int = 20

    def __post_init__(self) -> None:
        require(1 <= self.max_rank <= MAX_RANK, "rank:R", self.max_rank, f"1 to {MAX_RANK}")

    def num_logits(self, sampling: SamplingParams) -> int | None:
        chosen_from = logits_of_a_choice(sampling)
        return None if chosen_from is None else max(chosen_from, self.max_rank)

    @classmethod
    def parse(cls, argument: str) -> Rank:
        return cls(read_int(argument)) if argument else cls()

    def __str__(self) -> str:
        return f"rank:{self.max_rank}"


class MinProb(AcceptanceRule, frozen=True):
    """A token is accepted when the target gives it at least min_prob."""

    name: ClassVar[str] = "prob"
    form: ClassVar[str] = "prob:X"

    min_prob: float

    def __post_init__(self) -> None:
        require(0 < self.min_prob <= 1, "prob:X", self.min_prob, "above 0 and at most 1")

    def num_logits(self, sampling: SamplingParams) -> int | None:
        return None

    @classmethod
    def parse(cls, argument: str) -> MinProb:
        return cls(read_float(argument))

    def __str__(self) -> str:
        return f"prob:{self.min_prob!r}"


RULES: tuple[type[AcceptanceRule], ...] = (Exact, Rejection, Rank, MinProb)


def parse_rule(text: str) -> AcceptanceRule:
    """Read `exact`, `rejection`, `rejection:K,L`, `rank`, `rank:R` or `prob:X`.

    Raises:
        ConfigError: it is another text, or a number is out of range.
    """
    name, colon, argument = text.partition(":")
    for rule in RULES:
        if rule.name == name and bool(colon) == bool(argument):
            try:
                return rule.parse(argument)
            except ValueError:
                break
    forms = ", ".join(rule.form for rule in RULES)
    raise ConfigError(f"unknown acceptance rule {text!r}; expected one of {forms}")
