"""Token ids, trees and draft distributions as few bytes.

Nothing here says how long it is: counts follow from lengths, because every item takes at least 8 bits and padding
fewer. Packing raises LocalProtocolError on values that do not fit; unpacking raises RemoteProtocolError on bytes that
packing would not have made.
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from skydraft.core import LatticeDistribution, Rejection
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol.limits import LOG_DIGEST_BYTES, MAX_PROBS_BYTES, MAX_VOCABULARY
from skydraft.protocol.subsets import rank_subset, unrank_subset

MIN_ID_BITS = 8  # so that fewer than 8 bits of padding can never be one more id
GROUP = 8  # 8 ids of b bits fill b bytes: long lists are packed in groups, in linear time


def id_bits(num_tokens: int) -> int:
    """Count the bits that an id of a vocabulary takes on the wire: 8 to 24."""
    if not 1 <= num_tokens <= MAX_VOCABULARY:
        raise LocalProtocolError(f"a vocabulary of {num_tokens} tokens cannot be packed: 1 to {MAX_VOCABULARY} can")
    return max(MIN_ID_BITS, (num_tokens - 1).bit_length())


def pack_ids(token_ids: Sequence[int], id_bits: int) -> bytes:
    """Write ids most significant bit first, `id_bits` bits each, and fill the last byte with zeros.

    Raises:
        LocalProtocolError: an id does not fit.
    """
    if len(token_ids) <= GROUP:
        return _pack_group(token_ids, id_bits)
    groups = (token_ids[start : start + GROUP] for start in range(0, len(token_ids), GROUP))
    return b"".join(_pack_group(group, id_bits) for group in groups)


def _pack_group(token_ids: Sequence[int], id_bits: int) -> bytes:
    value = any_bit = 0
    for token_id in token_ids:
        value = value << id_bits | token_id
        any_bit |= token_id
    if any_bit >> id_bits:  # also where one is negative
        raise LocalProtocolError(f"one of the token ids {list(token_ids)} does not fit in {id_bits} bits")
    num_bits = len(token_ids) * id_bits
    return (value << -num_bits % 8).to_bytes((num_bits + 7) // 8, "big")


def unpack_ids(data: bytes, id_bits: int, num_ids_below: int) -> tuple[int, ...]:
    """Read what `pack_ids` wrote.

    Args:
        num_ids_below: the vocabulary's number of tokens.
    Raises:
        RemoteProtocolError: no number of ids has this length, the padding is not zero, or an id is not in the
            vocabulary.
    """
    if len(data) <= id_bits:
        token_ids = _unpack_group(data, id_bits)
    else:
        num_packed_ids(len(data), id_bits)
        groups = (data[start : start + id_bits] for start in range(0, len(data), id_bits))
        token_ids = [token_id for group in groups for token_id in _unpack_group(group, id_bits)]
    if token_ids and max(token_ids) >= num_ids_below:
        raise RemoteProtocolError(f"token id {max(token_ids)} came and the vocabulary has {num_ids_below} tokens")
    return tuple(token_ids)


def _unpack_group(data: bytes, id_bits: int) -> list[int]:
    padding_mask, id_mask, shifts = _group_layout(len(data), id_bits)
    value = int.from_bytes(data, "big")
    if value & padding_mask:
        raise RemoteProtocolError(f"the bits after {len(shifts)} packed ids are not zero")
    return [value >> shift & id_mask for shift in shifts]


@lru_cache(maxsize=1024)
def _group_layout(num_bytes: int, id_bits: int) -> tuple[int, int, tuple[int, ...]]:
    """Where the ids of a group are: masks of the padding and of an id, and how far each id is shifted."""
    num_ids = num_packed_ids(num_bytes, id_bits)
    num_padding_bits = 8 * num_bytes - num_ids * id_bits
    shifts = range(num_padding_bits + (num_ids - 1) * id_bits, -1, -id_bits) if num_ids else ()
    return (1 << num_padding_bits) - 1, (1 << id_bits) - 1, tuple(shifts)


def num_packed_ids(num_bytes: int, id_bits: int) -> int:
    """Count the ids in this many bytes without looking at them.

    Raises:
        RemoteProtocolError: no number of ids takes so many bytes.
    """
    num_ids = 8 * num_bytes // id_bits
    if _num_bytes(num_ids * id_bits) != num_bytes:
        raise RemoteProtocolError(f"{num_bytes} bytes came and no number of ids of {id_bits} bits takes so many")
    return num_ids


def _num_bytes(num_bits: int) -> int:
    return (num_bits + 7) // 8


def log_digest(token_ids: Sequence[int]) -> bytes:
    """Sum up a log: 8 bytes of BLAKE2b over its ids as 4-byte big-endian numbers."""
    data = struct.pack(f">{len(token_ids)}I", *token_ids)
    return hashlib.blake2b(data, digest_size=LOG_DIGEST_BYTES).digest()


def pack_parents(parents: Sequence[int]) -> bytes:
    """Write a tree as one number below n!, for node i has i + 1 possible parents (0 is the root, j + 1 node j).

    At least one byte, so that a tree of one node differs from no tree.

    Raises:
        LocalProtocolError: a node stands before its parent.
    """
    value = 0
    for node, parent in enumerate(parents):
        if not 0 <= parent <= node:
            raise LocalProtocolError(f"node {node} has parent {parent}, which must be 0 to {node}")
        value = value * (node + 1) + parent
    return value.to_bytes(num_parents_bytes(len(parents)), "big")


def unpack_parents(data: bytes, num_nodes: int) -> tuple[int, ...]:
    """Read what `pack_parents` wrote.

    Raises:
        RemoteProtocolError: it is not a tree of so many nodes.
    """
    if len(data) != num_parents_bytes(num_nodes):
        raise RemoteProtocolError(
            f"a tree of {num_nodes} nodes takes {num_parents_bytes(num_nodes)} bytes and {len(data)} came"
        )
    value, parents = int.from_bytes(data, "big"), []
    for num_choices in range(num_nodes, 0, -1):
        value, parent = divmod(value, num_choices)
        parents.append(parent)
    if value:
        raise RemoteProtocolError(f"the bytes of a tree are above the number of trees of {num_nodes} nodes")
    return tuple(reversed(parents))


@lru_cache(maxsize=256)
def num_parents_bytes(num_nodes: int) -> int:
    """Count the bytes of a packed tree."""
    return max(1, _num_bytes((math.factorial(num_nodes) - 1).bit_length()))


class DrawnTokens(NamedTuple):
    """Tokens and what each was drawn from."""

    token_ids: tuple[int, ...]
    distributions: tuple[LatticeDistribution, ...]


class _Codes(NamedTuple):
    """How drawn tokens under a rule are numbered: by the size of the support, then support, weights, place in it.

    starts: [k + 1]: the first number of a support of 1, 2, ... k tokens, and the number of numbers.
    weightings: [k]: ways to share the lattice among 1, 2, ... k tokens, none of them left out.
    base: at least 256, so that the length tells how many tokens there are.
    """

    starts: tuple[int, ...]
    weightings: tuple[int, ...]
    base: int


@lru_cache(maxsize=16)
def _codes(num_tokens: int, rule: Rejection) -> _Codes:
    sizes = range(1, min(rule.top_k, rule.lattice, num_tokens) + 1)
    weightings = tuple(math.comb(rule.lattice - 1, size - 1) for size in sizes)
    counts = (math.comb(num_tokens, size) * weightings[size - 1] * size for size in sizes)
    starts = tuple(accumulate(counts, initial=0))
    return _Codes(starts, weightings, max(256, starts[-1]))


def max_drawn_tokens(num_tokens: int, rule: Rejection) -> int:
    """How many drawn tokens an offer can hold."""
    return (8 * MAX_PROBS_BYTES) // (_codes(num_tokens, rule).base - 1).bit_length()


def pack_probs(
    token_ids: Sequence[int], distributions: Sequence[LatticeDistribution], num_tokens: int, rule: Rejection
) -> bytes:
    """Write drawn tokens and their distributions as one number, within a byte of the fewest that hold them all.

    Each token is a digit that enumerates (support, weights, place of the token in the support); tokens without weight
    are left out of the support.

    Raises:
        LocalProtocolError: a distribution is not one of the rule's, or a token has no weight in its own.
    """
    codes, value = _codes(num_tokens, rule), 0
    for token_id, distribution in zip(token_ids, distributions, strict=True):
        value = value * codes.base + _code(token_id, _checked(token_id, distribution, num_tokens, rule), codes)
    num_bytes = _num_bytes((codes.base ** len(token_ids) - 1).bit_length())
    if num_bytes > MAX_PROBS_BYTES:
        raise LocalProtocolError(
            f"{len(token_ids)} tokens under {rule} take {num_bytes} bytes and an offer may take {MAX_PROBS_BYTES}: "
            "draft fewer tokens"
        )
    return value.to_bytes(num_bytes, "big")


def _code(token_id: int, distribution: LatticeDistribution, codes: _Codes) -> int:
    support, weights = distribution.token_ids, distribution.weights
    bars = [place - 1 for place in accumulate(weights[:-1])]
    code = rank_subset(support) * codes.weightings[len(support) - 1] + rank_subset(bars)
    return codes.starts[len(support) - 1] + code * len(support) + support.index(token_id)


def unpack_probs(data: bytes, num_tokens: int, rule: Rejection) -> DrawnTokens:
    """Read what `pack_probs` wrote.

    Raises:
        RemoteProtocolError: it is not what `pack_probs` writes for this vocabulary and rule.
    """
    codes = _codes(num_tokens, rule)
    value, drawn = int.from_bytes(data, "big"), []
    for _ in range(_num_drawn(len(data), codes.base)):
        value, code = divmod(value, codes.base)
        drawn.append(_decode(code, rule, codes))
    if value:
        raise RemoteProtocolError(f"the {len(data)} bytes of draft distributions are above the number of such")
    token_ids, distributions = zip(*reversed(drawn), strict=True) if drawn else ((), ())
    return DrawnTokens(token_ids, distributions)


def _decode(code: int, rule: Rejection, codes: _Codes) -> tuple[int, LatticeDistribution]:
    if code >= codes.starts[-1]:
        raise RemoteProtocolError("the number of a draft distribution is above the number of distributions")
    size = bisect_right(codes.starts, code)
    code, index = divmod(code - codes.starts[size - 1], size)
    support_rank, weights_rank = divmod(code, codes.weightings[size - 1])
    support, bars = unrank_subset(support_rank, size), unrank_subset(weights_rank, size - 1)
    weights = tuple(after - before for before, after in pairwise((-1, *bars, rule.lattice - 1)))
    return support[index], LatticeDistribution(support, weights)


def _num_drawn(num_bytes: int, base: int) -> int:
    """How many digits a number of this length has."""
    if num_bytes > MAX_PROBS_BYTES:
        raise RemoteProtocolError(
            f"{num_bytes} bytes of draft distributions came and an offer may have {MAX_PROBS_BYTES}"
        )
    about = round(8 * num_bytes / math.log2(base))
    for num_drawn in range(max(0, about - 1), about + 2):
        if _num_bytes((base**num_drawn - 1).bit_length()) == num_bytes:
            return num_drawn
    raise RemoteProtocolError(f"{num_bytes} bytes came and no number of draft distributions takes so many")


def _checked(token_id: int, distribution: LatticeDistribution, num_tokens: int, rule: Rejection) -> LatticeDistribution:
    """The distribution without its tokens of no weight."""
    support, weights = distribution.token_ids, distribution.weights
    if len(support) != len(weights) or not 0 < len(support) - weights.count(0) <= rule.top_k:
        raise LocalProtocolError(
            f"a draft distribution has {len(support)} tokens and the weights {list(weights)}; under {rule} it has as "
            f"many of one as of the other, 1 to {rule.top_k} above 0"
        )
    if support[0] < 0 or support[-1] >= num_tokens or any(a >= b for a, b in pairwise(support)):
        raise LocalProtocolError(
            f"the tokens {list(support)} of a draft distribution must ascend and be 0 to {num_tokens - 1}"
        )
    if min(weights) < 0 or sum(weights) != rule.lattice:
        raise LocalProtocolError(
            f"the weights {list(weights)} of a draft distribution must be 0 or more and sum to {rule.lattice}"
        )
    if not dict(zip(support, weights, strict=True)).get(token_id):
        raise LocalProtocolError(f"token id {token_id} was drawn and its draft distribution gives it no weight")
    if 0 not in weights:
        return distribution
    kept = [pair for pair in zip(support, weights, strict=True) if pair[1]]
    return LatticeDistribution(tuple(token for token, _ in kept), tuple(weight for _, weight in kept))
