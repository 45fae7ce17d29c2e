"""The calibration beside a model's weights."""

from __future__ import annotations

from skydraft.core import CALIBRATION_FILE, Calibration, read_calibration
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.text.checkpoint import Checkpoint


def calibration_of(checkpoint: Checkpoint) -> Calibration | None:
    """Read it; None where the folder has none.

    Raises:
        ModelLoadError: it cannot be read.
    """
    file = checkpoint.folder / CALIBRATION_FILE
    try:
        return read_calibration(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ConfigError) as error:
        raise ModelLoadError(f"the calibration {file} cannot be read: {error}") from error
