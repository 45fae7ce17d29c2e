"""Weights of a checkpoint in .safetensors files as float32 arrays, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from skydraft.errors import ModelLoadError
from skydraft.text.checkpoint import Checkpoint, require_safe_files

Floats: TypeAlias = npt.NDArray[np.float32]

_NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2"}


class Weights:
    """The tensors of a checkpoint.

    Raises:
        ModelLoadError: its files are missing or damaged, or hold numbers of another kind.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        require_safe_files(checkpoint)
        self._checkpoint = checkpoint
        self._tensors: dict[str, Mapping[str, Any]] = {}
        for path in sorted(checkpoint.folder.glob("*.safetensors")):
            try:
                self._tensors.update(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
            except (OSError, SafetensorError) as error:
                raise ModelLoadError(f"the weights of {checkpoint.name} in {path} cannot be loaded: {error}") from error

    def take(self, name: str, *shape: int) -> Floats:
        """One tensor.

        Args:
            shape: that it must have.
        Raises:
            ModelLoadError: there is none of this name and shape.
        """
        tensor = self._tensors.get(name)
        if tensor is None or tuple(tensor["shape"]) != shape:
            found = "missing" if tensor is None else f"{list(tensor['shape'])}"
            raise ModelLoadError(
                f"the weights of {self._checkpoint.name} do not fit its config.json: {name} is {found} and should be "
                f"{list(shape)}; take both from the same model"
            )
        return self._floats(tensor).reshape(shape)

    def _floats(self, tensor: Mapping[str, Any]) -> Floats:
        dtype, data = tensor["dtype"], tensor["data"]
        if dtype == "BF16":  # the upper half of a float32
            return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        if dtype not in _NUMPY_DTYPES:
            raise ModelLoadError(
                f"{self._checkpoint.name} has weights in {dtype}, and NumPy runs BF16, F16 and F32: give its folder "
                "without numpy:, and PyTorch runs it"
            )
        return np.frombuffer(data, _NUMPY_DTYPES[dtype]).astype(np.float32)
