"""The baseline that many begin with: every round sends the whole context again, as JSON over HTTP, and waits.

Its server keeps the connection and a prefix cache, so that it computes no more than skydraft's cloud does: only the
bytes and the waiting differ. `python -m bench.network.naive --model MODEL` serves.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import msgspec

from skydraft.core import Exact, Prompt, SamplingParams, TokenSegment
from skydraft.edge.drafter import LoneDrafter
from skydraft.engines.base import Engine, Extension, Slot
from skydraft.engines.emulated.paced import PacedEngine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.sampling.choice import target_choices
from skydraft.transport.link.pipe import Address

ANNOUNCEMENT = "naive listens on "
BLOCK_LENGTH = 4
ANSWER_S = 120.0


class Question(msgspec.Struct, frozen=True):
    """context: the prompt and the text so far. draft: what may follow."""

    context: list[int]
    num_prompt: int
    draft: list[int]
    temperature: float
    seed: int


class Answer(msgspec.Struct, frozen=True):
    """accepted: how many tokens of the draft. token: the target's choice after them."""

    accepted: int
    token: int


# The server


class Judge:
    """One text at a time on one slot, which holds what the last question had in common with this one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._slot: Slot | None = None
        self._prompt: tuple[int, ...] = ()
        self._held: list[int] = []

    def judge(self, question: Question) -> Answer:
        with self._lock:
            slot = self._slot_for(tuple(question.context[: question.num_prompt]))
            text = [*question.context[question.num_prompt :], *question.draft]
            length = len(text) - len(question.draft)
            num_kept = _num_common(self._held, text[: max(0, length - 1)])
            self._engine.crop(slot, num_kept)
            (rows,) = self._engine.extend([Extension.chain(slot, text[num_kept:])]) if text[num_kept:] else ([],)
            self._held = text
            rows = list(rows[max(0, length - 1 - num_kept) :])
            if not length:
                rows = [self._prompt_row, *rows]
            return _judge(question, rows, length)

    def _slot_for(self, prompt: tuple[int, ...]) -> Slot:
        if self._slot is None or prompt != self._prompt:
            if self._slot is not None:
                self._engine.close(self._slot)
            self._slot, self._prompt_row = self._engine.open(Prompt((TokenSegment(prompt),)))
            self._prompt, self._held = prompt, []
        return self._slot


def _judge(question: Question, rows: Sequence[object], start: int) -> Answer:
    sampling = SamplingParams(temperature=question.temperature, seed=question.seed)
    for index, row in enumerate(rows):
        token = int(target_choices(row[None, :], sampling, [start + index])[0])  # type: ignore[index]
        if index == len(question.draft) or token != question.draft[index]:
            break
    return Answer(index, token)


def _num_common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))


def make_server(engine: PacedEngine) -> ThreadingHTTPServer:
    """POST /verify takes a Question and gives an Answer; GET /healthz tells the pace as a cloud does."""
    judge = Judge(engine)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one segment

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(judge.judge(msgspec.json.decode(body, type=Question)))

        def do_GET(self) -> None:
            self._answer({"pace": engine.counts})

        def _answer(self, answer: object) -> None:
            data = msgspec.json.encode(answer)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description="The naive baseline's server.")
    parser.add_argument("--model", required=True)
    engine = load_engine(parser.parse_args().model, "target", EngineSettings(num_threads=1))
    assert isinstance(engine, PacedEngine), "the baseline is measured at a pace: give --model paced:...:MODEL"
    server = make_server(engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{ANNOUNCEMENT}127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


# The device


class Naive(NamedTuple):
    """A text written so.

    up, down: bytes of HTTP bodies.
    """

    token_ids: list[int]
    rounds: int
    positions: int
    up: int
    down: int


def write_naively(
    address: Address, engine: Engine, prompt_ids: Sequence[int], sampling: SamplingParams, show: Callable[[int], None]
) -> Naive:
    """Write a text: draft, send everything, wait.

    Args:
        engine: the draft model.
        show: told how many tokens came.
    Raises:
        OSError, HTTPException: there is no such server, or it is lost.
    """
    drafter = LoneDrafter(engine, sampling, Exact())
    connection = http.client.HTTPConnection(*address, timeout=ANSWER_S)
    text: list[int] = []
    rounds = positions = up = down = 0
    try:
        drafter.open(Prompt((TokenSegment(tuple(prompt_ids)),)))
        while len(text) < sampling.max_tokens:
            draft = drafter.draft(
                text, min(BLOCK_LENGTH, sampling.max_tokens - len(text)), engine.vocabulary.num_tokens
            )
            block = list(draft.token_ids)
            question = Question([*prompt_ids, *text], len(prompt_ids), block, sampling.temperature, sampling.seed)
            body = msgspec.json.encode(question)
            connection.request("POST", "/verify", body, {"Content-Type": "application/json"})
            data = connection.getresponse().read()
            answer = msgspec.json.decode(data, type=Answer)
            new_ids = [*block[: answer.accepted], answer.token][: sampling.max_tokens - len(text)]
            text += new_ids
            rounds, positions = rounds + 1, positions + 1 + len(block)
            up, down = up + len(body), down + len(data)
            show(len(new_ids))
    finally:
        connection.close()
        drafter.close()
    return Naive(text, rounds, positions, up, down)


if __name__ == "__main__":
    main()
