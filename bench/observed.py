"""A cloud or a gateway in a process of its own that is watched: its memory, what it counts, what it logs."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

from skydraft.cli.serve import ANNOUNCEMENT as GATEWAY_ANNOUNCEMENT
from skydraft.edge.local_cloud import ANNOUNCEMENT
from skydraft.errors import TransportError

ANSWER_S = 30.0
STOP_S = 10.0
SHARE_WARM_UP = 0.1
TRACEBACK = "Traceback (most recent call last)"


class Sample(NamedTuple):
    """A cloud at one moment. at_s: since it was started. rss_bytes: memory that it holds."""

    at_s: float
    rss_bytes: int
    num_sessions: int
    num_connections: int


def memory_growth(samples: Sequence[Sample]) -> float:
    """Median of the second half against that of the first, less 1; what is before is left out as a warm-up."""
    steady = [sample.rss_bytes for sample in samples[int(SHARE_WARM_UP * len(samples)) :]]
    if len(steady) < 2:
        return 0.0
    middle = len(steady) // 2
    return statistics.median(steady[middle:]) / statistics.median(steady[:middle]) - 1


class ObservedCloud:
    """A running cloud, made by `observed_cloud`, or a gateway, made by `observed_gateway`.

    url: as `ws://HOST:PORT`; of a gateway as `http://HOST:PORT/v1`.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.url = url
        self._process = process
        self._log = log
        self._began_s = time.monotonic()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def num_tracebacks(self) -> int:
        """In its log: each is a mistake of ours that a peer could reach."""
        return self.log.count(TRACEBACK)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def cpu_s(self) -> float:
        """Processor time that it has taken."""
        return float(sum(psutil.Process(self._process.pid).cpu_times()[:2]))

    @property
    def process_id(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a lack of memory or power would."""
        self._process.kill()
        self._process.wait()

    def total(self, name: str) -> float:
        """What a counter of /metrics, or the sum of a histogram, says. Raises: TransportError."""
        return self._counts()[(f"skydraft_{name}", "")]

    @property
    def rss_bytes(self) -> int:
        """Memory that it holds now."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def sample(self) -> Sample:
        """Look at it now.

        Raises:
            TransportError: it does not answer any more.
        """
        counts = self._counts()
        return Sample(
            at_s=time.monotonic() - self._began_s,
            rss_bytes=self.rss_bytes,
            num_sessions=int(counts[("skydraft_sessions", "")]),
            num_connections=int(counts[("skydraft_connections", "")]),
        )

    def faults(self) -> dict[str, int]:
        """How many it has said, by code. Raises: TransportError."""
        return {code: int(n) for (name, code), n in self._counts().items() if name == "skydraft_faults_total"}

    def _counts(self) -> dict[tuple[str, str], float]:
        """What /metrics says, by name and the label "code", which is empty where there is none."""
        families = text_string_to_metric_families(self._metrics())
        return {
            (sample.name, sample.labels.get("code", "")): sample.value
            for family in families
            for sample in family.samples
        }

    def _metrics(self) -> str:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=ANSWER_S)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except OSError as error:
            state = "does not answer" if self.is_alive else f"ended with status {self._process.returncode}"
            raise TransportError(
                f"the cloud at {self.url} {state} ({error}); its log ends: {self.log[-500:]}"
            ) from error
        finally:
            connection.close()


@contextmanager
def observed_cloud(model: str, *flags: str) -> Iterator[ObservedCloud]:
    """Run `skydraft cloud` on a free port for as long as the context lasts.

    Raises:
        TransportError: it did not start; with its own last words.
    """
    command = [sys.executable, "-m", "skydraft", "cloud", "--model", model, "--port", "0", "--with-stdin", *flags]
    with _observed([*command, "--drain", "0"], ANNOUNCEMENT) as cloud:
        yield cloud


@contextmanager
def observed_gateway(model: str, *flags: str) -> Iterator[ObservedCloud]:
    """Run `skydraft serve` on a free port, with a cloud of its own, for as long as the context lasts.

    Raises:
        TransportError: it did not start; with its own last words.
    """
    command = [sys.executable, "-m", "skydraft", "serve", "--draft", model, "--target", model, "--port", "0", *flags]
    with _observed(command, GATEWAY_ANNOUNCEMENT) as gateway:
        yield gateway


@contextmanager
def _observed(command: Sequence[str], announcement: str) -> Iterator[ObservedCloud]:
    with tempfile.TemporaryDirectory() as folder, _started(command, Path(folder, "log")) as process:
        yield ObservedCloud(process, _address(process, Path(folder, "log"), announcement), Path(folder, "log"))


@contextmanager
def _started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            _stop(process)


def _address(process: subprocess.Popen[str], log: Path, announcement: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(announcement):
            return line.removeprefix(announcement).strip()
    raise TransportError(f"it did not start: {log.read_text()[-500:].strip()}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
