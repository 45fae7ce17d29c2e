"""`skydraft serve` as a process: it starts a cloud, says where it is, writes, and ends in good order."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from skydraft.cli.serve import ANNOUNCEMENT
from tests.gateway.running import DRAFT, TARGET, truth
from tests.system.processes import Process, skydraft, started
from tests.waiting import PATIENCE_S, wait_until

ENDLESS = "table:vocab=64,seed=3,order=2"
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


@pytest.mark.parametrize("num_signals", [1, 2])
def test_a_text_under_way_does_not_keep_it_and_it_ends_without_a_word_too_many(num_signals: int) -> None:
    slow = ("--draft", f"paced:step_ms=20:{ENDLESS}", "--target", f"paced:step_ms=20:{ENDLESS}", "--port", "0")
    with started("serve", *slow) as process:
        url = address_of(process)
        body = {"prompt": "ba de", "max_tokens": 4000, "stream": True}
        with httpx.stream("POST", f"{url}/completions", json=body, timeout=PATIENCE_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            if num_signals == 2:
                wait_until(lambda: not is_reachable(url))
                process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.TransportError):
                list(lines)
        process.wait(PATIENCE_S)
        assert not {"Traceback", "Exception", "CancelledError"}.intersection(re.findall(r"\w+", process.stderr.read()))


def is_reachable(url: str) -> bool:
    try:
        httpx.get(f"{url}/models", timeout=PATIENCE_S)
    except httpx.TransportError:
        return False
    return True


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
