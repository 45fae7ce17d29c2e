"""The built wheel in an environment that has nothing else: what the README shows, run by it. `make test-wheel`.

The README's names stand for what is there: SMALL and LARGE for two tables, gpu.example for this machine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from skydraft.cli.serve import ANNOUNCEMENT as GATEWAY_ANNOUNCEMENT
from skydraft.edge.local_cloud import ANNOUNCEMENT
from tests.commands import ROOT, code_lines, shown_commands
from tests.waiting import PATIENCE_S

if "SKYDRAFT_WHEEL_BIN" not in os.environ:
    pytest.skip("needs the wheel in an environment of its own: make test-wheel", allow_module_level=True)

BIN = Path(os.environ["SKYDRAFT_WHEEL_BIN"])
PACKAGE = ROOT / "src" / "skydraft"
README = (ROOT / "README.md").read_text()
LARGE = "table:vocab=64,seed=3,order=2,end=5"
SMALL = f"{LARGE},noise=0.7"
CLOUD = "gpu.example"
SHOWN = list(shown_commands(README))
ONE_MACHINE = [words for words in SHOWN if words[0] not in ("cloud-key", "cloud", "serve") and CLOUD not in words]
TWO_MACHINES = [words for words in SHOWN if words[0] in ("doctor", "generate") and CLOUD in words]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new user's home and working directory, with the files that the README names."""
    home = tmp_path_factory.mktemp("home")
    for clip in (PACKAGE / "audio" / "clips").glob("*.flac"):
        shutil.copy(clip, home)
    if shutil.which("ffmpeg"):
        for name in ("recording.wav", "interview.m4a"):
            command = ["ffmpeg", "-loglevel", "error", "-i", "sad.flac", name]
            subprocess.run(command, cwd=home, check=True, timeout=PATIENCE_S)
    (home / "diary.txt").write_text("It rained. We stayed in.")
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


def with_names(words: list[str], home: Path, **names: str) -> list[str]:
    """The words of a command with what the README's names stand for."""
    named = {"SMALL": SMALL, "LARGE": LARGE} | {name.replace("_", "."): value for name, value in names.items()}
    found = [
        [path.name for path in sorted(home.glob(word))] if "*" in word else [named.get(word, word)] for word in words
    ]
    return [word for expanded in found for word in expanded]


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


# The README


@pytest.mark.parametrize("words", ONE_MACHINE, ids=" ".join)
def test_a_command_for_one_machine_runs(home: Path, words: list[str]) -> None:
    missing = {"recording.wav", "interview.m4a"} & set(words)
    if missing and shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    microphone = ["--file", "sad.flac"] if words == ["listen"] else []  # there is none
    typed = "Hello.\n" if words[0] == "chat" else ""
    assert run(home, "skydraft", *with_names(words, home), *microphone, typed=typed).strip()


def test_settings_models_and_completion_are_shown(home: Path) -> None:
    (home / ".config" / "skydraft").mkdir(parents=True)
    file = home / ".config" / "skydraft" / "config.toml"
    start = README.index("    [device]\n")
    file.write_text(README[start : README.index("\n\n", start)].replace("\n    ", "\n").strip())
    assert CLOUD in run(home, "skydraft", "settings")
    file.unlink()
    assert "max_tokens" in run(home, "skydraft", "settings", "--all")
    run(home, "skydraft", "models", "list")
    run(home, "bash", "-c", 'eval "$(skydraft completion bash)"')


@pytest.fixture(scope="module")
def cloud(home: Path) -> Iterator[dict[str, str]]:
    """The README's cloud, with its key and certificate. cloud: its address; key: for SKYDRAFT_KEY."""
    certificate = next(line for line in code_lines(README) if line.startswith("openssl "))
    run(home, *shlex.split(certificate.replace(CLOUD, "localhost")))
    add_key, start = (next(words for words in SHOWN if words[0] == name) for name in ("cloud-key", "cloud"))
    key = run(home, "skydraft", *add_key).split()[-1]
    with listening(home, ANNOUNCEMENT, "skydraft", *with_names(start, home), "--port", 0) as address:
        yield {"cloud": f"wss://localhost:{urlsplit(address).port}", "key": key}


@pytest.mark.parametrize("words", TWO_MACHINES, ids=" ".join)
def test_a_command_for_two_machines_runs(home: Path, cloud: dict[str, str], words: list[str]) -> None:
    command = with_names(words, home, gpu_example=cloud["cloud"])
    assert run(home, "skydraft", *command, SKYDRAFT_KEY=cloud["key"], SSL_CERT_FILE="tls.crt").strip()


def test_the_python_example_runs(home: Path) -> None:
    found = re.search(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    hears = [line for line in found[1].splitlines() if "client.caption" in line]
    writes = [line for line in found[1].splitlines() if line not in hears]
    head = [line for line in writes if not line.startswith("    ")]
    assert hears, "the example captions no recording"
    clip = str(home / "sad.flac")
    for lines, draft, target in ((writes, SMALL, LARGE), (head + hears, "embedded", "embedded")):
        program = "\n".join(lines).replace(f'cloud="{CLOUD}"', f'target="{target}"')
        program = program.replace('draft="SMALL"', f'draft="{draft}"').replace("recording.wav", clip)
        assert run(home, BIN / "python", "-c", program).strip()


def test_an_app_is_answered(home: Path) -> None:
    command = next(words for words in SHOWN if words[0] == "serve")
    command = [
        "skydraft",
        *with_names([word.replace("--cloud", "--target") for word in command], home, gpu_example=LARGE),
    ]
    with listening(home, GATEWAY_ANNOUNCEMENT, *command, "--port", 0) as address:
        body = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
        request = urllib.request.Request(
            f"http://{urlsplit(address).netloc}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            answer = json.load(response)
    assert answer["choices"][0]["message"]["content"]


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
