"""A cloud with keys as a process: what it writes down, who comes in, and how it ends."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from skydraft.cloud.access.keys import KeyGrant, add_key, remove_key
from skydraft.core import Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.local_cloud import ANNOUNCEMENT
from skydraft.protocol import codec, messages
from tests.linked import table
from tests.system.processes import skydraft, started
from tests.waiting import PATIENCE_S, wait_until

LARGE = "table:vocab=60000,seed=5,order=1"  # so that its ids are numbers that a log holds for no other reason
PROMPT_IDS = (48611, 52207, 39119)
OFFERED_IDS = (46837, 22259, 33982)
SMALL = "table:vocab=64,seed=3,order=2"


@contextmanager
def cloud(log: Path, model: str, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A cloud that writes its log to a file, and its address."""
    with log.open("w") as stderr, started("cloud", "--model", model, "--port", "0", *flags, stderr=stderr) as process:
        line = process.stdout.readline()
        assert line.startswith(ANNOUNCEMENT), log.read_text()
        yield process, line.removeprefix(ANNOUNCEMENT).strip()


def write_text(socket: ClientConnection) -> tuple[EdgeSession, bytes]:
    """A text of offers and of credit; also its resume key."""
    sampling = SamplingParams(temperature=1.0, max_tokens=12)
    session = EdgeSession(table(LARGE).vocabulary, Prompt((TokenSegment(PROMPT_IDS),)), sampling, Exact())
    socket.send(codec.encode(session.open()))
    opened = codec.decode_cloud_message(socket.recv(timeout=PATIENCE_S, decode=False))
    assert isinstance(opened, messages.Opened)
    session.receive(opened)
    session.offer(OFFERED_IDS)
    session.give_credit(12)
    for message in session.to_send():
        socket.send(codec.encode(message))
    while not session.is_complete:
        session.receive(codec.decode_cloud_message(socket.recv(timeout=PATIENCE_S, decode=False)))
    return session, opened.resume_key


def test_a_log_at_debug_level_holds_no_key_no_prompt_and_no_text(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    key = add_key(keys, "phone", KeyGrant())
    log = tmp_path / "log"
    flags = ("--keys", str(keys), "--log-level", "debug", "--log-format", "json")
    with cloud(log, LARGE, *flags) as (process, address):
        url = address + "/v1/session"
        right, wrong = ({"Authorization": f"Bearer {word}"} for word in (key, f"{key}x"))
        with connect(url, additional_headers=right) as socket:
            session, resume_key = write_text(socket)
            socket.send(codec.encode(messages.Offer(0, b"\x01", session=9)))  # of a session that is not open
            socket.recv(timeout=PATIENCE_S)
        with connect(url, additional_headers=right) as socket:
            socket.send("words of a text frame")
            socket.recv(timeout=PATIENCE_S)
        with pytest.raises(InvalidStatus), connect(url, additional_headers=wrong):
            pass
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    text = log.read_text()
    assert "phone" in text  # the key's name: so that something was logged at all
    assert "unauthorized" in text or "nobody has this API key" in text
    secret = key.rpartition(".")[2]
    ids = {*PROMPT_IDS, *OFFERED_IDS, *session.token_ids}
    tokens = table(LARGE).vocabulary.tokens
    kept = [secret, "words of a text frame", resume_key.hex(), base64.b64encode(resume_key).decode(), repr(resume_key)]
    kept += [word for token_id in ids for word in (str(token_id), hex(token_id), tokens[token_id] or "")]
    numbers = set(re.findall(r"\w+", text))
    assert [word for word in kept if word in numbers or (len(word) > 8 and word in text)] == []
    assert all(json.loads(line)["level"] for line in text.splitlines())


def test_a_device_comes_in_with_its_key_until_it_is_taken_back(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    key = add_key(keys, "phone", KeyGrant())
    with cloud(tmp_path / "log", SMALL, "--keys", str(keys)) as (_, address):
        flags = ("ba de", "--draft", SMALL, "--mode", "cloud", "--cloud", address, "--max-tokens", "4")
        assert skydraft("generate", *flags, "--key", key).returncode == 0
        without = skydraft("generate", *flags)
        assert without.returncode == 1
        assert re.fullmatch(r"Error: .* asks for an API key .*--key or SKYDRAFT_KEY .*\n", without.stderr)
        remove_key(keys, "phone")
        wait_until(lambda: not is_let_in(address, key), "the key is taken back")


def test_a_cloud_whose_log_nobody_reads_serves_on_and_ends(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    add_key(keys, "phone", KeyGrant())
    # A pipe takes 64 KiB, so 600 lines and less.
    with started("cloud", "--model", SMALL, "--port", "0", "--keys", str(keys), "--log-level", "info") as process:
        address = process.stdout.readline().removeprefix(ANNOUNCEMENT).strip()
        for _ in range(900):
            assert not is_let_in(address, "x")
        assert "unauthorized" in metrics(address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == -signal.SIGTERM
        lines = process.stderr.read().splitlines()
    refusals = [line for line in lines if "a request was refused: nobody has this API key" in line]
    assert 0 < len(refusals) < 100


def test_sigterm_lets_a_running_text_end_first(tmp_path: Path) -> None:
    slow = f"paced:step_ms=20:{SMALL}"
    flags = ("ba de", "--draft", SMALL, "--max-tokens", "60")
    expected = skydraft("generate", *flags, "--mode", "edge")  # the same model, so the same text
    done: list[subprocess.CompletedProcess[str]] = []
    with cloud(tmp_path / "log", slow) as (process, address):
        device = threading.Thread(
            target=lambda: done.append(skydraft("generate", *flags, "--cloud", address, "--mode", "cloud"))
        )
        device.start()
        wait_until(lambda: "skydraft_sessions 1.0" in metrics(address), "a text is under way")
        process.send_signal(signal.SIGTERM)
        device.join(PATIENCE_S)
        assert process.wait(PATIENCE_S) == -signal.SIGTERM
    assert (done[0].returncode, done[0].stdout) == (0, expected.stdout)
    assert expected.stdout.strip() != ""
    assert done[0].stderr == expected.stderr  # nothing about a cloud that was lost


def is_let_in(address: str, key: str) -> bool:
    try:
        with connect(address + "/v1/session", additional_headers={"Authorization": f"Bearer {key}"}):
            return True
    except InvalidStatus:
        return False


def metrics(address: str) -> str:
    with urlopen(address.replace("ws://", "http://") + "/metrics", timeout=PATIENCE_S) as response:
        return str(response.read().decode())
