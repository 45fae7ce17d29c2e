"""A device's session and a cloud's session registry, joined in memory by two queues of real frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

from skydraft.cloud.session_registry import SessionRegistry
from skydraft.config import CloudSettings
from skydraft.core import Prompt, SamplingParams, TokenSegment, TreeShape
from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.engines.base import Engine, EngineLimits, Extension, PromptChunk
from skydraft.engines.emulated.table import Floats, TableEngine
from skydraft.engines.emulated.table_spec import load_table
from skydraft.engines.emulated.words import WordTokenizer
from skydraft.protocol import codec, messages
from skydraft.protocol.limits import FrameLimits
from skydraft.sampling.choice import target_choices
from skydraft.sampling.shaping import History, shape_logits
from skydraft.text.token_reader import TokenReader
from skydraft.text.tokenizer import Tokenizer

PROMPT = Prompt((TokenSegment((1, 2, 3)),))
LIMITS = FrameLimits()


def table(model: str, num_slots: int = 8, max_length: int = 4096) -> TableEngine:
    return load_table(model, EngineLimits(num_slots, max_length))


class CountingTable(TableEngine):
    """Counts what it is asked to do."""

    num_passes = num_prompt_tokens = num_tokens_extended = 0

    def extend(self, extensions: Sequence[Extension | PromptChunk]) -> list[Floats]:
        self.num_passes += 1
        for item in extensions:
            if isinstance(item, PromptChunk):
                self.num_prompt_tokens += item.num_tokens
            else:
                self.num_tokens_extended += len(item.token_ids)
        return super().extend(extensions)


def counting(engine: TableEngine) -> CountingTable:
    """The same table in an engine that counts."""
    return CountingTable(engine._table, engine._order, limits=engine.limits, vocabulary=engine.vocabulary)


class Pieces(WordTokenizer):
    """Tokens are parts of a text, and nothing stands between them."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.vocabulary.token(token_id) or "" for token_id in token_ids)

    def spelling(self) -> Sequence[bytes]:
        return [(token or "").encode() for token in self.vocabulary.tokens]


class Linked:
    """Frames move only when told to, and are lost when the link is cut."""

    def __init__(
        self,
        session: EdgeSession,
        engine: Engine,
        settings: CloudSettings | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.session = session
        self.now_s = 0.0
        self.registry = SessionRegistry(
            engine,
            settings or CloudSettings(),
            clock=lambda: self.now_s,
            reader=TokenReader(tokenizer or WordTokenizer(engine.vocabulary)),
        )
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.connection = 0

    def send(self, message: messages.EdgeMessage) -> None:
        self.up.append(codec.encode(message))

    def send_due(self) -> None:
        """What the session lists."""
        for message in self.session.to_send():
            self.send(message)

    def carry_up(self) -> None:
        if self.up:
            message = codec.decode_edge_message(self.up.popleft(), LIMITS)
            self._reply(self.registry.receive(self.connection, message))

    def think(self) -> bool:
        """Let the cloud run one forward pass; returns whether there was one to run."""
        was_busy = self.registry.is_busy
        self._reply(self.registry.step())
        return was_busy

    def carry_down(self) -> None:
        if self.down:
            self.session.receive(codec.decode_cloud_message(self.down.popleft(), LIMITS))

    def settle(self) -> None:
        """Until nothing moves any more."""
        is_moving = True
        while is_moving:
            while self.up:
                self.carry_up()
            is_moving = self.think()
            while self.down:
                self.carry_down()
                is_moving = True

    def open(self) -> None:
        """As often as it takes: a cloud that forgot the session wants its prompt again."""
        while self.session.phase is Phase.APART:
            self.send(self.session.open())
            self.settle()

    def cut(self) -> None:
        """Lose the connection and all that is on its way."""
        self.up.clear()
        self.down.clear()
        self.session.disconnect()
        self.registry.disconnect(self.connection)
        self.connection += 1

    def forget(self) -> None:
        """The cloud loses its state, once the device is gone."""
        self.cut()
        self.now_s += 1e9
        self.registry.expire()

    def _reply(self, replies: Sequence[tuple[int, messages.CloudMessage]]) -> None:
        self.down.extend(codec.encode(message) for connection, message in replies if connection == self.connection)


def cloud_only(
    engine: Engine,
    sampling: SamplingParams,
    prompt: Prompt = PROMPT,
    forced: Sequence[int] = (),
    tokenizer: Tokenizer | None = None,
) -> list[int]:
    """What the engine writes alone, one token at a time, with nothing of sessions or batches in between.

    Args:
        forced: how the text begins; the engine only goes on.
    """
    slot, logits = engine.open(prompt)[:2]
    reader = TokenReader(tokenizer or WordTokenizer(engine.vocabulary))
    token_ids: list[int] = list(forced)
    if forced:
        logits = engine.extend([Extension.chain(slot, token_ids)])[0][-1]
    while not sampling.is_end(token_ids):
        matcher = reader.matcher(sampling)  # a new one: nothing of it was forked or rolled back
        if matcher is not None:
            matcher.follow_text(token_ids)
            if matcher.has_ended:
                break
        masks = None if matcher is None else matcher.masks([()])
        row = shape_logits(logits[None, :], sampling, History(token_ids, [()]), masks)
        token_ids += target_choices(row, sampling, [len(token_ids)])
        (rows,) = engine.extend([Extension.chain(slot, token_ids[-1:])])
        logits = rows[-1]
    engine.close(slot)
    return token_ids


def random_tree(rng: Random, truth: Sequence[int], start: int, num_nodes: int) -> tuple[list[int], TreeShape]:
    """Token ids below 8 and the shape of a random tree; its tokens are often what the truth has at their depth."""
    token_ids: list[int] = []
    parents: list[int] = []
    depths = [start]
    for node in range(num_nodes):
        parent = rng.choice([node, rng.randrange(node + 1)])
        taken = {token_ids[other] for other in range(node) if parents[other] == parent}
        right = truth[depths[parent]] if depths[parent] < len(truth) else None
        token_id = right if right is not None and rng.random() < 0.7 else rng.randrange(8)
        if token_id in taken:
            break
        token_ids.append(token_id)
        parents.append(parent)
        depths.append(depths[parent] + 1)
    return token_ids, TreeShape(tuple(parents))
