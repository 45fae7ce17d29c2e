"""Noise as a pure function of (seed, position, token id, stream).

Philox 4x32-10 with key = seed and counter = (token id // 4, position, stream, 0); word token id % 4 of its output is
the token's 32-bit number. Everything here has equal bits in numpy and torch, on every machine.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import TypeAlias

from array_api_compat import array_namespace, device, is_torch_array

from skydraft.sampling.arrays import Array, handy, integers_like
from skydraft.sampling.logarithm import log

Words: TypeAlias = tuple[Array, Array, Array, Array]
Seed: TypeAlias = int | Array  # one for all, or int64 as `seeds_like` makes them

_MASK = 0xFFFFFFFF
_NUM_ROUNDS = 10
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
# The multipliers less 2**32: |product| < 2**62 then, so int64 holds it, which torch needs; _multiply puts 2**32 back.
_MULTIPLIERS = (0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32)

_CACHED_COUNTERS = 2**14  # so many at a time stay in a core's cache from step to step
LARGEST_GUMBEL = 22.88  # above the largest noise, -log(-log(1 - 2**-33)) = 33 log 2 = 22.874
LEAST_GUMBEL = -3.14  # below the least, -log(-log(2**-33)) = -log(33 log 2) = -3.130


class Stream(enum.IntEnum):
    """What a number is for; numbers of different streams are independent."""

    TARGET = 0  # the target's choice, and the device's guesses of it
    DRAFT = 1  # the draft's own samples (rejection)
    ACCEPT = 2  # whether a draft token is accepted (rejection)
    RESIDUAL = 3  # the token in place of one that failed (rejection)


def seeds_like(seeds: Sequence[int], like: Array) -> Array:
    """int64 [len(seeds)] in the library and on the device of `like`, the seeds' 64 bits as they are.

    Raises:
        ValueError: a seed has more than 64 bits.
    """
    for seed in seeds:
        _check_seed(seed)
    return integers_like([seed - 2**64 if seed >= 2**63 else seed for seed in seeds], like)


def seed_of_rows(seed: Seed, rows: Array | slice) -> Seed:
    """The seed of these rows, where each may have its own."""
    return seed if isinstance(seed, int) else seed[rows]


def philox(counter: Words, key: tuple[Array | int, Array | int]) -> Words:
    """Philox 4x32-10.

    Args:
        counter: four words of 32 bits, each an int or an int64 array; their shapes broadcast.
        key: two words of 32 bits, of the same kinds.
    Returns:
        Four words of 32 bits in int64.
    """
    arrays = [word for word in (*counter, *key) if not isinstance(word, int)]
    full = iter(array_namespace(arrays[0]).broadcast_arrays(*arrays) if arrays else ())
    c0, c1, c2, c3 = (word if isinstance(word, int) else next(full) for word in counter)
    k0, k1 = key  # as small as they are
    for _ in range(_NUM_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = _mix(high1, c1, k0), low1, _mix(high0, c3, k1), low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: Seed, positions: Array | int, token_ids: Array, stream: Stream) -> Array:
    """Numbers between 0 and 1 for any tokens at any positions.

    Args:
        seed: 0 to 2**64 - 1, or an array from `seeds_like` that broadcasts with token_ids.
        positions: 0 to 2**32 - 1, an int or an int64 array that broadcasts with token_ids.
        token_ids: int64, 0 or more.
    Returns:
        float64: (x + 0.5) / 2**32 with x of 32 bits, so neither 0 nor 1.
    Raises:
        ValueError: the seed has more than 64 bits.
    """
    like = array_namespace(token_ids)
    seed, positions, token_ids = handy(math.prod(token_ids.shape), seed, positions, token_ids)
    xp = array_namespace(token_ids)
    words = philox((token_ids >> 2, positions, int(stream), 0), _key(seed))
    place = token_ids & 3
    lower, upper = xp.where(place == 0, words[0], words[1]), xp.where(place == 2, words[2], words[3])
    return like.asarray(_to_unit(xp.where(place < 2, lower, upper)))


def vocabulary_uniform(seed: Seed, positions: Array, vocab_size: int, stream: Stream) -> Array:
    """`uniform` of the token ids 0 to vocab_size - 1 at each position: one Philox for four of them.

    Args:
        seed: one for all, or one for each position, as for `uniform`.
        positions: int64 [num_positions].
    Returns:
        float64 [num_positions, vocab_size].
    """
    like = array_namespace(positions)
    seed, positions = handy(positions.shape[0] * vocab_size, seed, positions)
    xp, num_positions, num_blocks = array_namespace(positions), positions.shape[0], (vocab_size + 3) // 4
    blocks = xp.arange(num_blocks, dtype=xp.int64, device=device(positions))

    def made(rows: slice) -> Array:
        words = philox((blocks, positions[rows, None], int(stream), 0), _key(seed_of_rows(seed, (rows, None))))
        return xp.reshape(_to_unit(xp.stack(words, axis=-1)), (-1, 4 * num_blocks))[:, :vocab_size]

    step = max(1, num_positions if is_torch_array(positions) else _CACHED_COUNTERS // num_blocks)
    return like.asarray(xp.concat([made(slice(at, at + step)) for at in range(0, max(1, num_positions), step)]))


def gumbel(seed: Seed, positions: Array | int, token_ids: Array, stream: Stream) -> Array:
    """Standard Gumbel noise, -log(-log(u)), for any tokens at any positions; arguments as `uniform`. float64."""
    return -log(-log(uniform(seed, positions, token_ids, stream)))


def rough_gumbel(u: Array) -> Array:
    """Gumbel noise of what `uniform` gave, in less time: to the last bits but one, which differ between libraries."""
    xp = array_namespace(u)
    return -xp.log(-xp.log(u))


def _multiply(word: Array | int, multiplier: int) -> tuple[Array | int, Array | int]:
    """High and low 32 bits of word * (multiplier + 2**32)."""
    low = word * multiplier
    high = low >> 32
    high += word  # in place, as what follows: these steps are most of what noise takes
    low &= _MASK
    return high, low


def _mix(high: Array | int, word: Array | int, key: Array | int) -> Array | int:
    """The exclusive or of the three; what `high` held is lost."""
    if isinstance(high, int):
        return high ^ word ^ key
    high ^= word
    high ^= key
    return high


def _to_unit(words: Array) -> Array:
    xp = array_namespace(words)
    return (xp.astype(words, xp.float64) + 0.5) * 2.0**-32


def _key(seed: Seed) -> tuple[Array | int, Array | int]:
    if isinstance(seed, int):
        _check_seed(seed)
    return seed & _MASK, (seed >> 32) & _MASK


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise ValueError(f"the seed is {seed} and must be 0 to 2**64 - 1")
