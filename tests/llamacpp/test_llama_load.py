"""A GGUF file is loaded quietly, or refused in a sentence."""

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from skydraft.engines.base import Engine, Extension
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError
from tests.engines.operations import text_prompt
from tests.llamacpp.installed import require_llamacpp
from tests.spy import spy_on
from tests.waiting import PATIENCE_S

require_llamacpp()

Start = Callable[..., Engine]
Written = Callable[..., Path]


def load(path: Path, **settings: object) -> Engine:
    return load_engine(str(path), "target", replace(EngineSettings(num_threads=1), **settings))


def refused(path: Path, **settings: object) -> str:
    with pytest.raises((ConfigError, ModelLoadError)) as caught:
        load(path, **settings)
    return str(caught.value)


def write(path: Path, context_length: int) -> Path:
    """A llama whose file says that it was made for longer texts."""
    from tests.llamacpp import files

    tokens = files.sentencepiece_tokens()
    config = {**files.CONFIG, "max_position_embeddings": context_length}
    return files.write_gguf(path, files.random_weights(0, len(tokens.pieces)), tokens, config)


def test_an_engine_has_the_slots_and_room_that_the_settings_say(start: Start) -> None:
    engine = start(num_slots=3)
    assert (engine.limits, engine.name) == ((3, 256), "llama-f32-0")
    assert start(max_length=9).limits == (1, 9)
    assert engine.vocabulary.end_ids == (2,)


def test_loading_and_computing_say_nothing(written: Written) -> None:
    code = (
        "import sys; from skydraft.engines.load import load_engine, load_tokenizer;"
        "from skydraft.core import Prompt, TokenSegment;"
        f"engine = load_engine({str(written())!r}, 'target'); load_tokenizer({str(written())!r}, 'draft');"
        "engine.open(Prompt((TokenSegment((8, 9)),)));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_engines_give_their_memory_back(written: Written) -> None:
    import llama_cpp

    gc.collect()  # the engines of tests before this one
    freed: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        for name in ("llama_free", "llama_model_free"):
            spy_on(patched, llama_cpp, name, lambda _, name=name: freed.append(name))
        load(written())
        gc.collect()
    assert freed == ["llama_free", "llama_model_free"]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"what is this?" * 99])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    assert refused(path).startswith(f"llama.cpp cannot load {path}: ")
    with pytest.raises(ModelLoadError, match="llama.cpp cannot load"):
        load_tokenizer(str(path), "draft")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(written: Written, tmp_path: Path, kept: float) -> None:
    content = written().read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(kept * len(content))])
    assert f"llama.cpp cannot load {path}: " in refused(path)


def test_an_unknown_kind_of_model_is_named(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "unheard.gguf"
    path.write_bytes(written().read_bytes().replace(b"llama", b"lhama"))
    assert "unknown model architecture: 'lhama'" in refused(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone.gguf").startswith(f"there is no file {tmp_path / 'gone.gguf'}; give the path of")


def test_the_length_is_bounded_by_what_the_model_was_made_for(written: Written) -> None:
    assert "takes at most 256 tokens (context_length of its file) and max_length is 257" in refused(
        written(), max_length=257
    )


def test_a_window_is_no_bound_for_the_length(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    monkeypatch.setattr(llama_cpp, "llama_model_n_swa", lambda _: 20)
    assert load(written()).limits.max_length == 256


def test_more_slots_than_llama_cpp_keeps_are_refused(written: Written) -> None:
    assert refused(written(), num_slots=255) == "llama.cpp takes at most 254 slots and num_slots is 255: lower it"
    assert load(written(), num_slots=254, max_length=8).limits.num_slots == 254


def test_a_cache_that_does_not_fit_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "long.gguf", context_length=2**30)
    asked = {"max_length": 2**30, "num_slots": 3}
    assert "needs a KV cache of 3221226240 tokens and 1237.0 GB, and " in refused(path, **asked)
    assert "needs a KV cache of 3221225472 tokens and 2061.6 GB, and " in refused(path, fast_math=True, **asked)


def test_what_llama_cpp_cannot_allocate_is_said_in_its_words(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    def spoil(model: object, params: llama_cpp.llama_context_params) -> None:
        params.n_batch = params.n_ubatch = 0

    spy_on(monkeypatch, llama_cpp, "llama_init_from_model", spoil)
    assert "cannot make a KV cache of 512 tokens for llama-f32-0 (n_batch and n_ubatch cannot both" in refused(
        written()
    )


def test_a_model_that_cannot_be_rolled_back_is_refused(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    monkeypatch.setattr(llama_cpp, "llama_model_is_hybrid", lambda _: True)
    assert "is a model with recurrent layers, which cannot be rolled back" in refused(written())


def test_a_model_that_computes_otherwise_in_trees_is_refused(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    from skydraft.engines.llamacpp.engine import LlamaCppEngine

    # As a model would that takes the wrong branch for the right one.
    keep = LlamaCppEngine.keep_path
    monkeypatch.setattr(LlamaCppEngine, "keep_path", lambda engine, slot, start, path: keep(engine, slot, start, [0]))
    assert "gives other logits for a text that was drafted as a tree" in refused(written())


def test_a_model_that_llama_cpp_does_not_run_is_refused(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    monkeypatch.setattr(llama_cpp, "llama_memory_seq_cp", lambda *_: None)
    assert "skydraft cannot run llama-f32-0: llama.cpp cannot read 1 tokens (status -1: the tokens of" in refused(
        written()
    )


def test_a_file_is_not_quantised_again(written: Written) -> None:
    with pytest.raises(ConfigError, match="has the weights that it has"):
        load_engine(str(written()), "draft", EngineSettings(quantize=True))


@pytest.mark.parametrize(
    ("device", "reason"), [("cuda", "built for the CPU"), ("cuda:1", "built for the CPU"), ("gpu", "knows cpu, cuda")]
)
def test_a_device_that_is_not_there_is_named(written: Written, device: str, reason: str) -> None:
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload() and device != "gpu":
        pytest.skip("this llama.cpp has a GPU")
    with pytest.raises(ConfigError, match=f"cannot be used here.*{reason}"):
        load(written(), device=device)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_smaller_weights_give_close_logits(start: Start, kind: str) -> None:
    exact, close = (start(kind).open(text_prompt(*range(8, 28))).logits for kind in ("F32", kind))
    assert 1e-5 < np.linalg.norm(close - exact) / np.linalg.norm(exact) < {"F16": 0.01, "Q8_0": 0.1, "Q4_0": 1}[kind]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "auto"])
def test_the_cache_may_have_half_precision(start: Start, dtype: str) -> None:
    exact, half = (start(dtype=name) for name in ("float32", dtype))
    rows = [engine.extend([Extension.chain(engine.open(text_prompt(8, 9)).slot, [10])])[0] for engine in (exact, half)]
    difference = np.linalg.norm(rows[1] - rows[0]) / np.linalg.norm(rows[0])
    assert difference == 0 if dtype == "auto" else 1e-6 < difference < 0.05


def test_the_command_of_the_docs_requantizes_a_draft(written: Written, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/engines.md").read_text()
    code = page.split('python -c "')[1].split('" draft')[0].replace("\\\n", "")  # as a shell does
    given, made = written("Q8_0"), tmp_path / "draft-q4_0.gguf"
    done = subprocess.run([sys.executable, "-c", code, str(given), str(made)], timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert made.stat().st_size < given.stat().st_size
    assert load(made).vocabulary.tokens == load(given).vocabulary.tokens


@pytest.mark.parametrize(("features", "expected"), [(b"AVX2 = 1 | ", True), (b"AVX2 = 1 | AMX_INT8 = 1 | ", False)])
def test_a_build_with_amx_is_run_without_its_extra_buffers(
    written: Written, monkeypatch: pytest.MonkeyPatch, features: bytes, expected: bool
) -> None:
    import llama_cpp

    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: features)
    used = spy_on(monkeypatch, llama_cpp, "llama_model_load_from_file", lambda _, params: bool(params.use_extra_bufts))
    load(written())
    assert used == [expected]
