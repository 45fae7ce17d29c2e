import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import cast

import httpx
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from skydraft.core import AcceptanceRule, Exact, MinProb, Prompt, Rank, Rejection, SamplingParams
from skydraft.core.tree_shape import TreeShape
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Engine, Extension, NarrowEngine, Prefilled
from skydraft.engines.external import sglang
from skydraft.engines.external.text_engine import TIE_MARGIN, TextEngine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.errors import CloudFault, ConfigError, EngineError, ModelLoadError
from tests.engines.folders import word_tokenizer
from tests.engines.operations import RandomOperations, text_prompt
from tests.engines.sglang_stand_in import Answerer, Computing, Json, Recorded, Reply, serving
from tests.engines.test_text_engine import from_scratch, row_after
from tests.linked import PROMPT, Linked, cloud_only, random_tree
from tests.waiting import PATIENCE_S

EXCHANGE = Path(__file__).with_name("sglang_exchange.json")
Start = Callable[..., TextEngine]


def save_tokenizer(folder: Path, vocab_size: int) -> Path:
    word_tokenizer(vocab_size).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer with more tokens than a server tells logits of."""
    return save_tokenizer(tmp_path, 300)


def close(engine: Engine) -> None:
    """Its connections to the server."""
    assert isinstance(engine, TextEngine)
    assert isinstance(engine._reader, sglang.SglangReader)
    engine._reader._client.close()


@pytest.fixture
def start(tokenizer: Path) -> Iterator[Start]:
    """Serve answers and load an engine that asks for them."""
    with ExitStack() as stack:

        def load(answer: Answerer, **settings: object) -> TextEngine:
            url = stack.enter_context(serving(answer))
            engine = load_engine(f"sglang:{url}#{tokenizer}", "target", replace(EngineSettings(), **settings))
            assert isinstance(engine, TextEngine)
            stack.callback(close, engine)
            return engine

        yield load


def wide_row_after(token_ids: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(list(token_ids)).normal(scale=3, size=300).astype(np.float32)


def test_the_recorded_exchange_is_asked_for_and_understood(start: Start) -> None:
    recorded = Recorded(json.loads(EXCHANGE.read_text()))
    engine = start(recorded, num_slots=2)
    first, second = engine.open_narrow(text_prompt(5, 6, 7), 1), engine.open_narrow(text_prompt(8), 3)
    chain, tree = engine.extend(
        [Extension.chain(first.slot, [9, 10, 11]), Extension(second.slot, [20, 21, 22], TreeShape((0, 0, 1)))]
    )
    engine.keep_path(second.slot, 0, [0, 2])
    (last,) = engine.extend([Extension.chain(second.slot, [30])])
    recorded.check()
    assert engine.limits == (2, 199)
    assert [row.argmax() for row in [first.logits, second.logits, *chain, *tree, *last]] == [
        wide_row_after(text).argmax()
        for text in [
            [5, 6, 7],
            [8],
            [5, 6, 7, 9],
            [5, 6, 7, 9, 10],
            [5, 6, 7, 9, 10, 11],
            [8, 20],
            [8, 21],
            [8, 20, 22],
            [8, 20, 22, 30],
        ]
    ]
    assert [np.isfinite(row).sum() for row in (chain[0], tree[0])] == [17, 19]


def test_a_request_that_differs_from_the_record_is_refused(start: Start) -> None:
    recorded = Recorded(json.loads(EXCHANGE.read_text()))
    engine = start(recorded)
    with pytest.raises(EngineError, match=r"refused /generate: .*differs from the recorded"):
        engine.open_narrow(text_prompt(5, 6, 8), 1)


def test_ragged_batches_of_chains_and_trees_have_the_rows_of_texts_read_from_scratch(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path, 24)
    with serving(Computing(row_after, str(folder))) as url:
        engine = load_engine(f"sglang:{url}", "target", EngineSettings(num_slots=4))

        def log_probs(prompt: Prompt, token_ids: list[int]) -> np.ndarray:
            rows: np.ndarray = from_scratch(prompt, token_ids).astype(np.float64)
            rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
            return rows

        operations = RandomOperations(engine, log_probs, seed=3, vocab_size=24, tolerance=1e-5)
        operations.run(40)
        close(engine)
    assert operations.largest_difference > 0


@pytest.mark.parametrize(
    ("sampling", "rule"),
    [
        (SamplingParams(max_tokens=20), Exact()),
        (SamplingParams(temperature=0.9, top_k=12, top_p=0.9, seed=3, max_tokens=20), Exact()),
    ],
)
def test_a_hybrid_text_equals_the_texts_own_model(start: Start, sampling: SamplingParams, rule: Exact) -> None:
    computing = Computing(wide_row_after, "unused")
    engine = start(computing, num_slots=2)
    truth = cloud_only(cast(Engine, _Whole(engine)), sampling)
    linked, rng = Linked(EdgeSession(engine.vocabulary, PROMPT, sampling, rule), engine), Random(1)
    linked.open()
    computing.widths.clear()
    while not linked.session.is_complete:
        offer = random_tree(rng, truth, len(linked.session.token_ids), rng.randint(1, 6))
        linked.session.offer(*offer)
        linked.send_due()
        linked.settle()
    assert list(linked.session.token_ids) == truth
    assert computing.widths == {max(1, sampling.top_k) + TIE_MARGIN}


class _Whole:
    """Opens slots of the widest rows that a server tells."""

    def __init__(self, engine: NarrowEngine) -> None:
        self._engine = engine
        self.vocabulary, self.extend, self.close = engine.vocabulary, engine.extend, engine.close

    def open(self, prompt: Prompt) -> Prefilled:
        return self._engine.open_narrow(prompt, sglang.MAX_LOGITS)


def write(linked: Linked) -> None:
    linked.open()
    linked.session.give_credit(5)
    linked.send_due()
    linked.settle()


@pytest.mark.parametrize(
    ("sampling", "rule"),
    [
        (SamplingParams(temperature=0.9), Exact()),
        (SamplingParams(temperature=0.9, top_p=0.5), Rejection()),
        (SamplingParams(temperature=0.9, top_k=257), Exact()),
        (SamplingParams(), Rank(257)),
        (SamplingParams(), MinProb(0.1)),
    ],
)
def test_a_session_that_needs_more_logits_than_a_server_tells_is_refused_before_a_token(
    start: Start, sampling: SamplingParams, rule: AcceptanceRule
) -> None:
    computing = Computing(wide_row_after, "unused")
    engine = start(computing)
    linked = Linked(EdgeSession(engine.vocabulary, PROMPT, sampling, rule), engine)
    with pytest.raises(CloudFault, match="gives at most the 256 largest logits"):
        write(linked)
    assert not computing.num_texts
    assert not linked.session.token_ids


def test_the_whole_of_a_batch_is_one_request(start: Start) -> None:
    requests: list[str] = []
    computing = Computing(wide_row_after, "unused")

    def noted(method: str, path: str, body: Json) -> Reply:
        requests.append(path)
        return computing(method, path, body)

    engine = start(noted, num_slots=3)
    slots = [engine.open_narrow(text_prompt(5, length), 1).slot for length in range(3)]
    requests.clear()
    engine.extend([Extension.chain(slot, [7, 8]) for slot in slots])
    assert len(requests) == 1


def test_what_the_server_refuses_is_said_in_its_words(start: Start) -> None:
    engine = start(Computing(wide_row_after, "unused", max_req_input_len=6), max_length=5)
    assert engine.limits.max_length == 5
    slot = engine.open_narrow(text_prompt(5, 6), 1).slot
    engine._book.limits = engine._book.limits._replace(max_length=99)  # as if the server had been started anew
    with pytest.raises(EngineError, match=r"refused /generate: Input length \(7 tokens\) exceeds"):
        engine.extend([Extension.chain(slot, [7, 8, 9, 10, 11])])


def test_a_shorter_server_than_the_settings_want_is_refused(tokenizer: Path) -> None:
    with (
        serving(Computing(wide_row_after, "unused", max_req_input_len=50)) as url,
        pytest.raises(ConfigError, match="takes at most 49 tokens .its max_req_input_len. and max_length is 60"),
    ):
        load_engine(f"sglang:{url}#{tokenizer}", "target", EngineSettings(max_length=60))


def answering(reply: Reply) -> Answerer:
    """Says what it is, and then this."""
    computing = Computing(wide_row_after, "unused")
    return lambda method, path, body: computing(method, path, body) if method == "GET" else reply


def good_answer(**changes: object) -> list[dict[str, object]]:
    meta = {"input_top_logprobs": [None], "output_top_logprobs": [[[-1.0, 7, None]]], **changes}
    return [{"text": "", "meta_info": meta}]


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(200, b"<html>"), "answered otherwise than SGLang"),
        (Reply(200, {}), "answered otherwise than SGLang"),
        (Reply(200, []), "0 answers to 1 texts"),
        (Reply(200, good_answer(output_top_logprobs=[])), "0 rows where 1 were asked for"),
        (Reply(200, good_answer(output_top_logprobs=[None])), "1 rows where 1 were asked for"),
        (Reply(200, good_answer(output_top_logprobs=[[[-1.0, 300, None]]])), "token id 300"),
        (Reply(200, good_answer(output_top_logprobs=[[[-1.0, -1, None]]])), "token id -1"),
        (Reply(200, good_answer(output_top_logprobs=[[[None, 1, None]]])), "answered otherwise than SGLang"),
        (Reply(200, good_answer(finish_reason={"type": "abort", "message": "too busy"})), "gave up: too busy"),
        (Reply(401, {"error": "Unauthorized"}), "wants a key.*SGLANG_API_KEY"),
        (Reply(503, b"busy"), "HTTP status 503"),
        (Reply(500, {"error": {"message": "it fell over"}}), "it fell over"),
        (Reply(404, {}), "does not know /generate"),
    ],
)
def test_another_answer_is_one_sentence_and_takes_no_slot(start: Start, reply: Reply, sentence: str) -> None:
    engine = start(answering(reply), num_slots=1)
    for _ in range(2):
        with pytest.raises(EngineError, match=sentence) as caught:
            engine.open_narrow(text_prompt(5), 1)
        assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_is_one_sentence(tokenizer: Path) -> None:
    with serving(Computing(wide_row_after, "unused")) as url:
        pass
    with pytest.raises(ModelLoadError, match=re.escape(f"server at {url} did not answer")):
        load_engine(f"sglang:{url}#{tokenizer}", "target")


def test_a_server_that_does_not_answer_is_one_sentence(start: Start) -> None:
    computing, has_given_up = Computing(wide_row_after, ""), threading.Event()

    def answer(method: str, path: str, body: Json) -> Reply:
        if method == "POST":
            has_given_up.wait(PATIENCE_S)
        return computing(method, path, body)

    engine = start(answer)
    assert isinstance(engine._reader, sglang.SglangReader)
    engine._reader._client.timeout = httpx.Timeout(0.2)
    with pytest.raises(EngineError, match="did not answer"):
        engine.open_narrow(text_prompt(5), 1)
    has_given_up.set()


def test_an_older_servers_info_is_found(start: Start) -> None:
    computing = Computing(wide_row_after, "unused")

    def answer(method: str, path: str, body: object) -> Reply:
        if path == "/server_info":
            return Reply(404, {})
        return computing(method, path.replace("/get_server_info", "/server_info"), body)

    assert start(answer).limits.max_length == 199


def test_something_else_on_the_port_is_no_server(tokenizer: Path) -> None:
    with (
        serving(lambda *request: Reply(404, b"")) as url,
        pytest.raises(ModelLoadError, match="there is no SGLang server at"),
    ):
        load_engine(f"sglang:{url}#{tokenizer}", "target")


def test_the_servers_tokenizer_is_found_by_its_name_or_asked_for(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path, 64)
    with serving(Computing(wide_row_after, str(folder))) as url:
        engine = load_engine(f"sglang:{url}", "target")
        close(engine)
    assert engine.vocabulary.size == 64
    with (
        serving(Computing(wide_row_after, "/models/elsewhere")) as url,
        pytest.raises(
            ModelLoadError, match="tokenizer of the model at .*/models/elsewhere.*give it as sglang:.*#FOLDER"
        ),
    ):
        load_engine(f"sglang:{url}", "target")


def test_the_key_travels_as_a_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_API_KEY", "secret")
    with sglang._client("http://127.0.0.1:1") as client:
        assert client.headers["authorization"] == "Bearer secret"


def test_all_that_a_servers_defaults_could_change_is_stated() -> None:
    assert msgspec.json.encode(sglang.SAMPLING)
    assert sglang.SAMPLING["repetition_penalty"] == 1.0
    assert sglang.SAMPLING["max_new_tokens"] == 1
