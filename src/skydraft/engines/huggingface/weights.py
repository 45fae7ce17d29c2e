"""Loading Hugging Face weights: quietly, without the network, whole, or with one sentence saying why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from skydraft.engines.settings import EngineSettings
from skydraft.errors import ConfigError, ModelLoadError, first_line
from skydraft.text.checkpoint import (
    PLAIN_LAYERS,
    Checkpoint,
    ConfigTable,
    custom_code,
    is_custom,
    require_safe_files,
)


def load_weights(model_class: Any, checkpoint: Checkpoint, settings: EngineSettings) -> Any:
    """Load a model of a class, ready to compute: on its device, in its dtype, not training.

    Returns:
        The Hugging Face model.
    Raises:
        ModelLoadError: files are missing, damaged or of another model, or do not fit into memory.
    """
    require_safe_files(checkpoint)
    device = _device(settings)
    try:
        with _quiet(), memory_guard(checkpoint.name, device):
            model, report = model_class.from_pretrained(
                checkpoint.folder,
                dtype=_dtype(settings, device),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            _require_complete(checkpoint, report)
            return model.eval().requires_grad_(False).to(device)
    except ModelLoadError:
        raise
    except Exception as error:  # the library and safetensors raise many kinds for files that are not as they should be
        raise _damaged(checkpoint, error) from error


@contextmanager
def memory_guard(name: str, device: torch.device) -> Iterator[None]:
    """Turn out-of-memory errors into one sentence that names the model.

    Raises:
        ModelLoadError: in place of what torch raises.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ModelLoadError(
            f"{name} does not fit into the memory of {device}: use a smaller model or dtype, or fewer or shorter slots"
        ) from error


def require_plain_layers(checkpoint: Checkpoint, config: Any) -> None:
    """Refuse models whose class has layers with another state than keys and values.

    Args:
        config: of the loaded text model: it names kinds of layers that config.json may leave out.
    Raises:
        ModelLoadError: naming the kinds of layers that cannot be rolled back.
    """
    other = sorted(set(map(str, getattr(config, "layer_types", None) or [])) - PLAIN_LAYERS)
    if other:
        raise ModelLoadError(
            f"{checkpoint.name} has layers of the kind {', '.join(other)}, whose state cannot be rolled back after a "
            "rejected draft: use a model whose layers have full or sliding attention"
        )


def quantize_linear(model: torch.nn.Module, settings: EngineSettings) -> None:
    """Round the weights of linear layers to 8 bits, in place; activations are rounded as they come.

    Raises:
        ConfigError: the model is not on a CPU in float32.
    """
    if _device(settings).type != "cpu" or _dtype(settings, torch.device("cpu")) != torch.float32:
        raise ConfigError(
            f"quantize works on a cpu in float32 and the draft is to run on {settings.device} in {settings.dtype}"
        )
    with warnings.catch_warnings(action="ignore"):  # torch announces that this interface will move
        torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
        )


def _device(settings: EngineSettings) -> torch.device:
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {settings.device!r} cannot be used here ({first_line(error)}): try cpu") from error
    return device


def _dtype(settings: EngineSettings, device: torch.device) -> Any:
    """A torch dtype, or "auto" for the checkpoint's own."""
    if settings.dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return getattr(torch, settings.dtype)


def _require_complete(checkpoint: Checkpoint, report: ConfigTable) -> None:
    missing = sorted(report["missing_keys"])
    if missing or report["mismatched_keys"]:
        wrong = missing or sorted(str(key) for key in report["mismatched_keys"])
        raise ModelLoadError(
            f"the weights of {checkpoint.name} do not fit its config.json: {len(wrong)} tensors are missing or of "
            f"another shape, the first is {wrong[0]}; take both from the same model"
        )


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch has no error of its own for this.
    texts = ("allocate memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def _damaged(checkpoint: Checkpoint, error: Exception) -> ModelLoadError:
    if is_custom(checkpoint) and "custom code" in str(error):
        return custom_code(checkpoint)
    return ModelLoadError(
        f"the weights of {checkpoint.name} in {checkpoint.folder} cannot be loaded: {first_line(error)}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, advice or warnings while a model loads; restores the settings afterwards."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
