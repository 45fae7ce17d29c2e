"""Somebody who types what a page shows, in a new home, with real processes.

What a page names stands for what is there: SMALL, LARGE and MODEL for a pair of models, gpu.example and the usual ports
for this machine and free ones. `skydraft cloud` and `skydraft serve` go on until the page ends.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from skydraft.cli.serve import ANNOUNCEMENT as GATEWAY_ANNOUNCEMENT
from skydraft.edge.local_cloud import ANNOUNCEMENT
from tests.docs.pages import ROOT, Block, blocks, statements
from tests.waiting import PATIENCE_S

CLOUD, CLOUD_PORT, TLS_PORT, GATEWAY_PORT = "gpu.example", "127.0.0.1:8471", "wss://localhost:8471", "127.0.0.1:8472"
SERVER = re.compile(r"skydraft (?:cloud|serve)(?: |$)")
SAYS, LOOSELY = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CLIPS = ROOT / "src" / "skydraft" / "audio" / "clips"


class ModelPair(NamedTuple):
    """What SMALL and LARGE stand for."""

    draft: str
    target: str


STORIES = ModelPair("stories", "stories")  # that come with skydraft


def furnish(home: Path) -> None:
    """The files that pages name, those that need ffmpeg where it is."""
    for clip in CLIPS.glob("*.flac"):
        shutil.copy(clip, home)
    (home / "src").symlink_to(ROOT / "src")
    (home / "diary.txt").write_text("It rained. We stayed in.")
    certificate = shlex.split(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(certificate, cwd=home, check=True, capture_output=True, timeout=PATIENCE_S)
    if shutil.which("ffmpeg"):
        (home / "recordings").mkdir()
        for name in ("recording.wav", "interview.m4a", "film.mp4", "recordings/one.ogg"):
            command = ["ffmpeg", "-loglevel", "error", "-i", "sad.flac", name]
            subprocess.run(command, cwd=home, check=True, timeout=PATIENCE_S)


class Reader:
    """A context: at its end all that it started has ended.

    Args:
        home: a furnished folder.
        commands: where skydraft and python are.
        models: what SMALL and LARGE stand for.
        environment: what the shell has when it starts.
    """

    def __init__(
        self,
        home: Path,
        commands: Path = Path(sys.executable).parent,
        models: ModelPair = STORIES,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._home = home
        self._shell = home.with_suffix(".shell")  # what the reader's shell has exported
        path = f"{commands}{os.pathsep}{environment['PATH']}"
        self._environment = {**environment, "HOME": str(home), "PATH": path, "NO_COLOR": "1"}
        self._names = {"SMALL": models.draft, "LARGE": models.target, "MODEL": models.target}
        self._names["skydraft listen"] = "skydraft listen --file sad.flac"  # there is no microphone
        self._names["skydraft chat"] = "echo Hello. | skydraft chat"  # nor anybody who types
        self._servers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            server.communicate()

    def read(self, page: Path) -> None:
        """Do what it shows, from its first block to its last.

        Raises:
            AssertionError: a command failed, or printed what the page does not say.
        """
        for block in blocks(page.read_text()):
            if block.not_run is not None:
                continue
            printed = self.follow(block)
            if block.prints is not None and not SAYS.check_output(block.prints, printed, LOOSELY):
                raise AssertionError(f"{page.name}, line {block.line}, prints\n{printed}\nand not\n{block.prints}")

    def follow(self, block: Block) -> str:
        """Type a block; returns what it printed.

        Raises:
            AssertionError: a command failed.
        """
        if block.language == "python":
            program = self._shell.with_suffix(".py")
            program.write_text(self._as_here(block.code))
            return self._type(f"python {program}")
        printed = ""
        for is_server, lines in groupby(statements(block.code), lambda line: SERVER.match(line) is not None):
            for code in lines if is_server else ["\n".join(lines)]:
                printed += self._start(code) if is_server else self._type(code)
        return printed

    def _type(self, code: str) -> str:
        """A command that ends, or several."""
        code = f"{self._in_shell(code)}\nexport -p > {self._shell}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code], cwd=self._home, env=self._environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        for key in re.findall(r"^skydraft\.\S+$", done.stdout, flags=re.MULTILINE):
            self._names["SKYDRAFT_KEY=..."] = f"SKYDRAFT_KEY={key}"
        return done.stdout

    def _start(self, line: str) -> str:
        """A cloud or a gateway, until it has announced its address."""
        code = self._in_shell(f"exec {line.partition('  #')[0]} --port 0")
        server = subprocess.Popen(
            ["bash", "-c", code], cwd=self._home, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        self._servers.append(server)
        assert server.stdout is not None
        announcement = server.stdout.readline()
        found = re.fullmatch(f"({ANNOUNCEMENT}|{GATEWAY_ANNOUNCEMENT})(.*)\n", announcement)
        assert found is not None, f"{line}\n{announcement}"
        address = urlsplit(found[2])
        if found[1] == GATEWAY_ANNOUNCEMENT:
            self._names[GATEWAY_PORT] = address.netloc
        else:
            self._names[CLOUD] = f"{address.scheme}://localhost:{address.port}"
            self._names[CLOUD_PORT] = self._names[CLOUD]
            self._names[TLS_PORT] = self._names[CLOUD]
        return announcement

    def _in_shell(self, code: str) -> str:
        """With what was exported before."""
        return f"test ! -e {self._shell} || . {self._shell}\n{self._as_here(code)}"

    def _as_here(self, code: str) -> str:
        """With what the page's names stand for."""
        code = re.sub(rf"(CN=|DNS:){CLOUD}", r"\1localhost", code)
        if CLOUD in code and CLOUD not in self._names:
            self._start("skydraft cloud --target LARGE")
        names = "|".join(map(re.escape, sorted(self._names, key=len, reverse=True)))
        return re.sub(rf"(?<![\w.-])(?:{names})(?![\w-])", lambda found: self._names[found[0]], code)
