"""How far the target follows a draft, and what it says there: one function for each acceptance rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from skydraft.core import AcceptanceRule, Draft, Exact, MinProb, Rank, Rejection, SamplingParams
from skydraft.errors import RemoteProtocolError
from skydraft.sampling import rejection
from skydraft.sampling.arrays import Array, at_indexes, measure_tokens, take_rows
from skydraft.sampling.choice import ChoiceRequest, target_choices
from skydraft.sampling.draft_tree import DraftTree
from skydraft.sampling.warp import probabilities


class Judgement(NamedTuple):
    """What the target says to a draft.

    path: indexes of the accepted nodes, root to leaf, the forced ones included.
    token_id: what follows them: a correction, a bonus token, or None.
    """

    path: tuple[int, ...]
    token_id: int | None


def judge(draft: Draft, target_logits: Array, params: SamplingParams, rule: AcceptanceRule) -> Judgement:
    """Decide how far the target follows the draft.

    Forced tokens are accepted; nothing follows a token that ends the text. The log before the draft has not ended,
    unless by its length.

    Args:
        draft: where the rule draws drafts, a chain.
        target_logits: float [num_nodes + 1, vocab_size]; row 0 after the verified log, row i + 1 after node i.
    Raises:
        ValueError: the rows do not fit the draft.
        RemoteProtocolError: the draft has a token outside the vocabulary, or was drawn from distributions that do not
            fit it.
        EngineError: a row that matters has no finite largest logit.
    Source: `exact`: Daliri et al. 2024, arXiv 2408.07978, section 3. `rejection`: Leviathan et al. 2023,
        arXiv 2211.17192.
    """
    _check_logits(draft, target_logits)
    return _JUDGES[type(rule)](_Case(DraftTree.read(draft, params), target_logits, params), rule)


def choice_request(tree: DraftTree, target_logits: Array, params: SamplingParams) -> ChoiceRequest:
    """The choices that decide a draft under `exact`: they may be made for many drafts together.

    Args:
        tree: of the draft.
    Arguments and errors otherwise as `judge`, but that no number is looked at.
    """
    _check_logits(tree.draft, target_logits)
    rows = tree.reachable_rows
    return ChoiceRequest(take_rows(target_logits, rows), params, [tree.position(row) for row in rows])


def judge_by_choices(tree: DraftTree, choices: Sequence[int]) -> Judgement:
    """Follow the target's choices for as long as the draft contains them, then emit the next.

    Args:
        choices: the target's, one for each position of the request.
    """
    draft = tree.draft
    choice_after = dict(zip(tree.reachable_rows, choices, strict=True))
    path, row = tree.walk(lambda node: draft.token_ids[node] == choice_after[draft.shape.parents[node]])
    return Judgement(path, None if row is None else choice_after[row])


class _Case(NamedTuple):
    """What is judged. logits: float [num_nodes + 1, vocab_size]."""

    tree: DraftTree
    logits: Array
    params: SamplingParams

    @property
    def draft(self) -> Draft:
        return self.tree.draft

    def measured(self, measure: Callable[[Array, Array], Array]) -> dict[int, float]:
        """A number for each node that a walk can come to, from the rows that judge them and their token ids."""
        nodes = self.tree.judged_nodes()
        rows = [self.draft.shape.parents[node] for node in nodes]
        values = measure_tokens(measure, self.logits, rows, [self.draft.token_ids[node] for node in nodes])
        return dict(zip(nodes, values, strict=True))

    def choice(self, row: int) -> int:
        """The target's choice after a row."""
        return target_choices(self.logits[row : row + 1], self.params, [self.tree.position(row)])[0]


def _judge_exactly(case: _Case, rule: Exact) -> Judgement:
    """For callers without a batch: a session's choices are made with those of others (`judge_by_choices`)."""
    request = choice_request(case.tree, case.logits, case.params)
    return judge_by_choices(case.tree, target_choices(*request))


def _judge_by_rejection(case: _Case, rule: Rejection) -> Judgement:
    draft, tree = case.draft, case.tree
    distributions = rejection.checked_distributions(draft, rule, case.logits.shape[-1])
    target_probs = case.measured(lambda logits, ids: rejection.target_probs(logits, ids, case.params))
    positions = [tree.position(draft.shape.parents[node]) for node in target_probs]
    uniforms = rejection.acceptance_uniforms(case.params.seed, positions)
    accepted = set()
    for (node, target_prob), u in zip(target_probs.items(), uniforms, strict=True):
        draft_prob = rejection.draft_prob(distributions[node - draft.num_forced], draft.token_ids[node])
        if rejection.accepts(u, target_prob, draft_prob):
            accepted.add(node)
    path, row = tree.walk(accepted.__contains__)
    if row is None:
        return Judgement(path, None)
    if not draft.shape.children[row]:
        return Judgement(path, case.choice(row))
    failed = distributions[row - draft.num_forced]  # in a chain, row r judges node r
    return Judgement(path, rejection.residual_choice(case.logits[row], failed, case.params, tree.position(row)))


def _judge_by_rank(case: _Case, rule: Rank) -> Judgement:
    """A token whose rank, before warping, is at most max_rank has fewer others before it."""
    too_many = min(rule.max_rank, case.logits.shape[-1])  # logits of nan put the whole vocabulary before every token
    return _without_bonus(case, {node for node, number in case.measured(_num_before).items() if number < too_many})


def _judge_by_prob(case: _Case, rule: MinProb) -> Judgement:
    """Probabilities are those before warping."""
    return _without_bonus(case, {node for node, prob in case.measured(_own_prob).items() if prob >= rule.min_prob})


_JUDGES: dict[type[AcceptanceRule], Callable[[_Case, Any], Judgement]] = {
    Exact: _judge_exactly,
    Rejection: _judge_by_rejection,
    Rank: _judge_by_rank,
    MinProb: _judge_by_prob,
}


def _without_bonus(case: _Case, accepted: set[int]) -> Judgement:
    """Follow the accepted nodes; the target's choice corrects the first that is not."""
    path, row = case.tree.walk(accepted.__contains__)
    has_failed = row is not None and bool(case.draft.shape.children[row])
    return Judgement(path, case.choice(row) if has_failed and row is not None else None)


def _num_before(logits: Array, token_ids: Array) -> Array:
    """How many tokens are more probable than each row's own: int64 [num_rows].

    What is not at most the own logit counts, a nan too.
    """
    own = at_indexes(logits, token_ids)[:, None]
    return array_namespace(logits).count_nonzero(~(logits <= own), axis=-1)


def _own_prob(logits: Array, token_ids: Array) -> Array:
    return at_indexes(probabilities(logits), token_ids)


def _check_logits(draft: Draft, target_logits: Array) -> None:
    num_nodes = len(draft.token_ids)
    if len(target_logits.shape) != 2 or target_logits.shape[0] != num_nodes + 1:
        raise ValueError(
            f"the target's logits have shape {list(target_logits.shape)} for a draft of {num_nodes} tokens; it must be "
            f"[{num_nodes + 1}, vocab_size]"
        )
    vocab_size = target_logits.shape[1]
    for token_id in (min(draft.token_ids, default=0), max(draft.token_ids, default=0)):
        if not 0 <= token_id < vocab_size:
            raise RemoteProtocolError(f"token {token_id} of the draft is not in the vocabulary, 0 to {vocab_size - 1}")
