"""The target's choice."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import SamplingParams
from skydraft.sampling.arrays import Array, packed, row_blocks
from skydraft.sampling.gumbel_max import Place, greedy_choices, gumbel_argmax
from skydraft.sampling.kernel import kernel_for
from skydraft.sampling.noise import Stream
from skydraft.sampling.warp import check_positions, warp, without_improbable


class ChoiceRequest(NamedTuple):
    """Choices that are wanted for one text: the arguments of `target_choices`."""

    logits: Array  # float [num_rows, vocab_size]
    params: SamplingParams
    positions: Sequence[int]


def choices_together(wanted: Sequence[ChoiceRequest]) -> list[list[int]]:
    """The target's choices for many texts: what `target_choices` gives for each, in a few steps for all.

    Without the kernel, texts with the same vocabulary size, temperature and cuts are chosen for together,
    whatever their seeds: small arrays cost what their number costs and not what their size costs (one core, 64 rows of
    2048 tokens: 49 ms one by one, 7 ms at once; by the kernel 0.7 ms).

    Raises:
        ValueError: as `target_choices`.
        EngineError: a row of one of them has no finite largest logit; which, `target_choices` tells.
    """
    if len(wanted) == 1:
        return [target_choices(*wanted[0])]
    choices: list[list[int]] = [[] for _ in wanted]
    for places in _alike(wanted):
        token_ids = iter(_choose_alike([wanted[place] for place in places]))
        for place in places:
            choices[place] = list(islice(token_ids, len(wanted[place].positions)))
    return choices


def target_choices(logits: Array, params: SamplingParams, positions: Sequence[int]) -> list[int]:
    """The target's choice at each position: a function of the logits, the seed and the position alone.

    Args:
        logits: float [num_rows, vocab_size].
        positions: of each row.
    Returns:
        A token id for each row.
    Raises:
        ValueError: there is not one position for each row, or one is negative.
        EngineError: a row has no finite largest logit.
    """
    check_positions(logits, positions)
    if params.is_greedy:
        return greedy_choices(logits)
    return sampled_choices(logits, params, positions)


def sampled_choices(logits: Array, params: SamplingParams, positions: Sequence[int]) -> list[int]:
    """A token of each row, sampled by Gumbel-max over the warped logits; arguments as `target_choices`.

    The same in numpy and torch, unless top_p ends within a rounding error (1e-15) of a token's edge.
    """
    return _sampled(logits, params, [(params.seed, position) for position in positions])


def _alike(wanted: Sequence[ChoiceRequest]) -> Iterator[list[int]]:
    """Places of those that differ in nothing but seeds and positions, in blocks that bound what is copied at a time."""
    groups: dict[Hashable, list[int]] = {}
    for place, (logits, params, _) in enumerate(wanted):
        cut = None if params.is_greedy else (params.temperature, params.min_p, params.top_k, params.top_p)
        groups.setdefault((logits.shape[-1], cut), []).append(place)
    for places in groups.values():
        yield from packed(places, [wanted[place].logits for place in places])


def _choose_alike(wanted: Sequence[ChoiceRequest]) -> list[int]:
    first = wanted[0]
    if len(wanted) == 1 or (not first.params.is_greedy and kernel_for(first.logits[:0]) is not None):
        return [token_id for each in wanted for token_id in target_choices(*each)]
    for logits, _, positions in wanted:
        check_positions(logits, positions)
    joined = array_namespace(first.logits).concat([each.logits for each in wanted])
    if first.params.is_greedy:
        return greedy_choices(joined)
    places = [(each.params.seed, position) for each in wanted for position in each.positions]
    return _sampled(joined, first.params, places)


def _sampled(logits: Array, params: SamplingParams, places: Sequence[Place]) -> list[int]:
    """`sampled_choices` with the noise of these places, of each row: by the kernel where there is one for them."""
    logits = without_improbable(logits, params)
    compiled = kernel_for(logits)
    if compiled is None:
        return _sampled_by_arrays(logits, params, places)
    kernel, rows = compiled
    choices = kernel.choose(rows, params, places, Stream.TARGET)
    return [
        _sampled_by_arrays(logits[row : row + 1], params, places[row : row + 1])[0] if choice is None else choice
        for row, choice in enumerate(choices)
    ]


def _sampled_by_arrays(logits: Array, params: SamplingParams, places: Sequence[Place]) -> list[int]:
    token_ids: list[int] = []
    for rows in row_blocks(logits):
        token_ids += gumbel_argmax(warp(logits[rows], params), places[rows], Stream.TARGET)
    return token_ids
