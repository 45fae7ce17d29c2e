"""Numbers for subsets: the combinatorial number system.

The subsets {c_1 < c_2 < ... < c_k} of the natural numbers, ordered by their largest member first, are counted by
C(c_1, 1) + C(c_2, 2) + ... + C(c_k, k). The subsets of {0, ..., n - 1} get the numbers below C(n, k): no code of fixed
length is shorter.
Source: Knuth, The Art of Computer Programming 4A, section 7.2.1.3, theorem L.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def rank_subset(members: Iterable[int]) -> int:
    """Number a subset.

    Args:
        members: ascending, without repeats.
    """
    return sum(map(math.comb, members, range(1, 2**31)))


def unrank_subset(rank: int, size: int) -> tuple[int, ...]:
    """Find the subset of `size` members with this number; ascending. A rank below C(n, size) has members below n."""
    members = []
    for num_left in range(size, 0, -1):
        member, count = _largest_member(rank, num_left)
        members.append(member)
        rank -= count
    return tuple(reversed(members))


def _largest_member(rank: int, size: int) -> tuple[int, int]:
    """The largest c with C(c, size) <= rank, and that number."""
    if size == 1:
        return rank, rank
    if rank == 0:
        return size - 1, 0
    member = _guess_member(rank, size)
    count = math.comb(member, size)
    while count > rank:  # the guess is at most a few steps off; a step costs one product and one quotient
        count = count * (member - size) // member
        member -= 1
    while (above := count * (member + 1) // (member + 1 - size)) <= rank:
        member, count = member + 1, above
    return member, count


def _guess_member(rank: int, size: int) -> int:
    """About the c with C(c, size) = rank, at least `size`.

    The product c (c - 1) ... (c - size + 1) is m**size, m the middle of its factors, less a little for their spread.
    """
    geometric_mean = math.exp((math.log(rank) + math.lgamma(size + 1)) / size)
    middle = geometric_mean + (size * size - 1) / (24 * geometric_mean)
    return max(size, int(middle + (size - 1) / 2))
