"""How far the target follows a draft, and what it says there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import AcceptanceRule, Draft, Exact, LatticeDistribution, MinProb, Rank, Rejection, SamplingParams
from skydraft.errors import RemoteProtocolError
from skydraft.sampling import rejection
from skydraft.sampling.arrays import Array, at_indexes, measure_tokens, take_rows
from skydraft.sampling.choice import Wanted, target_choices
from skydraft.sampling.tree import DraftTree, read_tree
from skydraft.sampling.warp import probabilities


class Judgement(NamedTuple):
    """What the target says to a draft.

    path: indexes of the nodes that hold, root to leaf, the forced ones included.
    token_id: what follows them: a correction, a bonus token, or nothing.
    has_failed: the draft went on after the path and none of it held; token_id is then a correction.
    """

    path: tuple[int, ...]
    token_id: int | None
    has_failed: bool


def judge(draft: Draft, target_logits: Array, params: SamplingParams, rule: AcceptanceRule) -> Judgement:
    """Decide how far the target follows the draft.

    Forced tokens hold; nothing follows a token that ends the text. The log before the draft has not ended, unless by
    its length.

    Args:
        draft: the offer; a tree, or with the rule `rejection` a chain.
        target_logits: float [num_nodes + 1, vocab_size]; row 0 after the verified log, row i + 1 after node i.
    Raises:
        ValueError: the rows do not fit the draft.
        RemoteProtocolError: the draft is malformed, has a token outside the vocabulary, or was drawn from
            distributions that do not fit it.
        EngineError: a row that matters has no finite largest logit.
    Source: `exact`: Daliri et al. 2024, arXiv 2408.07978, section 3. `rejection`: Leviathan et al. 2023,
        arXiv 2211.17192.
    """
    if isinstance(rule, Exact):
        question = ask(draft, target_logits, params)
        return conclude(question, target_choices(*question.wanted))
    case = _Case(draft, read_tree(draft, params), target_logits, params)
    _check_logits(draft, target_logits)
    match rule:
        case Rejection():
            return _judge_by_rejection(case, rule)
        case Rank():
            return _judge_without_bonus(case, _nodes_of_rank(case, rule.max_rank))
        case MinProb():
            return _judge_without_bonus(case, _nodes_of_prob(case, rule.min_prob))


class Question(NamedTuple):
    """What the rule `exact` wants to know of the target.

    rows: of the draft, ascending: the choices after these.
    """

    draft: Draft
    tree: DraftTree
    rows: Sequence[int]
    wanted: Wanted


def ask(draft: Draft, target_logits: Array, params: SamplingParams) -> Question:
    """The first half of `judge` with the rule `exact`: the choices may be made for many drafts together.

    Arguments and errors as `judge`, but that no number is looked at.
    """
    tree = read_tree(draft, params)
    _check_logits(draft, target_logits)
    rows = tree.reachable_rows()
    positions = [tree.positions[row] for row in rows]
    return Question(draft, tree, rows, Wanted(take_rows(target_logits, rows), params, positions))


def conclude(question: Question, choices: Sequence[int]) -> Judgement:
    """The other half.

    Args:
        choices: the target's, one for each of question.wanted.
    """
    tree, token_ids = question.tree, question.draft.token_ids
    after = dict(zip(question.rows, choices, strict=True))
    path, row = tree.walk(lambda node: token_ids[node] == after[tree.parents[node]])
    if row is None:
        return Judgement(path, None, False)
    return Judgement(path, after[row], bool(tree.children[row]))


class _Case(NamedTuple):
    """What is judged."""

    draft: Draft
    tree: DraftTree
    logits: Array  # [num_nodes + 1, vocab_size]
    params: SamplingParams

    def measured(self, measure: Callable[[Array, Array], Array]) -> dict[int, float]:
        """A number for each node that a walk can come to, from the rows that judge them and their token ids."""
        nodes = self.tree.judged_nodes()
        rows = [self.tree.parents[node] for node in nodes]
        values = measure_tokens(measure, self.logits, rows, [self.draft.token_ids[node] for node in nodes])
        return dict(zip(nodes, values, strict=True))

    def choice(self, row: int) -> int:
        """The target's choice after a row."""
        return target_choices(self.logits[row : row + 1], self.params, [self.tree.positions[row]])[0]


def _judge_by_rejection(case: _Case, rule: Rejection) -> Judgement:
    distributions = rejection.checked_distributions(case.draft, rule, case.logits.shape[-1])
    path, row = case.tree.walk(_nodes_by_rejection(case, distributions).__contains__)
    if row is None:
        return Judgement(path, None, False)
    if not case.tree.children[row]:
        return Judgement(path, case.choice(row), False)
    failed = distributions[row - case.draft.num_forced]  # in a chain, row r judges node r
    position = case.tree.positions[row]
    return Judgement(path, rejection.residual_choice(case.logits[row], failed, case.params, position), True)


def _judge_without_bonus(case: _Case, holding: set[int]) -> Judgement:
    path, row = case.tree.walk(holding.__contains__)
    if row is None or not case.tree.children[row]:
        return Judgement(path, None, False)
    return Judgement(path, case.choice(row), True)


def _nodes_by_rejection(case: _Case, distributions: tuple[LatticeDistribution, ...]) -> set[int]:
    tree, draft = case.tree, case.draft
    target_probs = case.measured(lambda logits, ids: rejection.target_probs(logits, ids, case.params))
    positions = [tree.positions[tree.parents[node]] for node in target_probs]
    uniforms = rejection.acceptance_uniforms(case.params.seed, positions)
    holding = set()
    for (node, target_prob), u in zip(target_probs.items(), uniforms, strict=True):
        draft_prob = rejection.draft_prob(distributions[node - draft.num_forced], draft.token_ids[node])
        if rejection.accepts(u, target_prob, draft_prob):
            holding.add(node)
    return holding


def _nodes_of_rank(case: _Case, max_rank: int) -> set[int]:
    """Nodes whose token has fewer than max_rank others before it under the target, before warping."""
    too_many = min(max_rank, case.logits.shape[-1])  # logits of nan put the whole vocabulary before every token
    return {node for node, num_before in case.measured(_num_before).items() if num_before < too_many}


def _nodes_of_prob(case: _Case, min_prob: float) -> set[int]:
    """Nodes whose token the target gives at least min_prob, before warping."""
    return {node for node, prob in case.measured(_own_prob).items() if prob >= min_prob}


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
