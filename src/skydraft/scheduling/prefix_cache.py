"""What was read of prompts, kept in memory for later ones that begin with the same tokens.

A text is cut into blocks from its start, as the engine takes them (`PrefixReuse`), and a block's key is a digest of all
tokens up to its end and of the prompt's tensors: so what one prompt has read serves every other that begins alike. Each
scope (the holder of a key) has its own blocks, and never another's: how soon an answer comes says what was read before.

    kept        when a prompt has been read; where the engine takes text as well (`PrefixReuse`), that too, at its end
    used        when a slot is filled
    forgotten   where memory is short: of the scope that has the most, what was not used for the longest time;
                and what was not used for KEPT_S
"""

from __future__ import annotations

import hashlib
import logging
import time
from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from skydraft.core import Prompt, TensorSegment
from skydraft.engines.base import ChunkedEngine, Engine, KvPiece, Slot

log = logging.getLogger("skydraft.scheduling")

BLOCK = 32  # tokens, where the engine takes any number
KEPT_S = 3600.0
KEY_BYTES = 32


class BlockKey(NamedTuple):
    """end: tokens of the text up to the block's end."""

    digest: bytes
    end: int


BlockKeys: TypeAlias = Sequence[BlockKey]


class _Block(NamedTuple):
    piece: KvPiece
    used_s: float


@dataclass
class _Scope:
    """Of blocks that follow each other the later ones come first: none is kept whose beginning is not.

    blocks: the one that was not used for the longest time is first.
    """

    blocks: dict[BlockKey, _Block] = field(default_factory=dict)
    num_bytes: int = 0


class PrefixCache:
    """Blocks of an engine's texts. Used by one thread.

    Args:
        max_bytes: of all blocks.
        clock: seconds, monotonic.

    num_bytes: of all blocks that are kept.
    """

    def __init__(self, engine: ChunkedEngine, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        reuse = engine.prefix_reuse
        self._ends = (reuse if reuse.unit > 1 else reuse._replace(unit=BLOCK)).ends
        self.num_bytes = 0
        self._engine = engine
        self._max_bytes = max_bytes
        self._token_bytes = 0.0  # as far as was seen
        self._clock = clock
        self._scopes: dict[Hashable, _Scope] = {}

    @property
    def takes_text(self) -> bool:
        """Whether what follows a prompt is kept too."""
        return self._engine.prefix_reuse.takes_text

    def keys(self, prompt: Prompt, text: Sequence[int] = ()) -> BlockKeys:
        """Of the whole blocks of a prompt, which the engine takes, and a text behind it."""
        return self.keys_of_ids([*self._engine.prompt_ids(prompt), *text], _tensor_digest(prompt))

    def keys_of_ids(self, token_ids: Sequence[int], before: bytes = b"") -> BlockKeys:
        """Of the whole blocks of a text. before: of tensors among its tokens."""
        begin, keys = 0, list[BlockKey]()
        for end in self._ends(token_ids):
            ids = array("q", token_ids[begin:end]).tobytes()
            before = hashlib.blake2b(before + ids, digest_size=KEY_BYTES).digest()
            keys.append(BlockKey(before, end))
            begin = end
        return keys

    def num_kept(self, scope: Hashable, keys: BlockKeys) -> int:
        """How many of these blocks, from the first on, are kept."""
        blocks = self._scopes[scope].blocks if scope in self._scopes else {}
        return next((index for index, key in enumerate(keys) if key not in blocks), len(keys))

    def ready(self, scope: Hashable, keys: BlockKeys, num_prompt: int) -> BlockKeys:
        """Of the blocks that are kept those with which a prompt of so many tokens may begin."""
        usable = _usable(keys, num_prompt)
        return usable[: self.num_kept(scope, usable)]

    def awaited(self, scope: Hashable, keys: BlockKeys, num_prompt: int) -> BlockKey | None:
        """The key of the next block of a prompt, which is worth waiting for if another reads it now; None: none is.

        Not where it might not be kept then: those that wait would read one after the other.
        """
        usable = _usable(keys, num_prompt)
        num_kept = self.num_kept(scope, usable)
        is_wanted = num_kept < len(usable) and self.has_room(scope, usable[num_kept].end)
        return usable[num_kept] if is_wanted else None

    def has_room(self, scope: Hashable, num_tokens: int) -> bool:
        """Whether so many tokens are sure to be kept, if they are read: a scope's share of the memory takes them."""
        return num_tokens * self._token_bytes * len({scope, *self._scopes}) <= self._max_bytes

    def find(self, scope: Hashable, keys: BlockKeys, num_prompt: int) -> list[KvPiece]:
        """What a prompt of so many tokens may begin with."""
        found = self.ready(scope, keys, num_prompt)
        if not found:
            return []
        self._use(self._scopes[scope], found)
        return [self._scopes[scope].blocks[key].piece for key in found]

    def keep(self, scope: Hashable, keys: BlockKeys, slot: Slot) -> None:
        """Copy the blocks with these keys out of a slot, which holds them, but for those that are kept already.

        What goes wrong is logged and no more: the slot's own text needs none of this.
        """
        try:
            self._keep(scope, keys, slot)
        except Exception:
            log.exception("what a slot has read could not be kept")

    def _keep(self, scope: Hashable, keys: BlockKeys, slot: Slot) -> None:
        if not keys:
            return
        of_scope = self._scopes.setdefault(scope, _Scope())
        num_kept = self.num_kept(scope, keys)
        self._use(of_scope, keys[:num_kept])
        for index in range(num_kept, len(keys)):
            piece = self._engine.copy_out(slot, keys[index - 1].end if index else 0, keys[index].end)
            self._token_bytes = max(self._token_bytes, piece.num_bytes / piece.num_tokens)
            if not self._make_room(piece.num_bytes, of_scope, keys):
                break
            of_scope.blocks[keys[index]] = _Block(piece, self._clock())
            of_scope.num_bytes += piece.num_bytes
            self.num_bytes += piece.num_bytes
        self._use(of_scope, [key for key in keys if key in of_scope.blocks])
        self._drop_empty_scopes()

    def expire(self) -> None:
        """Forget what was not used for KEPT_S."""
        least_s = self._clock() - KEPT_S
        for scope in self._scopes.values():
            while scope.blocks and next(iter(scope.blocks.values())).used_s < least_s:
                self._forget_first(scope)
        self._drop_empty_scopes()

    def clear(self) -> None:
        """Forget everything."""
        self.num_bytes = 0
        self._scopes = {}

    def _use(self, scope: _Scope, keys: BlockKeys) -> None:
        now_s = self._clock()
        for key in reversed(keys):
            scope.blocks[key] = scope.blocks.pop(key)._replace(used_s=now_s)

    def _make_room(self, num_bytes: int, of_scope: _Scope, spared: Iterable[BlockKey]) -> bool:
        """Forget blocks until there is room for another of a scope; False where only its spared ones could go.

        Other scopes' blocks may have the same keys and are not spared: nobody is to notice what others have read.
        """
        spared_keys = set(spared)
        while self.num_bytes and self.num_bytes + num_bytes > self._max_bytes:
            largest = max(self._scopes.values(), key=lambda scope: scope.num_bytes)
            if largest is of_scope and next(iter(largest.blocks)) in spared_keys:
                return False
            self._forget_first(largest)
        return num_bytes <= self._max_bytes

    def _forget_first(self, scope: _Scope) -> None:
        num_bytes = scope.blocks.pop(next(iter(scope.blocks))).piece.num_bytes
        scope.num_bytes -= num_bytes
        self.num_bytes -= num_bytes

    def _drop_empty_scopes(self) -> None:
        self._scopes = {name: scope for name, scope in self._scopes.items() if scope.blocks}


def make_prefix_cache(
    engine: Engine, max_bytes: int, clock: Callable[[], float] = time.monotonic
) -> PrefixCache | None:
    """None where nothing is to be kept, or the engine gives nothing to keep."""
    return PrefixCache(engine, max_bytes, clock) if max_bytes and isinstance(engine, ChunkedEngine) else None


def _usable(keys: BlockKeys, num_prompt: int) -> BlockKeys:
    """A prompt's last token is always read."""
    return [key for key in keys if key.end < num_prompt]


def _tensor_digest(prompt: Prompt) -> bytes:
    """Of what a prompt has beside tokens; without it nothing."""
    tensors = [segment for segment in prompt.segments if isinstance(segment, TensorSegment)]
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.dtype} {tensor.shape} ".encode() + tensor.data)
    return digest.digest() if tensors else b""
