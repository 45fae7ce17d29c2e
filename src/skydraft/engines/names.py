"""A model's name, parsed: what runs the model, and at which pace.

embedded, stories, numpy:FOLDER     small Qwen2.5-Omni thinkers (NumPy)
FOLDER, OWNER/NAME                  Hugging Face's format (PyTorch)
FILE.gguf, OWNER/NAME/FILE.gguf     llama.cpp
vllm:MODEL, vllm:name=value,...:MODEL
sglang:URL, sglang:URL#TOKENIZER
table:name=value,...                random logits
paced:name=value,...:MODEL          any of these, with the pace of a larger model
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from skydraft.engines.base import Engine
from skydraft.engines.emulated.kind import TABLE
from skydraft.engines.emulated.paced import Pace, pace_engine, split_pace
from skydraft.engines.external.kinds import SGLANG, VLLM
from skydraft.engines.huggingface.kind import HUGGING_FACE
from skydraft.engines.kept_promise import KeptPromise
from skydraft.engines.llamacpp.kind import LLAMA_CPP
from skydraft.engines.model_kind import ModelKind
from skydraft.engines.numpy.kind import NUMPY
from skydraft.engines.self_test import hold_to_promise
from skydraft.engines.settings import EngineSettings
from skydraft.text.checkpoint import EMBEDDED, Role

# The first that includes a name runs the model; a new engine is its folder and an entry here.
KINDS = (TABLE, VLLM, SGLANG, NUMPY, LLAMA_CPP, HUGGING_FACE)


class ModelName(NamedTuple):
    """A model's name taken apart.

    source: the name without a pace: a folder, an address, settings.
    pace: None where the name states none.
    """

    kind: ModelKind
    source: str
    pace: Pace | None

    @property
    def is_embedded(self) -> bool:
        """Whether it is one of the pair that comes with skydraft."""
        return self.source == EMBEDDED

    def load_engine(self, role: Role, settings: EngineSettings) -> Engine:
        """Load the model, test its rows where settings say so, give it its pace; errors as `load.load_engine`."""
        if role == "draft":  # a wrong guess changes no text
            settings = replace(settings, fast_math=True)
        engine = self.kind.load_engine(self.source, role, settings)
        if settings.self_test:
            self._test(engine, role, settings)
        return engine if self.pace is None else pace_engine(engine, self.pace)

    def _test(self, engine: Engine, role: Role, settings: EngineSettings) -> None:
        kept = KeptPromise(self.kind.find_files(self.source, role), settings)
        promise = kept.load()
        if promise is not None:
            engine.row_promise = promise
        elif hold_to_promise(engine) is not None:
            kept.save(engine.row_promise)


def parse_name(model: str) -> ModelName:
    """Say what runs a model, and at which pace.

    Raises:
        ModelLoadError: it has a pace that cannot be read, or one without a model.
    """
    pace, source = split_pace(model)
    return ModelName(next(kind for kind in KINDS if kind.includes(source)), source, pace)
