"""HTTP servers in place of an SGLang server: one plays a record back, one computes as the interface describes.

Both were written from SGLang 0.5.23's documentation and source (`GenerateReqInput`, the logprob fields of `meta_info`,
`validate_input_length`), not from traffic of a live server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import numpy as np

Json = Any


class Reply(NamedTuple):
    status: int
    body: Json


Answerer = Callable[[str, str, Json], Reply]  # method, path, body -> reply


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not wait for its answer is part of a test."""


@contextmanager
def serving(answer: Answerer) -> Iterator[str]:
    """Serve on a free port of this machine; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Json) -> None:
            reply = answer(self.command, self.path, body)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Recorded:
    """Plays a record back, in order; refuses a request that differs from the recorded one."""

    def __init__(self, exchanges: Sequence[Json]) -> None:
        self._left = list(exchanges)
        self.complaints: list[str] = []

    def __call__(self, method: str, path: str, body: Json) -> Reply:
        if not self._left:
            return self._refuse(f"a request after the record's end: {method} {path} {body}")
        expected = self._left.pop(0)
        if [method, path, body] != expected["request"]:
            return self._refuse(f"{method} {path} {body} differs from the recorded {expected['request']}")
        return Reply(expected["status"], expected["response"])

    def check(self) -> None:
        assert not self.complaints
        assert not self._left

    def _refuse(self, complaint: str) -> Reply:
        self.complaints.append(complaint)
        return Reply(500, {"error": {"message": complaint}})


class Computing:
    """Answers from a function of the text.

    Args:
        row_after: token ids -> logits [vocab_size].
        max_req_input_len: texts must be shorter.
    """

    def __init__(
        self,
        row_after: Callable[[Sequence[int]], np.ndarray],
        tokenizer_path: str,
        max_req_input_len: int = 200,
    ) -> None:
        self._row_after = row_after
        self._max_input_len = max_req_input_len
        self._info = {
            "model_path": "/models/served",
            "tokenizer_path": tokenizer_path,
            "max_req_input_len": max_req_input_len,
            "max_total_num_tokens": 10000,
            "version": "0.5.23",
        }
        self.num_texts = 0
        self.widths: set[int] = set()

    def __call__(self, method: str, path: str, body: Json) -> Reply:
        if (method, path) == ("GET", "/server_info"):
            return Reply(200, self._info)
        if (method, path) != ("POST", "/generate"):
            return Reply(404, {"detail": "Not Found"})
        texts, starts, widths = body["input_ids"], body["logprob_start_len"], body["top_logprobs_num"]
        longest = max(map(len, texts))
        if longest >= self._max_input_len:
            return Reply(400, {"error": {"message": f"Input length ({longest} tokens) exceeds the maximum"}})
        self.num_texts += len(texts)
        self.widths.update(widths)
        return Reply(200, [self._answer(*item) for item in zip(texts, starts, widths, strict=True)])

    def _answer(self, token_ids: list[int], start: int, width: int) -> Json:
        """What could have stood at each position from `start` on, but for that itself; then what could follow."""
        inputs = [self._top(token_ids[:position], width) for position in range(start + 1, len(token_ids))]
        outputs = self._top(token_ids, width)
        return {
            "text": "",
            "output_ids": [outputs[0][1]],
            "meta_info": {
                "id": "0",
                "finish_reason": {"type": "length", "length": 1},
                "prompt_tokens": len(token_ids),
                "completion_tokens": 1,
                "cached_tokens": start,
                "input_token_logprobs": [[None, token_ids[start], None]],
                "output_token_logprobs": [outputs[0]],
                "input_top_logprobs": [None, *inputs],
                "output_top_logprobs": [outputs],
            },
        }

    def _top(self, token_ids: Sequence[int], width: int) -> list[list[Any]]:
        logits = self._row_after(token_ids)
        log_probs = (logits - np.log(np.exp(logits.astype(np.float64)).sum())).astype(np.float32)
        return [[float(log_probs[i]), int(i), None] for i in np.argsort(-log_probs, kind="stable")[:width]]
