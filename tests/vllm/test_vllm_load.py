import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError, SkydraftError
from tests.vllm.installed import require_vllm

require_vllm()


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"device": "cuda:1"}, ConfigError, "device is 'cuda:1' and this vLLM computes on cpu: use device cpu"),
        ({"quantize": True}, ConfigError, "quantize is for models that PyTorch runs"),
        ({"max_length": 1000}, ConfigError, "takes at most 512 tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    folder: Path, settings: dict[str, object], error: type[SkydraftError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        load_engine(f"vllm:{folder}", "draft", replace(EngineSettings(), **settings))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no model folder"):
        load_engine(f"vllm:{tmp_path}/none", "target")


def test_a_model_that_vllm_does_not_know_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["Nonsense"], "model_type": "none"}))
    with pytest.raises(ModelLoadError, match=f"^vLLM cannot load {tmp_path.name}: ") as caught:
        load_engine(f"vllm:{tmp_path}", "target")
    assert "\n" not in str(caught.value)
