import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.utils import logging

from skydraft.core import Calibration
from skydraft.engines.emulated.table import TableEngine
from skydraft.engines.external import vllm_load
from skydraft.engines.external.sources import VllmSource, VllmSpec
from skydraft.engines.external.vllm_load import load_vllm
from skydraft.engines.huggingface.slot_engine import SlotEngine
from skydraft.engines.load import find_max_length, load_calibration, load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.text import checkpoint
from skydraft.text.checkpoint import Checkpoint, require_rollback
from tests.engines.folders import change_config, save_text_model, word_tokenizer
from tests.engines.operations import text_prompt
from tests.waiting import PATIENCE_S

Saved = Callable[[str], Path]


@pytest.fixture
def copied(saved: Saved, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a tiny model's folder, to damage."""
    return lambda kind: Path(shutil.copytree(saved(kind), tmp_path / kind))


def refused(folder: Path, **settings: object) -> str:
    with pytest.raises((ConfigError, ModelLoadError)) as caught:
        load_engine(str(folder), "target", replace(EngineSettings(), **settings))
    return str(caught.value)


def test_a_table_is_loaded_without_torch() -> None:
    code = (
        "import sys; from skydraft.engines.load import load_engine, load_tokenizer;"
        "from skydraft.engines.settings import EngineSettings;"
        "engine = load_engine('table:vocab=20', 'target', EngineSettings(num_slots=3, max_length=9));"
        "assert engine.limits == (3, 9); load_tokenizer('table:vocab=20', 'draft');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


def test_a_table_has_the_slots_and_room_that_the_settings_say() -> None:
    engine = load_engine("table:vocab=20", "draft")
    assert isinstance(engine, TableEngine)
    assert engine.limits == (1, 4096)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "omni"])
def test_a_folder_is_loaded_as_what_its_config_names(saved: Saved, kind: str) -> None:
    engine = load_engine(str(saved(kind)), "target", EngineSettings(num_slots=3))
    assert engine.limits == (3, 64)
    assert engine.name == saved(kind).name
    assert (engine.vocabulary.size, engine.vocabulary.end_ids) == (64, (1,))
    assert load_tokenizer(str(saved(kind)), "target").vocabulary == engine.vocabulary


def test_loading_says_nothing(saved: Saved, capfd: pytest.CaptureFixture[str]) -> None:
    saved("omni")
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        load_engine(str(saved("llama")), "draft", EngineSettings(quantize=True))
        load_engine(str(saved("omni")), "target")
        assert logging.is_progress_bar_enabled()
    finally:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    assert capfd.readouterr() == ("", "")


def test_a_whole_omni_folder_gives_its_thinker(saved: Saved, tmp_path: Path) -> None:
    thinker = load_file(saved("omni") / "model.safetensors")
    whole = {f"thinker.{name}": tensor for name, tensor in thinker.items()}
    whole |= {"talker.model.norm.weight": torch.ones(2), "token2wav.bias": torch.ones(2)}
    _save_sharded(whole, tmp_path)
    thinker_config = json.loads((saved("omni") / "config.json").read_text())
    config = {
        "architectures": ["Qwen2_5OmniModel"],
        "model_type": "qwen2_5_omni",
        "thinker_config": thinker_config,
        "talker_config": {"model_type": "qwen2_5_omni_talker"},
        "token2wav_config": {"model_type": "qwen2_5_omni_token2wav"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    engine = load_engine(str(tmp_path), "target")
    alone = load_engine(str(saved("omni")), "target")
    prompt = text_prompt(9, 10)
    assert engine.limits.max_length == 64
    torch.testing.assert_close(engine.open(prompt).logits, alone.open(prompt).logits)


def test_the_part_of_an_omni_that_sees_is_not_kept(saved: Saved) -> None:
    engine = load_engine(str(saved("omni")), "target")
    whole = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(saved("omni"))
    assert isinstance(engine, SlotEngine)
    assert any("visual" in name for name, _ in whole.named_parameters())
    assert not any("visual" in name for name, _ in engine._model.model.named_parameters())


def test_another_part_of_an_omni_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("omni")
    change_config(folder, model_type="qwen2_5_omni_talker")
    assert "is a qwen2_5_omni_talker" in refused(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").startswith(f"there is no model folder {tmp_path / 'gone'}")


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path} has no config.json: it is not a model folder"


@pytest.mark.parametrize("content", ["{", "\udcff", "[]"])
def test_a_config_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert str(tmp_path / "config.json") in refused(tmp_path)


def test_a_model_that_writes_no_text_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    change_config(folder, architectures=["LlamaForSequenceClassification"])
    assert "is no causal language model" in refused(folder)


def test_missing_weights_are_named(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refused(folder)


def test_damaged_weights_are_named(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "the weights of llama" in refused(folder)


def test_weights_without_a_tensor_are_refused_and_not_made_up(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors are missing or of another shape, the first is model.layers.1.mlp.up_proj.weight" in refused(
        folder
    )


def test_weights_of_another_shape_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    change_config(folder, intermediate_size=40)
    assert "the weights of llama" in refused(folder)


def test_a_model_that_does_not_fit_into_memory_says_so(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    assert "does not fit into the memory of cpu" in refused(saved("llama"))


def test_a_cache_that_does_not_fit_into_memory_says_so(saved: Saved) -> None:
    assert "does not fit into the memory of cpu" in refused(saved("llama"), num_slots=10**9)


def test_layers_that_cannot_be_rolled_back_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    change_config(folder, layer_types=["full_attention", "linear_attention"])
    assert "has layers of the kind linear_attention" in refused(folder)


def test_a_window_is_no_bound_for_the_length(copied: Callable[[str], Path]) -> None:
    folder = copied("qwen2")
    change_config(folder, use_sliding_window=True, sliding_window=20, max_window_layers=0)
    assert load_engine(str(folder), "target").limits.max_length == 64


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "falcon_mamba"}, "falcon_mamba"),
        ({"model_type": "phi4flash"}, "phi4flash"),
        ({"model_type": "llama4_text", "attention_chunk_size": 8192}, "attention_chunk_size, llama4_text"),
        ({"full_attention_interval": 4}, "full_attention_interval"),
        ({"layer_types": ["chunked_attention"]}, "chunked_attention"),
        ({"layers_block_type": ["recurrent", "attention"]}, "recurrent"),
        ({"hybrid_override_pattern": "M-M*-"}, "hybrid"),
    ],
)
def test_what_runs_elsewhere_is_refused_too_where_it_cannot_be_rolled_back(
    copied: Callable[[str], Path], config: dict[str, object], kind: str
) -> None:
    folder = copied("llama")
    change_config(folder, **config)
    with pytest.raises(ModelLoadError, match=f"has layers of the kind {kind}, whose state cannot be rolled back"):
        require_rollback(Checkpoint.open(folder))


def test_how_long_a_text_may_be_is_told_before_weights_are_loaded(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    (folder / "model.safetensors").unlink()
    change_config(folder, max_position_embeddings=300)
    assert find_max_length(str(folder), "draft") == 300
    assert find_max_length(f"paced:step_ms=1:{folder}", "draft", EngineSettings(max_length=299)) == 299
    assert find_max_length("table:vocab=9", "target") == 4096
    assert find_max_length("vllm:somewhere", "target") is None
    with pytest.raises(ConfigError, match="takes at most 300 tokens .* and max_length is 301"):
        find_max_length(str(folder), "draft", EngineSettings(max_length=301))


def test_the_length_is_bounded_by_what_the_model_was_made_for(saved: Saved) -> None:
    assert "at most 64 tokens (max_position_embeddings of its config)" in refused(saved("llama"), max_length=65)
    assert load_engine(str(saved("llama")), "target", EngineSettings(max_length=64)).limits.max_length == 64


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({}, 4096),
        ({"max_position_embeddings": 100, "sliding_window": None}, 100),
        ({"n_positions": 90}, 90),
        ({"max_position_embeddings": 100, "sliding_window": 50, "use_sliding_window": False}, 100),
        ({"max_position_embeddings": 100, "sliding_window": 50}, 100),
        (
            {
                "max_position_embeddings": 100,
                "original_max_position_embeddings": 40,
                "rope_scaling": {"type": "longrope"},
            },
            40,
        ),
    ],
)
def test_the_longest_text_is_read_from_the_config(config: dict[str, object], longest: int) -> None:
    limits = EngineSettings().limits("m", *Checkpoint("m", Path(), config).longest_text)
    assert limits.max_length == longest


def test_a_model_whose_attention_cannot_be_replaced_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("bloom", vocab_size=64, hidden_size=16, n_head=2, n_layer=1)
    save_text_model(config, tmp_path)
    assert "BloomForCausalLM, which does not take an attention function" in refused(tmp_path)


def test_a_model_that_needs_more_of_attention_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "gpt_oss",
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        eos_token_id=None,
        pad_token_id=None,
    )
    save_text_model(config, tmp_path)
    assert "needs s_aux" in refused(tmp_path)


def test_a_model_that_computes_otherwise_with_slots_is_refused(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a model would that finds positions by itself.
    monkeypatch.setattr(
        "skydraft.engines.huggingface.kv_cache.BatchPlan.positions", property(lambda plan: plan.token_ids * 0)
    )
    assert "gives other logits with a KV cache of slots than without a cache" in refused(saved("llama"))


def test_a_name_that_cannot_be_fetched_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("Got: ConnectError: no route\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelLoadError, match=r"cannot be fetched from Hugging Face \(Got: ConnectError: no route\)"):
        load_engine("Qwen/Qwen2.5-Omni-3B", "target")


def test_a_fetched_model_has_its_name(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(saved("llama")))
    assert load_engine("someone/tiny-llama", "draft").name == "someone/tiny-llama"


@pytest.mark.parametrize("model", ["a/b/c", "/a/b", "./a/b", "model", ""])
def test_what_is_no_name_is_not_looked_for_on_the_network(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_fetch", lambda _: pytest.fail("went to the network"))
    with pytest.raises(ModelLoadError, match="model folder|config.json"):
        load_engine(model, "draft")


def test_the_embedded_pair_lies_in_the_package(saved: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint, "EMBEDDED_FOLDER", tmp_path)
    shutil.copytree(saved("omni"), tmp_path / "draft")
    assert load_engine("embedded", "draft").name == "skydraft-embedded-draft"
    with pytest.raises(ModelLoadError, match="there is no model folder"):
        load_engine("embedded", "target")


def test_a_calibration_comes_with_some_models(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    assert load_calibration(str(folder), "draft") is None
    assert load_calibration("table:vocab=8", "draft") is None
    assert load_calibration("embedded", "draft") is not None
    text = '{"material": "", "num_texts": 1, "weights": "", "quantiles": {"margin": [0, 1]}}'
    (folder / "calibration.json").write_text(text)
    assert load_calibration(str(folder), "draft") == Calibration("", 1, "", {"margin": (0.0, 1.0)})
    (folder / "calibration.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"calibration\.json cannot be read: this is no calibration file"):
        load_calibration(str(folder), "draft")


def test_a_missing_extra_comes_with_the_command(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    assert "needs torch, which skydraft's torch extra brings: pip install 'skydraft[torch]'" in refused(saved("llama"))


def test_a_target_is_not_quantised(saved: Saved) -> None:
    with pytest.raises(ConfigError, match="quantize is for draft models"):
        load_engine(str(saved("llama")), "target", EngineSettings(quantize=True))


def test_half_precision_gives_logits_in_float32(saved: Saved) -> None:
    engine = load_engine(str(saved("llama")), "target", EngineSettings(dtype="bfloat16"))
    assert isinstance(engine, SlotEngine)
    assert engine._model.dtype == torch.bfloat16
    logits = engine.open(text_prompt(9, 10)).logits
    exact = load_engine(str(saved("llama")), "target").open(text_prompt(9, 10)).logits
    assert logits.dtype == torch.float32
    assert 1e-4 < float((logits - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("device", ["cuda:7", "gpu"])
def test_a_device_that_is_not_there_is_named(saved: Saved, device: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used here"):
        load_engine(str(saved("llama")), "target", EngineSettings(device=device))


def test_threads_are_set_when_asked_for(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    load_engine(str(saved("llama")), "target")
    load_engine(str(saved("llama")), "target", EngineSettings(num_threads=2))
    assert asked == [2]


@pytest.mark.parametrize(
    "wrong", [{"num_slots": 0}, {"max_length": -1}, {"dtype": "int4"}, {"num_threads": -1}, {"prefill_chunk": 0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(EngineSettings(), **wrong)


def _save_sharded(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, members in shards.items() for name in members}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    load_engine("table:vocab=8", "draft")
    assert os.environ.get("GOMP_SPINCOUNT") == expected


OWN_CODE = "needs the code that came with it (auto_map of its config.json), which skydraft does not run"


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("llama")
    (folder / "evil.py").write_text("raise SystemExit('the code of the model ran')")
    auto_map = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
    change_config(folder, model_type="evil", auto_map=auto_map)
    monkeypatch.setattr("builtins.input", lambda prompt="": pytest.fail(f"somebody was asked: {prompt}"))
    assert OWN_CODE in refused(folder)
    change_config(folder, architectures=["EvilForCausalLM"])
    assert OWN_CODE in refused(folder)


def test_an_auto_map_beside_a_class_that_transformers_knows_is_passed_over(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    change_config(folder, auto_map={"AutoModelForCausalLM": "evil.EvilModel"})
    assert load_engine(str(folder), "target").limits.max_length == 64


def test_pickled_weights_are_not_read(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only pytorch_model.bin: convert it, for such a file can run code when it is read" in refused(folder)
    with pytest.raises(ModelLoadError, match="only pytorch_model.bin"):
        load_vllm(VllmSource(VllmSpec(), str(folder)), "target", EngineSettings())


def test_an_index_of_weights_may_not_name_pickled_ones(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    files = {"model.embed_tokens.weight": "model.safetensors", "lm_head.weight": "head.bin"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert "only head.bin" in refused(folder)


def test_vllm_is_told_to_run_no_code_of_a_model(copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def load(**arguments: object) -> None:
        given.update(arguments)
        raise RuntimeError("the model is custom: set `trust_remote_code=True`")

    monkeypatch.setattr(vllm_load, "_import_vllm", lambda: SimpleNamespace(LLM=load))
    monkeypatch.setattr(vllm_load, "_is_on_cpu", lambda settings: False)
    folder = copied("llama")
    change_config(folder, auto_map={"AutoModelForCausalLM": "evil.EvilModel"})
    with pytest.raises(ModelLoadError) as caught:
        load_vllm(VllmSource(VllmSpec(), str(folder)), "target", EngineSettings())
    assert OWN_CODE in str(caught.value)
    assert given["trust_remote_code"] is False
