"""What a device offers a cloud for judgement."""

from __future__ import annotations

import msgspec

from skydraft.core.tree_shape import TreeShape


class LatticeDistribution(msgspec.Struct, frozen=True):
    """A draft distribution cut to a few tokens and rounded to multiples of 1 / denominator.

    token_ids: the support, ascending.
    weights: of each, 0 to denominator; they sum to denominator.
    """

    token_ids: tuple[int, ...]
    weights: tuple[int, ...]


class Draft(msgspec.Struct, frozen=True):
    """An offer, unpacked (on the wire: `messages.Offer`).

    start: position of the first token (for a tree: of the root's children).
    token_ids: of the nodes.
    shape: of the tree that they make; its root is what stands before `start`.
    num_forced: how many leading nodes, a chain, the device has already committed and does not ask about.
    distributions: what each token that is not forced was drawn from, where the rule draws drafts.
    """

    start: int
    token_ids: tuple[int, ...]
    shape: TreeShape
    num_forced: int = 0
    distributions: tuple[LatticeDistribution, ...] | None = None

    @classmethod
    def chain(
        cls,
        start: int,
        token_ids: tuple[int, ...],
        num_forced: int = 0,
        distributions: tuple[LatticeDistribution, ...] | None = None,
    ) -> Draft:
        """An offer whose tokens follow one another."""
        return cls(start, token_ids, TreeShape.chain(len(token_ids)), num_forced, distributions)

    @property
    def num_judged(self) -> int:
        """Nodes that the cloud is asked about."""
        return len(self.token_ids) - self.num_forced

    def check(self) -> Draft:
        """Returns itself.

        Raises:
            ValueError: it is no tree of tokens at positions, or its forced nodes are no leading chain.
        """
        num_nodes, shape = len(self.token_ids), self.shape
        if self.start < 0:
            raise ValueError(f"a draft starts at position {self.start} and must start at 0 or later")
        if len(shape) != num_nodes:
            raise ValueError(f"a draft has {num_nodes} tokens and {len(shape)} parents; it must have one each")
        if not 0 <= self.num_forced <= num_nodes:
            raise ValueError(f"{self.num_forced} of a draft's {num_nodes} tokens are forced; at most all can be")
        if shape.is_chain:
            return self
        shape.check()
        if shape.num_in_chain < self.num_forced:
            raise ValueError(
                f"the {self.num_forced} forced tokens of a draft hang from rows "
                f"{list(shape.parents[: self.num_forced])}; they must be a chain from the root"
            )
        if len(set(zip(shape.parents, self.token_ids, strict=True))) < num_nodes:
            raise ValueError(f"a draft has the same token twice behind one node: tokens {list(self.token_ids)}")
        return self
