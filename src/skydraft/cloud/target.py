"""Loads the model that a cloud serves."""

from __future__ import annotations

from skydraft.config import CloudSettings
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings


def load_target(settings: CloudSettings) -> Engine:
    """Load the target model.

    Raises:
        ModelLoadError: it cannot be loaded.
        ConfigError: a setting does not fit it.
    """
    engine_settings = EngineSettings(
        num_slots=settings.num_slots,
        max_length=settings.max_length,
        device=settings.device,
        dtype=settings.dtype,
        num_threads=settings.num_threads,
    )
    return load_engine(settings.model, "target", engine_settings)
