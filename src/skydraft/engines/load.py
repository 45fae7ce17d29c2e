"""From a model's name to an engine, and to what goes with it."""

from __future__ import annotations

import os

from skydraft.core import Calibration
from skydraft.engines.base import Engine
from skydraft.engines.model_kind import Hear
from skydraft.engines.names import parse_name
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError
from skydraft.text.chat_template import ChatTemplate
from skydraft.text.checkpoint import Role
from skydraft.text.tokenizer import Tokenizer

DEFAULT_SETTINGS = EngineSettings()

# How often a thread of libgomp, which torch and llama.cpp compute with, looks for work before it sleeps. As a rule it
# looks for milliseconds, and where two processes have a thread for each core each spends them on the other's cores: a
# caption by a device and a cloud on two cores took 1.3 s, and takes 0.35 s with this. Alone a process is as fast.
SPIN_COUNT = 10_000


def load_engine(model: str, role: Role, settings: EngineSettings = DEFAULT_SETTINGS) -> Engine:
    """Load a model.

    Args:
        model: a name as `engines/names` reads it.
        role: which of the embedded pair; and only a draft may be quantised, for rounded activations make the logits
            of one text depend on the others of its batch.
    Raises:
        ModelLoadError: there is no such model, or it cannot be loaded or run.
        ConfigError: the settings do not fit the machine or the role.
    """
    if settings.quantize and role == "target":
        raise ConfigError("quantize is for draft models: a quantised target's choices would depend on its batch")
    name = parse_name(model)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # read when the library is loaded, with torch
    return name.load_engine(role, settings)


def load_tokenizer(model: str, role: Role) -> Tokenizer:
    """Load a model's tokenizer; needs no torch.

    Raises:
        ModelLoadError: there is no such model, or it has no readable tokenizer.
    """
    name = parse_name(model)
    return name.kind.load_tokenizer(name.source, role)


def load_chat_format(model: str, role: Role) -> ChatTemplate | None:
    """Load a model's chat template; None for one without.

    Raises:
        ModelLoadError: there is no such model, or its template cannot be used.
    """
    name = parse_name(model)
    return name.kind.load_chat_format(name.source, role)


def load_ears(model: str, role: Role) -> Hear | None:
    """Load what turns samples into a model's input; None for a model that reads text only.

    Raises:
        ModelLoadError: there is no such model.
    """
    name = parse_name(model)
    return name.kind.load_ears(name.source, role)


def load_calibration(model: str, role: Role) -> Calibration | None:
    """Load what is known of how unsure a model is; None for a model that comes without.

    Raises:
        ModelLoadError: there is no such model, or its calibration cannot be read.
    """
    name = parse_name(model)
    return name.kind.load_calibration(name.source, role)


def find_max_length(model: str, role: Role, settings: EngineSettings = DEFAULT_SETTINGS) -> int | None:
    """How many tokens of one sequence a model takes, known before its weights are loaded; None: only they tell.

    Raises:
        ModelLoadError: there is no such model.
        ConfigError: the settings ask for more than it takes.
    """
    name = parse_name(model)
    return name.kind.find_max_length(name.source, role, settings)
