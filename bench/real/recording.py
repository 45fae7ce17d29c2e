"""Texts of the target and what the draft guesses along them, written down once: virtual time needs no models then.

Guesses off the text are recorded too, where the draft finds them probable: a device does not know that they are wrong,
and reads on from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from bench.network.model_cache import NUM_GUESSES, Opening, Path
from bench.real.pair import TextKey
from skydraft.core import SamplingParams
from skydraft.sampling.guesses import Guesses
from skydraft.text.vocabulary import Vocabulary

RECORDED = FilePath(__file__).with_name("recorded.npz")
VOCAB_SIZE = 151_665  # ids that both models know
SCORE_UNIT = 1 / 512  # nats, of a recorded score
NO_GUESS = np.iinfo(np.uint16).max


@dataclass
class RecordedText:
    """One text.

    prompt_ids: only their number matters.
    token_ids: the target's. guesses: the draft's behind the text's beginnings and behind what else it finds probable.
    """

    key: TextKey
    num_prompt_ids: int
    token_ids: Path
    guesses: dict[Path, Guesses] = field(default_factory=dict)


class RecordedMinds:
    """A target and a draft of one text, as they were when it was recorded (`bench.network.model_cache.Thinking`).

    Attributes:
        num_asked: how many times guesses were asked for.
        num_unrecorded: of these, how many times they were not recorded and those nearest above stood in. None of these
            paths is the text, so no token depends on them.
    """

    def __init__(self, text: RecordedText, row_size: int) -> None:
        sampling = SamplingParams(temperature=text.key.temperature, seed=text.key.seed, max_tokens=len(text.token_ids))
        self.opening = Opening((0,) * text.num_prompt_ids, sampling)
        self.vocabulary = _vocabulary()
        self.row_size = row_size
        self.num_asked = self.num_unrecorded = 0
        self._text = text

    def choice(self, path: Path) -> int:
        """The target's, after a path of the text; behind others any: what hangs from a wrong token is never kept."""
        text_ids, length = self._text.token_ids, len(path)
        return text_ids[length] if length < len(text_ids) and text_ids[:length] == path else 0

    def guesses(self, path: Path, count: int) -> Guesses:
        self.num_asked += 1
        known = self._text.guesses.get(path)
        if known is None:
            self.num_unrecorded += 1
        while known is None:
            path = path[:-1]
            known = self._text.guesses.get(path)
        return Guesses(known.token_ids[:count], known.scores[:count])

    def text(self) -> Path:
        return self._text.token_ids

    def close(self) -> None:
        """Nothing is open."""


@lru_cache(maxsize=1)
def _vocabulary() -> Vocabulary:
    """As large as the models', so that ids take as many bits on the wire."""
    return Vocabulary("recorded", tuple(map(str, range(VOCAB_SIZE))), VOCAB_SIZE)


@dataclass(frozen=True)
class Recording:
    """All texts. Their ids count the tokens that occur; token_ids: what each is in the models' vocabulary."""

    texts: Sequence[RecordedText]
    token_ids: Sequence[int]

    def minds(self, text: RecordedText) -> RecordedMinds:
        return RecordedMinds(text, len(self.token_ids))


def save_recording(texts: Sequence[RecordedText], path: FilePath = RECORDED) -> None:
    """Pack texts with the models' ids into one file."""
    ids = sorted({0}.union(*(text.token_ids for text in texts), *(_guessed(text) for text in texts)))
    number = {token_id: index for index, token_id in enumerate(ids)}
    arrays = [_pack(text, number) for text in texts]
    np.savez_compressed(
        path,
        about=np.array(json.dumps([[*text.key, text.num_prompt_ids] for text in texts])),
        token_ids=np.array(ids, np.uint32),
        text_lengths=np.array([len(text.token_ids) for text in texts], np.uint16),
        text_ids=np.array([number[token_id] for text in texts for token_id in text.token_ids], np.uint16),
        num_nodes=np.array([len(text.guesses) for text in texts], np.uint16),
        parents=np.concatenate([each[0] for each in arrays]),
        node_ids=np.concatenate([each[1] for each in arrays]),
        guess_ids=np.concatenate([each[2] for each in arrays]),
        scores=np.concatenate([each[3] for each in arrays]),
    )


def load_recording(path: FilePath = RECORDED) -> Recording:
    """Raises: OSError: there is none."""
    with np.load(path) as file:
        data: dict[str, Any] = {name: file[name] for name in file.files}
    texts, first_id, first_node = [], 0, 0
    for index, (kind, number, temperature, num_prompt_ids) in enumerate(json.loads(str(data["about"]))):
        num_ids, num_nodes = int(data["text_lengths"][index]), int(data["num_nodes"][index])
        token_ids = tuple(data["text_ids"][first_id : first_id + num_ids].tolist())
        nodes = slice(first_node, first_node + num_nodes)
        guesses = _unpack(*(data[name][nodes].tolist() for name in ("parents", "node_ids", "guess_ids", "scores")))
        texts.append(RecordedText(TextKey(kind, number, temperature), num_prompt_ids, token_ids, guesses))
        first_id, first_node = first_id + num_ids, first_node + num_nodes
    return Recording(texts, data["token_ids"].tolist())


def _guessed(text: RecordedText) -> Iterator[int]:
    for guesses in text.guesses.values():
        yield from guesses.token_ids


def _pack(text: RecordedText, number: dict[int, int]) -> tuple[np.ndarray[Any, Any], ...]:
    """Nodes of one text: the index of the node above, the last token of the path, the guesses and their scores."""
    index = {path: at for at, path in enumerate(text.guesses)}
    count = len(index)
    parents, node_ids = np.zeros(count, np.uint16), np.zeros(count, np.uint16)
    guess_ids, scores = np.full((count, NUM_GUESSES), NO_GUESS, np.uint16), np.zeros((count, NUM_GUESSES), np.int16)
    for path, at in index.items():
        if path:
            parents[at], node_ids[at] = index[path[:-1]], number[path[-1]]
        known = text.guesses[path]
        guess_ids[at, : len(known.token_ids)] = [number[token_id] for token_id in known.token_ids]
        scores[at, : len(known.scores)] = np.clip(np.rint(np.array(known.scores) / SCORE_UNIT), -32768, 32767)
    return parents, node_ids, guess_ids, scores


def _unpack(
    parents: list[int], node_ids: list[int], guess_ids: list[list[int]], scores: list[list[int]]
) -> dict[Path, Guesses]:
    paths: list[Path] = []
    guesses: dict[Path, Guesses] = {}
    for parent, node_id, ids, units in zip(parents, node_ids, guess_ids, scores, strict=True):
        path = (*paths[parent], node_id) if paths else ()  # the first is the root, and parents come first
        paths.append(path)
        count = sum(token_id != NO_GUESS for token_id in ids)
        guesses[path] = Guesses(tuple(ids[:count]), tuple(unit * SCORE_UNIT for unit in units[:count]))
    return guesses
