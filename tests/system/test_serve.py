"""`skydraft serve` as a process: it starts a cloud, says where it is, writes, and ends in good order."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from skydraft.cli.serve import ANNOUNCEMENT
from tests.gateway.running import DRAFT, TARGET, truth
from tests.system.processes import Process, skydraft, started
from tests.waiting import PATIENCE_S, wait_until

PAIR = ("--draft", DRAFT, "--target", TARGET, "--port", "0")


def address_of(process: Process) -> str:
    line = process.stdout.readline()
    assert line.startswith(ANNOUNCEMENT), line + process.stderr.read()
    return line.removeprefix(ANNOUNCEMENT).strip()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_writes_with_a_cloud_of_its_own_and_both_end(end: signal.Signals) -> None:
    with started("serve", *PAIR) as process:
        url = address_of(process)
        (cloud,) = psutil.Process(process.pid).children()
        body = {"model": "any", "prompt": "ba de", "max_tokens": 40}
        answer = httpx.post(f"{url}/completions", json=body, timeout=PATIENCE_S).json()
        assert answer["choices"][0]["text"] == truth("ba de")
        assert answer["model"] == TARGET
        process.send_signal(end)
        process.wait(PATIENCE_S)
        wait_until(lambda: not cloud.is_running() or cloud.status() == psutil.STATUS_ZOMBIE)


def test_settings_of_a_file_count_and_flags_stand_above_them(tmp_path: Path) -> None:
    file = tmp_path / "skydraft.toml"
    file.write_text(
        f'[device]\ndraft = "{DRAFT}"\nmode = "edge"\nshare = "none"\nmax_tokens = 3\n[gateway]\nport = 1\n'
    )
    with started("serve", "--config", file, "--port", "0", "--max-tokens", "5") as process:
        url = address_of(process)
        answer = httpx.post(f"{url}/completions", json={"prompt": "ba"}, timeout=PATIENCE_S).json()
        assert answer["usage"]["completion_tokens"] == 5
        assert answer["skydraft"]["tokens"]["edge"] == 5


def test_an_endpoint_that_would_be_open_is_refused_before_anything_is_loaded() -> None:
    run = skydraft("serve", *PAIR, "--host", "0.0.0.0")
    assert run.returncode == 2
    assert "no API keys" in run.stderr
