"""The embedded pair needs no PyTorch, on the device or in the cloud that a command starts for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

REFUSAL = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"{name} is not to be imported here", name=name)

sys.meta_path.insert(0, Refusal())
"""


@pytest.fixture
def python(tmp_path: Path) -> list[str]:
    """A Python that refuses to import PyTorch, as do all Pythons that it starts."""
    (tmp_path / "sitecustomize.py").write_text(REFUSAL)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    return ["env", f"PYTHONPATH={path}", "NO_COLOR=1", sys.executable]


def test_the_demo_imports_no_torch(python: list[str]) -> None:
    refused = subprocess.run([*python, "-c", "import torch"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "torch is not to be imported here" in refused.stderr
    done = subprocess.run([*python, "-m", "skydraft", "demo"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert ", the same text" in done.stdout
