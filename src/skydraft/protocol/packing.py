"""Token ids, trees and draft distributions as few bytes.

Packing raises LocalProtocolError on values that do not fit; unpacking raises RemoteProtocolError on bytes that packing
would not have made, and takes a time in proportion to their number.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple

from skydraft.core import Lattice, LatticeDistribution, TokenLogprobs, TreeShape
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol.limits import LOG_DIGEST_BYTES, MAX_PROBS_BYTES, MAX_VOCABULARY

MIN_ID_BITS = 8  # so that fewer than 8 bits of padding can never be one more id: a list of ids needs no count
GROUP = 8  # 8 numbers of b bits fill b bytes: long lists are packed in groups, in linear time


@lru_cache(maxsize=64)
def id_bits(num_tokens: int) -> int:
    """Count the bits that an id of a vocabulary takes on the wire: 8 to 24."""
    if not 1 <= num_tokens <= MAX_VOCABULARY:
        raise LocalProtocolError(f"a vocabulary of {num_tokens} tokens cannot be packed: 1 to {MAX_VOCABULARY} can")
    return max(MIN_ID_BITS, (num_tokens - 1).bit_length())


def pack(numbers: Sequence[int], num_bits: int) -> bytes:
    """Write numbers most significant bit first, `num_bits` bits each, and fill the last byte with zeros.

    Raises:
        LocalProtocolError: a number does not fit.
    """
    if len(numbers) > GROUP:
        groups = (numbers[start : start + GROUP] for start in range(0, len(numbers), GROUP))
        return b"".join(pack(group, num_bits) for group in groups)
    value = any_bit = 0
    for number in numbers:
        value = value << num_bits | number
        any_bit |= number
    if any_bit >> num_bits:  # also where one is negative
        raise LocalProtocolError(f"one of {list(numbers)} does not fit in {num_bits} bits")
    total_bits = len(numbers) * num_bits
    return (value << -total_bits % 8).to_bytes(num_packed_bytes(len(numbers), num_bits), "big")


def unpack(data: bytes, num_bits: int, count: int) -> tuple[int, ...]:
    """Read what `pack` wrote.

    Args:
        count: of the numbers.
    Raises:
        RemoteProtocolError: so many do not take so many bytes, or the padding is not zero.
    """
    if len(data) != num_packed_bytes(count, num_bits):
        raise RemoteProtocolError(f"{count} numbers of {num_bits} bits came in {len(data)} bytes")
    if count > GROUP:
        parts = (data[start : start + num_bits] for start in range(0, len(data), num_bits))
        counts = (min(GROUP, count - first) for first in range(0, count, GROUP))
        return tuple(
            number for part, size in zip(parts, counts, strict=True) for number in unpack(part, num_bits, size)
        )
    padding_mask, mask, shifts = _layout(count, num_bits)
    value = int.from_bytes(data, "big")
    if value & padding_mask:
        raise RemoteProtocolError(f"the bits after {count} packed numbers are not zero")
    return tuple([value >> shift & mask for shift in shifts])


@lru_cache(maxsize=1024)
def _layout(count: int, num_bits: int) -> tuple[int, int, tuple[int, ...]]:
    """Where the numbers of a group are: masks of the padding and of a number, and how far each number is shifted."""
    num_padding_bits = -count * num_bits % 8
    shifts = tuple(num_padding_bits + index * num_bits for index in reversed(range(count)))
    return (1 << num_padding_bits) - 1, (1 << num_bits) - 1, shifts


def num_packed_bytes(count: int, num_bits: int) -> int:
    """Count the bytes that numbers take."""
    return (count * num_bits + 7) // 8


def unpack_ids(data: bytes, id_bits: int, num_ids_below: int) -> tuple[int, ...]:
    """Read what `pack` wrote.

    Args:
        num_ids_below: the vocabulary's number of tokens.
    Raises:
        RemoteProtocolError: no number of ids has this length, the padding is not zero, or an id is not in the
            vocabulary.
    """
    token_ids = unpack(data, id_bits, num_packed_ids(len(data), id_bits))
    if token_ids and max(token_ids) >= num_ids_below:
        raise RemoteProtocolError(f"token id {max(token_ids)} came and the vocabulary has {num_ids_below} tokens")
    return token_ids


def num_packed_ids(num_bytes: int, id_bits: int) -> int:
    """Count the ids in this many bytes without looking at them.

    Raises:
        RemoteProtocolError: no number of ids takes so many bytes.
    """
    num_ids = 8 * num_bytes // id_bits
    if num_packed_bytes(num_ids, id_bits) != num_bytes:
        raise RemoteProtocolError(f"{num_bytes} bytes came and no number of ids of {id_bits} bits takes so many")
    return num_ids


def log_digest(token_ids: Sequence[int]) -> bytes:
    """Sum up a log: 8 bytes of BLAKE2b over its ids as 4-byte big-endian numbers."""
    data = struct.pack(f">{len(token_ids)}I", *token_ids)
    return hashlib.blake2b(data, digest_size=LOG_DIGEST_BYTES).digest()


def pack_logprobs(logprobs: Sequence[TokenLogprobs | None], num_top: int) -> bytes:
    """Write a record for each token: its log-probability, and num_top ids with theirs; None is nan and no ids.

    Raises:
        LocalProtocolError: one has another number of tokens.
    """
    record, none = _logprob_record(num_top), (math.nan, *(0, 0.0) * num_top)
    try:
        return b"".join(
            record.pack(*none) if each is None else record.pack(each.logprob, *chain.from_iterable(each.top))
            for each in logprobs
        )
    except struct.error as error:
        raise LocalProtocolError(f"log-probabilities cannot be packed for {num_top} tokens each: {error}") from error


def unpack_logprobs(data: bytes, count: int, num_top: int, num_ids_below: int) -> list[TokenLogprobs | None]:
    """Read the records of so many tokens.

    Raises:
        RemoteProtocolError: they are not so many, or an id or a number is none.
    """
    record = _logprob_record(num_top)
    if len(data) != count * record.size:
        raise RemoteProtocolError(
            f"the log-probabilities of {count} tokens take {count * record.size} bytes and {len(data)} bytes came"
        )
    logprobs: list[TokenLogprobs | None] = []
    for logprob, *numbers in record.iter_unpack(data):
        top = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        if math.isnan(logprob):
            logprobs.append(None)
        elif logprob <= 0 and all(token_id < num_ids_below and value <= 0 for token_id, value in top):
            logprobs.append(TokenLogprobs(logprob, top))
        else:
            raise RemoteProtocolError(f"a log-probability is {logprob}, with those of {top}: none may be above 0")
    return logprobs


def num_logprob_bytes(num_top: int) -> int:
    """Bytes of one token's log-probabilities."""
    return _logprob_record(num_top).size


@lru_cache(maxsize=64)
def _logprob_record(num_top: int) -> struct.Struct:
    return struct.Struct("<f" + "If" * num_top)


def parent_bits(num_nodes: int) -> int:
    """Count the bits that a node's parent takes in a tree of so many nodes."""
    return max(1, (num_nodes - 1).bit_length())


def pack_parents(shape: TreeShape) -> bytes:
    """Write the row that each node hangs from; nothing for a chain."""
    return b"" if shape.is_chain else pack(shape.parents, parent_bits(len(shape)))


def unpack_parents(data: bytes, num_nodes: int) -> TreeShape:
    """Read what `pack_parents` wrote.

    Raises:
        RemoteProtocolError: it has not the length of so many nodes, or is a chain. Whether it is a tree `Draft.check`
            finds out.
    """
    if not data:
        return TreeShape.chain(num_nodes)
    shape = TreeShape(unpack(data, parent_bits(num_nodes), num_nodes))
    if shape.is_chain:
        raise RemoteProtocolError(f"an offer of {num_nodes} tokens is a chain and came with parents")
    return shape


class DrawnTokens(NamedTuple):
    """Tokens and what each was drawn from."""

    token_ids: tuple[int, ...]
    distributions: tuple[LatticeDistribution, ...]


def pack_probs(
    token_ids: Sequence[int], distributions: Sequence[LatticeDistribution], num_tokens: int, lattice: Lattice
) -> bytes:
    """Write drawn tokens and their distributions, without the tokens of no weight.

    Each is a record of whole bytes: the size of the support less 1, the token's place in it, the support, and all
    weights but the last, each less 1.

    Raises:
        LocalProtocolError: a distribution does not fit the lattice, a token has no weight in its own, or they are too
            many.
    """
    num_id_bits, num_weight_bits = id_bits(num_tokens), _weight_bits(lattice)
    records: list[bytes] = []
    for token_id, distribution in zip(token_ids, distributions, strict=True):
        support, weights = _without_zeros(distribution)
        _check_distribution(support, weights, num_tokens, lattice, LocalProtocolError)
        if token_id not in support:
            raise LocalProtocolError(f"token id {token_id} was drawn and its draft distribution gives it no weight")
        head = bytes((len(support) - 1, support.index(token_id)))
        records.append(
            head + pack(support, num_id_bits) + pack([weight - 1 for weight in weights[:-1]], num_weight_bits)
        )
    data = b"".join(records)
    if len(data) > MAX_PROBS_BYTES:
        raise LocalProtocolError(
            f"{len(token_ids)} drawn tokens take {len(data)} bytes and an offer may take {MAX_PROBS_BYTES}: draft fewer"
        )
    return data


def unpack_probs(data: bytes, num_tokens: int, lattice: Lattice) -> DrawnTokens:
    """Read what `pack_probs` wrote.

    Raises:
        RemoteProtocolError: it is not what `pack_probs` writes for this vocabulary and lattice.
    """
    if len(data) > MAX_PROBS_BYTES:
        raise RemoteProtocolError(
            f"{len(data)} bytes of draft distributions came and an offer may have {MAX_PROBS_BYTES}"
        )
    num_id_bits, num_weight_bits = id_bits(num_tokens), _weight_bits(lattice)
    token_ids, distributions, start = list[int](), list[LatticeDistribution](), 0
    while start < len(data):
        size, index = data[start] + 1, data[start + 1] if start + 1 < len(data) else 256
        weights_at = start + 2 + num_packed_bytes(size, num_id_bits)
        end = weights_at + num_packed_bytes(size - 1, num_weight_bits)
        if index >= size or end > len(data):
            raise RemoteProtocolError(f"a draft distribution of {size} tokens is cut off or has no token {index}")
        support = unpack_ids(data[start + 2 : weights_at], num_id_bits, num_tokens)
        weights = [weight + 1 for weight in unpack(data[weights_at:end], num_weight_bits, size - 1)]
        weights.append(lattice.denominator - sum(weights))
        _check_distribution(support, weights, num_tokens, lattice, RemoteProtocolError)
        token_ids.append(support[index])
        distributions.append(LatticeDistribution(support, tuple(weights)))
        start = end
    return DrawnTokens(tuple(token_ids), tuple(distributions))


def max_drawn_tokens(num_tokens: int, lattice: Lattice) -> int:
    """How many drawn tokens an offer can hold, whatever their distributions."""
    size = min(lattice.top_k, lattice.denominator, num_tokens)
    record = 2 + num_packed_bytes(size, id_bits(num_tokens)) + num_packed_bytes(size - 1, _weight_bits(lattice))
    return MAX_PROBS_BYTES // record


def _weight_bits(lattice: Lattice) -> int:
    """Of a weight less 1."""
    return max(1, (lattice.denominator - 1).bit_length())


def _without_zeros(distribution: LatticeDistribution) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The support and its weights, tokens of no weight left out."""
    support, weights = distribution.token_ids, distribution.weights
    if len(support) != len(weights):
        raise LocalProtocolError(f"a draft distribution has {len(support)} tokens and the weights {list(weights)}")
    kept = [(token_id, weight) for token_id, weight in zip(support, weights, strict=True) if weight]
    return tuple(token_id for token_id, _ in kept), tuple(weight for _, weight in kept)


def _check_distribution(
    support: Sequence[int],
    weights: Sequence[int],
    num_tokens: int,
    lattice: Lattice,
    error: type[LocalProtocolError | RemoteProtocolError],
) -> None:
    """Refuse what is no distribution on the lattice."""
    if not 1 <= len(support) <= lattice.top_k:
        raise error(f"a draft distribution has {len(support)} tokens of some weight and may have 1 to {lattice.top_k}")
    if support[0] < 0 or support[-1] >= num_tokens or any(a >= b for a, b in pairwise(support)):
        raise error(f"the tokens {list(support)} of a draft distribution must ascend and be 0 to {num_tokens - 1}")
    if min(weights) < 1 or sum(weights) != lattice.denominator:
        raise error(
            f"the weights {list(weights)} of a draft distribution must be 1 or more and sum to {lattice.denominator}"
        )
