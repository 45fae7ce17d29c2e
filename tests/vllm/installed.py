"""Skips a module's tests where vLLM is not installed."""

from __future__ import annotations

import importlib.util

import pytest


def require_vllm() -> None:
    """To be called when a test module is imported. vLLM itself takes too long to import only to see whether it is."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM: make test-vllm", allow_module_level=True)
