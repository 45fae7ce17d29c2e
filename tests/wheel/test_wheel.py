"""The built wheel in an environment that has nothing else: what a new user reads, done with it. `make test-wheel`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skydraft.edge.local_cloud import ANNOUNCEMENT
from tests.docs.pages import ROOT
from tests.docs.reader import Reader, furnish
from tests.waiting import PATIENCE_S

if "SKYDRAFT_WHEEL_BIN" not in os.environ:
    pytest.skip("needs the wheel in an environment of its own: make test-wheel", allow_module_level=True)

BIN = Path(os.environ["SKYDRAFT_WHEEL_BIN"])
PACKAGE = ROOT / "src" / "skydraft"
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new user's home and working directory, with the files that the README names."""
    home = tmp_path_factory.mktemp("home")
    furnish(home)
    return home


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a new user's shell has: nothing of this checkout."""
    return {"HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1", **more}


def run(home: Path, *command: object, typed: str = "", **more: str) -> str:
    """Run a command to its end; returns its standard output. typed: its standard input."""
    words = list(map(str, command))
    options: dict[str, Any] = {"input": typed, "capture_output": True, "text": True}
    done = subprocess.run(words, cwd=home, env=environment(home, **more), timeout=PATIENCE_S, **options)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@contextmanager
def listening(home: Path, announcement: str, *command: object) -> Iterator[str]:
    """A cloud or a gateway under way; yields its address."""
    words = list(map(str, command))
    with subprocess.Popen(words, cwd=home, env=environment(home), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(announcement), line
            yield line.removeprefix(announcement).strip()
        finally:
            process.terminate()


# What is in it


def test_the_environment_has_skydraft_from_the_wheel_and_no_torch(home: Path) -> None:
    program = (
        "import importlib.util as i, skydraft; print(*map(i.find_spec, ('torch', 'transformers')), skydraft.__file__)"
    )
    *absent, file = run(home, BIN / "python", "-c", program).split()
    assert absent == ["None", "None"]
    assert Path(file).is_relative_to(BIN.parent)


def test_the_wheel_has_every_file_of_the_package_and_the_licences(home: Path) -> None:
    program = "import importlib.metadata as m; print(*m.files('skydraft'), sep='\\n')"
    files = run(home, BIN / "python", "-c", program).splitlines()
    tracked = subprocess.run(["git", "ls-files", "."], cwd=PACKAGE, capture_output=True, text=True, check=True).stdout
    assert {f"skydraft/{name}" for name in tracked.splitlines()} <= set(files)
    assert {"LICENSE", "LICENSE.whisper"} <= {Path(file).name for file in files if "dist-info/licenses/" in file}
    program = "import importlib.metadata as m; print(m.metadata('skydraft')['License-Expression'])"
    assert run(home, BIN / "python", "-c", program).strip() == "Apache-2.0 AND CC-BY-NC-SA-4.0 AND MIT"


# What a new user reads


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_a_page_does_what_it_shows(tmp_path: Path, name: str) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    furnish(tmp_path)
    with Reader(tmp_path, BIN, environment={"PATH": os.environ["PATH"]}) as reader:
        reader.read(ROOT / name)


def test_settings_models_and_completion_are_shown(home: Path) -> None:
    (home / ".config" / "skydraft").mkdir(parents=True)
    file = home / ".config" / "skydraft" / "config.toml"
    found = re.search(r"^```toml\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    file.write_text(found[1])
    assert "gpu.example" in run(home, "skydraft", "settings")
    file.unlink()
    assert "max_tokens" in run(home, "skydraft", "settings", "--all")
    run(home, "skydraft", "models", "list")
    run(home, "bash", "-c", 'eval "$(skydraft completion bash)"')


# Language models


@pytest.mark.text
def test_a_device_without_torch_writes_the_text_of_a_cloud_that_has_it(home: Path, text_pair: Path) -> None:
    target = text_pair / "target"
    start = [sys.executable, "-m", "skydraft", "cloud", "--model", target, "--port", 0]
    with listening(home, ANNOUNCEMENT, *start) as address:
        ask = ("skydraft", "generate", "Once upon a time,", "--cloud", address, "--max-tokens", 40)
        texts = [run(home, *ask, "--draft", f"lookup:{target}", "--mode", mode) for mode in ("hybrid", "cloud")]
    assert texts[0] == texts[1]
    assert len(texts[0].split()) > 20
