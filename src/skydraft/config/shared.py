"""Settings that clouds and devices both have, declared once."""

from __future__ import annotations

from typing import Annotated

from skydraft.core import Setting
from skydraft.engines.settings import DTYPES
from skydraft.text.checkpoint import DEFAULT_MAX_LENGTH

MODELS = "a folder, a Hugging Face name, a GGUF file, or 'embedded'"
DeviceName = Annotated[
    str, Setting("Where models run: cpu, cuda, cuda:N, mps or auto.", "--device", "NAME", group="This machine")
]
Dtype = Annotated[
    str, Setting(f"Number format of the weights: {', '.join(DTYPES)}.", "--dtype", "TYPE", group="This machine")
]
MaxLength = Annotated[
    int,
    Setting(
        "Maximum number of tokens of a text and its prompt together.",
        "--max-length",
        "N",
        unset=f"the model's limit, at most {DEFAULT_MAX_LENGTH}",
        bounds=(0, 2**20),
        group="This machine",
    ),
]
