"""What each way to run models must offer before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.core import Calibration, TensorSegment
from skydraft.engines.base import Engine
from skydraft.engines.settings import EngineSettings
from skydraft.text.chat_template import ChatTemplate
from skydraft.text.checkpoint import Role
from skydraft.text.tokenizer import Tokenizer

Hear: TypeAlias = Callable[[npt.NDArray[np.float32]], TensorSegment]  # samples at 16 kHz -> what a model reads of them


def has_no_files(source: str, role: Role) -> Sequence[Path]:
    """The `find_files` of a kind whose models are not files of this machine."""
    return ()


def reads_text_only(source: str, role: Role) -> None:
    """The `load_ears` of a kind whose models cannot hear."""


def is_not_calibrated(source: str, role: Role) -> None:
    """The `load_calibration` of a kind whose models come without one."""


class ModelKind(NamedTuple):
    """One way to run models: the record of an engine in the table of `engines/names`.

    The functions get the model's name without a pace, and which of a pair it is. They import what they need when they
    are called, for each device has other packages. Errors are those of the functions in `engines/load`.

    includes: whether a model of this name is of this kind.
    load_tokenizer: needs no torch.
    load_chat_format: None for a model without one.
    find_max_length: tokens of one sequence, known before weights are loaded; None: only they tell.
    find_files: of the model, which tell whether it is the one that was tested before; none where nobody can say.
    load_ears: what turns samples into the model's input; None for a model that reads text only.
    load_calibration: how unsure the model is as a rule; None for a model that comes without.
    is_remote: a server runs the model, and only it knows the tokenizer.
    """

    includes: Callable[[str], bool]
    load_engine: Callable[[str, Role, EngineSettings], Engine]
    load_tokenizer: Callable[[str, Role], Tokenizer]
    load_chat_format: Callable[[str, Role], ChatTemplate | None]
    find_max_length: Callable[[str, Role, EngineSettings], int | None]
    find_files: Callable[[str, Role], Sequence[Path]] = has_no_files
    load_ears: Callable[[str, Role], Hear | None] = reads_text_only
    load_calibration: Callable[[str, Role], Calibration | None] = is_not_calibrated
    is_remote: bool = False


def stated_max_length(source: str, role: Role, settings: EngineSettings) -> int | None:
    """The `find_max_length` of a kind that knows no more than the settings say before it has loaded a model."""
    return settings.max_length or None
