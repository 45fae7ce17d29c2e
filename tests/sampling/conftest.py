"""Both array libraries, and torch on one thread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skydraft.sampling.kernel import kernel
from tests.sampling.helpers import ToArray

torch.set_num_threads(1)
kernel()  # not while a test's time is taken: it may have to be compiled


@pytest.fixture(params=["numpy", "torch"])
def to_array(request: pytest.FixtureRequest) -> ToArray:
    """Turns a numpy array into one of the library under test."""
    return np.asarray if request.param == "numpy" else torch.tensor
