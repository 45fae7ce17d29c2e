"""Whether these tests can run here."""

import pytest


def require_llamacpp() -> None:
    """Skip the module where llama-cpp-python, or the writer of GGUF files, is not installed."""
    for package in ("llama_cpp", "gguf"):
        pytest.importorskip(package, reason=f"needs {package}: make test-llamacpp")
