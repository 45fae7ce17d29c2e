"""Models that an SGLang server runs. Written from its interface (version 0.5.23); untested against a live server.

A slot is a log of token ids (`external/text_engine`); the server's radix cache keeps what it computed between two
rounds. A round is one `POST /generate` for the texts of all sessions: a branch of a draft is one text, of which the
server tells the largest log-probabilities after each of its last tokens. They serve as logits: a choice does not change
when the same number is added to a whole row.

Whole rows are never asked for, since each number travels as text: a session that needs more than MAX_LOGITS of a row is
refused when its slot is opened. Served exactly are the rules `exact` and `rejection` at temperature 0 or with a top_k
of 1 to 256 (and any top_p), and `rank:R` with R up to 256 at such a temperature and top_k; not `prob:X`, nor sampling
without a top_k. "Exactly" is up to the server: in half precision its numbers change with what else it computes at the
time, unless it was started with --enable-deterministic-inference.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
import msgspec
import numpy as np

from skydraft.engines.base import RowPromise
from skydraft.engines.external.sources import SGLANG_PREFIX, SglangSource
from skydraft.engines.external.text_engine import Floats, TextEngine, TextQuestion
from skydraft.engines.settings import EngineSettings
from skydraft.errors import EngineError, ModelLoadError
from skydraft.text.checkpoint import TOKENIZER_FILES, Checkpoint, find_checkpoint, require_rollback
from skydraft.text.tokenizer import FolderTokenizer

KEY_VARIABLE = "SGLANG_API_KEY"
VERSION = "0.5.23"
MAX_LOGITS = 256
ROW_PROMISE = RowPromise(False, "the server batches rows with those of others, and its radix cache keeps some of them")
TIMEOUT = httpx.Timeout(120.0, connect=5.0)  # seconds; the server may be busy with the prompts of others

# All that a server could take from the model's generation_config.json is stated: penalties would change the last row.
SAMPLING = {
    "max_new_tokens": 1,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_new_tokens": 0,
    "ignore_eos": True,
    "skip_special_tokens": False,
}

Entry = tuple[float, int, str | None]  # log-probability, token id, the token's text where it was asked for
Decoded = TypeVar("Decoded")


class FinishReason(msgspec.Struct):
    """Why the server stopped writing."""

    type: str
    message: str = ""


class MetaInfo(msgspec.Struct):
    """What the server says about a text.

    input_top_logprobs: an entry for each token from logprob_start_len on: of the tokens that could have stood there.
        The first is null.
    output_top_logprobs: of those that could follow.
    """

    input_top_logprobs: list[list[Entry] | None]
    output_top_logprobs: list[list[Entry] | None]
    finish_reason: FinishReason | None = None


class TextAnswer(msgspec.Struct):
    """The server's answer to one text."""

    meta_info: MetaInfo


class ServerInfo(msgspec.Struct):
    """What the server says of itself.

    max_req_input_len: a text has fewer tokens.
    """

    model_path: str
    max_req_input_len: int
    tokenizer_path: str | None = None


def load_sglang(server: SglangSource, settings: EngineSettings) -> TextEngine:
    """Connect to a server; its key is in the environment variable SGLANG_API_KEY, where it wants one.

    Of the settings num_slots and max_length count; the server decides on the others.

    Raises:
        ModelLoadError: the server cannot be reached, or the model's tokenizer cannot be found here.
        ConfigError: max_length is more than the server takes.
    """
    client = _client(server.url)
    try:
        info = _server_info(client)
        checkpoint = _find_tokenizer(server, info)
        require_rollback(checkpoint)
        vocabulary = FolderTokenizer(checkpoint).vocabulary
        limits = settings.limits(f"the server at {server.url}", info.max_req_input_len - 1, "its max_req_input_len")
    except BaseException:
        client.close()
        raise
    reader = SglangReader(client, vocabulary.size)
    weakref.finalize(reader, client.close)
    return TextEngine(reader, vocabulary, limits, ROW_PROMISE)


class SglangReader:
    """A TextReader on a server.

    Args:
        client: whose base URL is the server's.
    """

    max_logits = MAX_LOGITS

    def __init__(self, client: httpx.Client, vocabulary_size: int) -> None:
        self._client = client
        self._vocabulary_size = vocabulary_size

    def read(self, questions: Sequence[TextQuestion]) -> list[Floats]:
        request = {
            "input_ids": [list(question.token_ids) for question in questions],
            "sampling_params": SAMPLING,
            "return_logprob": True,
            "logprob_start_len": [len(question.token_ids) - question.num_rows for question in questions],
            "top_logprobs_num": [question.num_asked(self._vocabulary_size) for question in questions],
            "stream": False,
        }
        answers = _ask(self._client, "POST", "/generate", list[TextAnswer], request)
        if len(answers) != len(questions):
            raise _misunderstood(self._client, f"{len(answers)} answers to {len(questions)} texts")
        return [self._rows(question, answer.meta_info) for question, answer in zip(questions, answers, strict=True)]

    def _rows(self, question: TextQuestion, meta: MetaInfo) -> Floats:
        if meta.finish_reason is not None and meta.finish_reason.type == "abort":
            raise EngineError(f"the SGLang server at {self._client.base_url} gave up: {meta.finish_reason.message}")
        listed = [*meta.input_top_logprobs[1:], *meta.output_top_logprobs[:1]]
        if len(listed) != question.num_rows or not all(listed):
            raise _misunderstood(self._client, f"{len(listed)} rows where {question.num_rows} were asked for")
        rows = np.full((question.num_rows, self._vocabulary_size), -np.inf, dtype=np.float32)
        for row, entries in zip(rows, listed, strict=True):
            for log_prob, token_id, _ in entries or ():
                if not 0 <= token_id < self._vocabulary_size:
                    raise _misunderstood(self._client, f"token id {token_id}, the tokenizer has {len(row)}")
                row[token_id] = log_prob
        return rows


def _client(url: str) -> httpx.Client:
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT)


def _server_info(client: httpx.Client) -> ServerInfo:
    try:
        try:
            return _ask(client, "GET", "/server_info", ServerInfo)
        except _NotFound:  # before version 0.5.6 it had another name
            return _ask(client, "GET", "/get_server_info", ServerInfo)
    except EngineError as error:
        raise ModelLoadError(str(error)) from error


def _find_tokenizer(server: SglangSource, info: ServerInfo) -> Checkpoint:
    source = server.tokenizer or info.tokenizer_path or info.model_path
    try:
        return find_checkpoint(source, "target", TOKENIZER_FILES)
    except ModelLoadError as error:
        raise ModelLoadError(
            f"the tokenizer of the model at {server.url} cannot be found here: {error}; give it as "
            f"{SGLANG_PREFIX}{server.url}#FOLDER"
        ) from error


def _ask(client: httpx.Client, method: str, path: str, answer_type: type[Decoded], body: Any = None) -> Decoded:
    """One request.

    Raises:
        EngineError: the server cannot be reached, refuses, or answers something else.
    """
    content = None if body is None else msgspec.json.encode(body)
    try:
        response = client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise EngineError(
            f"the SGLang server at {client.base_url} did not answer ({reason}): check that it runs and can be reached"
        ) from error
    if response.status_code == httpx.codes.NOT_FOUND:
        raise _NotFound(f"there is no SGLang server at {client.base_url}: it does not know {path}")
    if response.is_error:
        raise EngineError(f"the SGLang server at {client.base_url} refused {path}: {_refusal(response)}")
    try:
        return msgspec.json.decode(response.content, type=answer_type)
    except msgspec.DecodeError as error:
        raise _misunderstood(client, str(error)) from error


class _NotFound(EngineError):
    """The server does not know a path."""


def _refusal(response: httpx.Response) -> str:
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return f"it wants a key, or another one than the environment variable {KEY_VARIABLE} has"
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"


def _misunderstood(client: httpx.Client, what: str) -> EngineError:
    return EngineError(
        f"the server at {client.base_url} answered otherwise than SGLang {VERSION} does ({what}): use that version"
    )
