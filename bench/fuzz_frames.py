"""What a device must not be able to do any harm with: frames that are no messages, and messages that make no sense.

Bytes only: who sends them, and what must come back, is in `bench.fuzz`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from random import Random
from typing import Any, NamedTuple

import msgspec

from skydraft import core
from skydraft.core import (
    AcceptanceRule,
    Exact,
    LatticeDistribution,
    MinProb,
    Prompt,
    Rank,
    Rejection,
    SamplingParams,
    TensorSegment,
    TokenSegment,
)
from skydraft.errors import RemoteProtocolError
from skydraft.protocol import codec, messages, offers, packing, segments
from skydraft.protocol.limits import LOG_DIGEST_BYTES, MAX_SESSION, MAX_TEXT_TOKENS, FrameLimits

NUM_SESSIONS = 4  # numbers that a connection uses
MAX_FRAMES = 60  # of an episode
SHARE_MALFORMED = 0.8  # of the episodes; the others have many more frames
SHARE_REFUSED = 0.1  # of the absurd messages that would end an episode, how many are sent
NUM_KEYS = 64  # resume keys that are remembered, the latest
NEVER_OPENED = MAX_SESSION  # the number of a session that no episode opens

# What a field of a message may be in place of what belongs there.
_WILD: tuple[Any, ...] = (
    *(0, 1, -1, 2, 63, 64, 65, 255, 2**16, 2**20, 2**20 + 1, 2**31 - 2, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 1e-300, 1.0, 100.0, 1e300, float("inf"), float("-inf"), float("nan")),
    *(None, True, False, "", "exact", "rank:0", "rejection:256,65536", "prob:nan", "\x00\x1b[2J", "x" * 300),
    *(b"", b"\x00", b"\xff" * 8, bytes(32), bytes(70_000), [], [[]], [0] * 70, {}, {"a": 1}),
)
_RULES: tuple[AcceptanceRule, ...] = (
    *(Exact(), Exact(), Rejection(), Rejection(256, 65536), Rejection(1, 1)),
    *(Rank(), Rank(2**24), MinProb(5e-324), MinProb(1.0)),
)
_TEXTS: tuple[SamplingParams, ...] = (
    SamplingParams(),
    SamplingParams(temperature=0.8, seed=2**64 - 1, max_tokens=60),
    SamplingParams(temperature=100.0, top_k=2**24, top_p=1e-300, max_tokens=1),
    SamplingParams(temperature=5e-324, top_p=5e-324, max_tokens=200),
    SamplingParams(max_tokens=2**20),
    SamplingParams(temperature=1.0, max_tokens=4096, end_ids=tuple(range(64))),
)


def upgrade_request(key: str) -> bytes:
    """What begins a WebSocket, for who writes its frames by hand."""
    return (
        "GET /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    ).encode()


class Episode(NamedTuple):
    """What one connection sends.

    is_fatal: the cloud must refuse the last frame and close the connection, as it must not for any of the others.
    """

    frames: list[bytes]
    is_fatal: bool


class FrameFuzzer:
    """Makes episodes; the same seed and the same keys heard make the same ones.

    Args:
        mark: of the vocabulary of the cloud's model.
        limits: of the cloud.
    """

    def __init__(self, seed: int, mark: messages.VocabularyMark, limits: FrameLimits) -> None:
        self._rng = Random(seed)
        self._mark = mark
        self._limits = limits
        self._keys: deque[bytes] = deque(maxlen=NUM_KEYS)
        self._rules: dict[int, AcceptanceRule] = {}

    def hear(self, resume_key: bytes) -> None:
        """A key that a cloud gave to somebody, to be tried by everybody."""
        self._keys.append(resume_key)

    def episode(self) -> Episode:
        """What the next connection sends."""
        self._rules = {}
        if self._rng.random() < SHARE_MALFORMED:
            return self._until_refused(
                [self._open] * self._rng.randrange(2), self._malformed, 1 + self._rng.randrange(8)
            )
        openings = [self._open] * self._rng.randrange(1, NUM_SESSIONS)
        return self._until_refused(openings, self._absurd, self._rng.randrange(1, MAX_FRAMES))

    def is_refused(self, frame: bytes) -> bool:
        """Whether a cloud must close the connection over this frame."""
        try:
            codec.decode_edge_message(frame, self._limits)
        except RemoteProtocolError:
            return True
        return False

    def _until_refused(
        self, first: Sequence[Callable[[], bytes]], then: Callable[[], bytes], num_frames: int
    ) -> Episode:
        frames: list[bytes] = []
        for make in (*first, *[then] * num_frames):
            frames.append(make())
            if self.is_refused(frames[-1]):
                return Episode(frames, True)
        return Episode(frames, False)

    # No messages

    def _malformed(self) -> bytes:
        make = self._rng.choice(
            (self._random, self._truncated, self._flipped, self._longer, self._mutated, self._spliced)
        )
        return make()

    def _random(self) -> bytes:
        return self._rng.randbytes(self._rng.choice((0, 1, 2, 3, 10, 100, 1000, 20_000)))

    def _truncated(self) -> bytes:
        data = self._message()
        return data[: self._rng.randrange(len(data))]

    def _flipped(self) -> bytes:
        data = bytearray(self._message())
        for _ in range(self._rng.choice((1, 1, 2, 8))):
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return bytes(data)

    def _longer(self) -> bytes:
        return self._message() + self._rng.randbytes(self._rng.randrange(1, 9))

    def _spliced(self) -> bytes:
        """The head of one message and the tail of another."""
        head, tail = self._message(), self._message()
        return head[: self._rng.randrange(len(head))] + tail[self._rng.randrange(len(tail)) :]

    def _mutated(self) -> bytes:
        """A message of which one value, however deep inside, is another."""
        fields = msgspec.msgpack.decode(self._message())
        place = fields
        while True:
            index = self._rng.randrange(len(place))
            if not isinstance(place[index], list) or not place[index] or self._rng.random() < 0.2:
                break
            place = place[index]
        place[index] = self._rng.choice(_WILD)
        return msgspec.msgpack.encode(fields)

    # Messages

    def _message(self) -> bytes:
        return self._rng.choice((self._open, self._resume, self._offer, self._tree, self._credit, self._close))()

    def _absurd(self) -> bytes:
        makers = (
            *(self._open, self._resume, self._strange_prompt, self._strange_mark),
            *[self._offer, self._tree, self._credit] * 4,
            *(self._forced, self._oversized, self._many_forced, self._close, self._answer, self._mutated),
        )
        while self.is_refused(frame := self._rng.choice(makers)()) and self._rng.random() > SHARE_REFUSED:
            pass
        return frame

    def _open(self) -> bytes:
        number = self._number()
        self._rules[number] = self._rng.choice(_RULES)
        num_tokens = self._rng.choice((1, 3, 40, 40, 600))
        return self._opening(number, Prompt((TokenSegment(self._ids(num_tokens)),)))

    def _strange_prompt(self) -> bytes:
        segments = self._rng.choice((
            (TokenSegment(()),),
            (TokenSegment((1,)),) * 64,
            (TokenSegment(self._ids(20_000)),),
            (TokenSegment(self._ids(40_000)),),
            (TensorSegment("log_mel", "float16", (80, 10), bytes(1600)),),
            (TensorSegment("\u202e" * 200, "float32", (1,) * 8, b"\xff\xff\xff\x7f"), TokenSegment((1,))),
        ))  # fmt: skip
        return self._opening(self._number(), Prompt(segments))

    def _strange_mark(self) -> bytes:
        num_tokens = self._rng.choice((1, 63, 65, 2**16, 2**24))
        mark = messages.VocabularyMark(num_tokens, self._rng.randbytes(16))
        return self._opening(self._number(), Prompt((TokenSegment((0,) * 5),)), mark)

    def _opening(self, number: int, prompt: Prompt, mark: messages.VocabularyMark | None = None) -> bytes:
        mark = mark or self._mark
        prompt_segments = segments.to_wire(prompt, packing.id_bits(mark.num_tokens))
        rule, text = self._rules.get(number, Exact()), self._rng.choice(_TEXTS)
        return codec.encode(messages.Open(messages.PROTOCOL_VERSION, number, mark, text, str(rule), prompt_segments))

    def _resume(self) -> bytes:
        """A session of somebody else, of oneself, or of nobody; the text that it is said to have is mostly another."""
        known = self._keys and self._rng.random() < 0.8
        key = self._rng.choice(self._keys) if known else self._rng.randbytes(self._rng.choice((1, 16, 64)))
        length = self._rng.choice((0, 0, 1, 20, MAX_TEXT_TOKENS))
        digest = packing.log_digest(()) if self._rng.random() < 0.5 else self._rng.randbytes(LOG_DIGEST_BYTES)
        resume = messages.Resume(key, length, digest)
        text, rule = self._rng.choice(_TEXTS), Exact()
        version, number = messages.PROTOCOL_VERSION, self._number()
        return codec.encode(messages.Open(version, number, self._mark, text, str(rule), resume=resume))

    def _offer(self) -> bytes:
        """A chain that is stale, leaves a gap, or fits by chance; distributions where the session's rule has them."""
        number, token_ids = self._number(), self._ids(self._rng.choice((1, 1, 2, 8, 20)))
        rule = self._rules.get(number, Exact())
        distributions = None
        if rule.draft_lattice is not None:
            token_ids = token_ids[:4]
            distributions = tuple(
                LatticeDistribution((token_id,), (rule.draft_lattice.denominator,)) for token_id in token_ids
            )
        draft = core.Draft.chain(self._position(), token_ids, distributions=distributions)
        return codec.encode(offers.to_wire(draft, number, self._mark.num_tokens, rule))

    def _tree(self) -> bytes:
        """A chain, a star, a comb or anything; children of one node may have the same token."""
        num_nodes = self._rng.choice((1, 2, 3, 8, 30, 64))
        shape = self._rng.choice((self._chain, self._star, self._comb, self._bush))
        return self._draft(self._position(), self._ids(num_nodes), parents=shape(num_nodes))

    def _forced(self) -> bytes:
        """Tokens that the device says it has committed; the cloud may hold others, or hold them already."""
        num_ids = self._rng.choice((1, 5, 60, 300))
        num_forced = self._rng.choice((num_ids, num_ids, 1))
        return self._draft(self._rng.choice((0, 0, self._position())), self._ids(num_ids), num_forced=num_forced)

    def _many_forced(self) -> bytes:
        """More forced tokens than tokens."""
        forced = messages.Offer(
            0, bytes(self._rng.randrange(1, 9)), self._number(), self._rng.choice((9, MAX_TEXT_TOKENS))
        )
        return codec.encode(forced)

    def _oversized(self) -> bytes:
        num_nodes = self._rng.choice((65, 100, 1000, 5000))
        if self._rng.random() < 0.5:
            return self._draft(0, self._ids(num_nodes))
        return self._draft(0, self._ids(min(num_nodes, 1000)), parents=self._bush(min(num_nodes, 1000)))

    def _credit(self) -> bytes:
        """Up to any position: also below the text's end, below what was given before, and far beyond."""
        up_to = self._rng.choice((0, 1, 5, 30, 30, 300, MAX_TEXT_TOKENS))
        return codec.encode(messages.Generate(up_to, self._number()))

    def _close(self) -> bytes:
        return codec.encode(messages.Close(self._number()))

    def _answer(self) -> bytes:
        """What only a cloud says."""
        return codec.encode(
            self._rng.choice((
                messages.Verdict(5, 3),
                messages.Tokens(0, b"\x01\x02"),
                messages.Fault(messages.FaultCode.BUSY, "no", 0, 1.0),
            ))
        )  # fmt: skip

    def _draft(
        self, start: int, token_ids: tuple[int, ...], parents: tuple[int, ...] | None = None, num_forced: int = 0
    ) -> bytes:
        """Written by hand: `offers.to_wire` sends no tree that has the same token twice behind one node."""
        packed_ids = packing.pack(token_ids, packing.id_bits(self._mark.num_tokens))
        packed_parents = b"" if parents is None else packing.pack_parents(core.TreeShape(parents))
        return codec.encode(messages.Offer(start, packed_ids, self._number(), num_forced, packed_parents))

    def _number(self) -> int:
        return NEVER_OPENED - 1 if self._rng.random() < 0.02 else self._rng.randrange(NUM_SESSIONS)

    def _position(self) -> int:
        return self._rng.choice((0, 0, 0, 1, 2, 5, 10, 40, 1000, MAX_TEXT_TOKENS - 1, MAX_TEXT_TOKENS))

    def _ids(self, number: int) -> tuple[int, ...]:
        some = [self._rng.randrange(self._mark.num_tokens) for _ in range(min(number, 100))]
        return tuple(islice(cycle(some), number))

    def _chain(self, num_nodes: int) -> tuple[int, ...]:
        return tuple(range(num_nodes))

    def _star(self, num_nodes: int) -> tuple[int, ...]:
        return (0,) * num_nodes

    def _comb(self, num_nodes: int) -> tuple[int, ...]:
        """A chain whose every node has a leaf beside it."""
        return tuple(max(0, node - node % 2 - 1) if node > 1 else 0 for node in range(num_nodes))

    def _bush(self, num_nodes: int) -> tuple[int, ...]:
        return tuple(self._rng.randrange(node + 1) for node in range(num_nodes))


PROBE = codec.encode(messages.Generate(1, NEVER_OPENED))  # answered by a fault of this session, and harmless
