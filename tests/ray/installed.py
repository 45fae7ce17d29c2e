"""Skips a module's tests where Ray is not installed."""

from __future__ import annotations

import importlib.util

import pytest


def require_ray() -> None:
    """To be called when a test module is imported. Ray itself takes long to import only to see whether it is there."""
    try:
        is_there = importlib.util.find_spec("ray.serve") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        pytest.skip("needs Ray Serve: make test-ray", allow_module_level=True)
