"""What the command line promises, with real processes. Models are tables; tests/system/test_cli_embedded.py hears."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tokenizers
from websockets.sync.server import ServerConnection, serve

from skydraft.protocol import codec, messages
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings
from tests.system.processes import Process, children, free_port, interrupt, is_alive, running_cloud, skydraft, started
from tests.waiting import PATIENCE_S, until, wait_until

TARGET = "table:vocab=64,seed=3,order=2"
DRAFT = f"{TARGET},noise=0.8"
SLOW = "paced:step_ms=20:"
HELP_MODULES = 240  # 194 with Python 3.11; asyncio alone would add 53, numpy 90
HELP_CPU_S = 0.3
PROMPT = "ba de fi"
LONG = 100  # tokens of a text in which something happens
# In the midst of such a text: 900 bytes pass before its first token, and 2000 in all. Nothing passes afterwards.
CUT = LinkSettings(cut_after_bytes=1500, refuse_s=86400)
TONE = np.sin(np.arange(16_000) / 20).astype(np.float32) / 2

linux_only = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with running_cloud(TARGET) as (_, address):
        yield address


def generate(*flags: object, draft: str = DRAFT, num_tokens: int = 24) -> subprocess.CompletedProcess[str]:
    return skydraft("generate", PROMPT, "--draft", draft, "--max-tokens", str(num_tokens), *map(str, flags))


def json_of(*flags: object, draft: str = DRAFT, num_tokens: int = 24) -> dict[str, Any]:
    done = generate("--json", *flags, draft=draft, num_tokens=num_tokens)
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def refusal(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one sentence of a command that failed."""
    assert done.returncode == status, done
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_help_loads_no_more_than_it_shows() -> None:
    code = (
        "import sys; before = set(sys.modules); import atexit, skydraft.cli; sys.argv = ['skydraft', '--help']; "
        "atexit.register(lambda: print(*set(sys.modules) - before, file=sys.stderr)); skydraft.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "Commands:" in done.stdout
    loaded = done.stderr.split()
    packages = {name.partition(".")[0] for name in loaded}
    assert "skydraft" in packages
    assert packages - sys.stdlib_module_names <= {"skydraft", "click", "msgspec", "typing_extensions"}
    assert not packages & {"asyncio", "concurrent", "email", "http", "multiprocessing", "ssl", "subprocess"}
    assert len(loaded) < HELP_MODULES


@pytest.mark.slow  # a claim about time, which a busy machine cannot show
def test_help_takes_less_than_0_3_seconds_of_cpu() -> None:
    times_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert skydraft("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times_s.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert statistics.median(times_s) < HELP_CPU_S


def test_hybrid_with_a_cloud_for_the_occasion_writes_what_the_cloud_writes(cloud: str) -> None:
    law = ("--temperature", "1", "--seed", "11")
    alone = json_of("--cloud", cloud, "--mode", "cloud", *law)
    together = json_of("--target", TARGET, "--way", "wait:5", *law)
    assert together["text"] == alone["text"] != ""
    assert "".join(token["text"] for token in together["tokens"]) == together["text"]
    assert ids(together) == ids(alone)
    assert {token["origin"] for token in together["tokens"]} >= {"accepted", "corrected"}
    assert (together["prompt"], together["mode"], together["disclosure"]["share"]) == (PROMPT, "hybrid", "tokens")
    assert 0 < together["rounds"] < 24
    assert 0 < together["first_token_s"] <= together["total_s"]
    assert together["bytes"]["up"]["drafts"] > 0
    assert together["bytes"]["down"]["verdicts"] > 0
    assert alone["rounds"] == 0


def test_the_device_alone_sends_nothing_and_prints_plain_text() -> None:
    done = generate("--mode", "edge", "--share", "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().replace(" ", "").isalpha()
    assert "\x1b" not in done.stdout


def test_a_prompt_comes_from_standard_input(cloud: str) -> None:
    flags = ("--draft", DRAFT, "--mode", "cloud", "--cloud", cloud, "--json", "--max-tokens", "3")
    done = skydraft("generate", "-", *flags, stdin=None, input=PROMPT)
    assert json.loads(done.stdout)["prompt"] == PROMPT


def test_bad_files_are_one_sentence_each_and_nothing_is_loaded_for_them(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    done = skydraft("caption", *files, "--json", "--draft", "a-model-that-nobody-has")
    assert done.returncode == 1
    sentences = done.stderr.splitlines()
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(file) for file in files]
    assert [f"Error: {answer['error']}" for answer in answers] == sentences
    for (file, words), sentence in zip(files.items(), sentences, strict=True):
        assert file.name in sentence
        assert words in sentence


def bad_files(folder: Path) -> dict[Path, str]:
    """Files that cannot be captioned, and words of the reason."""
    soundfile.write(folder / "silent.wav", np.zeros(16_000, np.float32), 16_000)
    soundfile.write(folder / "nan.wav", np.where(np.arange(16_000) == 99, np.nan, TONE), 16_000, subtype="FLOAT")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is not audio")
    whole = folder / "whole.flac"
    soundfile.write(whole, TONE, 16_000)
    (folder / "cut.wav").write_bytes(whole.read_bytes()[:-500])
    words = {"missing": "does not exist", "empty": "is empty", "text": "not a sound file", "silent": "is silent"}
    words |= {"nan": "1 of its 16,000 samples are NaN", "cut": "cut off"}
    return {folder / f"{name}.wav": reason for name, reason in words.items()}


def test_a_model_without_ears_is_one_sentence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", TONE, 16_000)
    done = skydraft("caption", tmp_path / "tone.wav", "--draft", DRAFT, "--mode", "edge")
    assert "cannot hear tone.wav" in refusal(done, status=2)


@pytest.mark.parametrize("offline", ["fail", "wait"])
def test_a_cloud_that_was_never_there_is_one_sentence_before_a_model_is_looked_for(offline: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = skydraft("generate", "ba de", "--draft", "no/such/model", "--cloud", address, "--offline", offline)
    sentence = refusal(done)
    assert address in sentence
    assert "nothing listens there" in sentence


def test_an_unencrypted_way_to_a_cloud_is_pointed_out() -> None:
    done = skydraft("generate", "ba de", "--draft", DRAFT, "--cloud", "ws://cloud.invalid:9", "--key", "secret")
    note, sentence = done.stderr.splitlines()
    assert note.startswith("Note: ws://cloud.invalid:9 is not encrypted: whoever is on the way reads the key and the")
    assert sentence.startswith("Error: no cloud could be reached")
    assert "secret" not in done.stderr


def test_a_device_goes_on_alone_where_no_cloud_is_there() -> None:
    done = generate("--cloud", f"127.0.0.1:{free_port()}", "--offline", "edge", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["is_alone"], len(answer["tokens"])) == (0, True, 24)
    assert {token["origin"] for token in answer["tokens"]} == {"edge"}
    assert "goes on alone" in done.stderr


def test_a_model_that_is_not_there_is_one_sentence_for_either_side() -> None:
    assert "there is no model folder nowhere" in refusal(generate("--target", TARGET, draft="nowhere"))
    assert "there is no model folder nowhere" in refusal(generate("--target", "nowhere"))


def test_a_cloud_that_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    config: dict[str, object] = {"model_type": "llama", "vocab_size": 4, "architectures": ["LlamaForCausalLM"]}
    folder = str(other_model(tmp_path, config))  # of which there are no weights
    done = generate("--target", folder, "--mode", "cloud", draft=folder)
    assert f"a cloud for {folder} did not start: other-tokens has no model.safetensors" in refusal(done)


@pytest.mark.parametrize("mode", ["hybrid", "cloud"])
def test_another_vocabulary_is_one_sentence_that_names_both_models_before_weights_are_loaded(
    cloud: str, tmp_path: Path, mode: str
) -> None:
    folder = other_model(tmp_path, {"model_type": "llama", "vocab_size": 4})  # of which there are none
    for where in (("--cloud", cloud), ("--target", TARGET)):
        sentence = refusal(generate(*where, "--mode", mode, draft=str(folder)))
        assert "do not share a vocabulary" in sentence
        assert "other-tokens" in sentence
        assert TARGET in sentence


def other_model(parent: Path, config: dict[str, object]) -> Path:
    """A folder with other tokens than the tables have, and without weights."""
    folder = parent / "other-tokens"
    folder.mkdir()
    words = {"[UNK]": 0, "ba": 1, "de": 2, "fi": 3}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_cloud_of_another_version_is_one_sentence_that_names_both() -> None:
    def answer(connection: ServerConnection) -> None:
        connection.recv()
        mark = messages.VocabularyMark(64, bytes(16))
        limits = messages.Limits(100, 64, 8)
        connection.send(codec.encode(messages.Opened(99, 0, b"key", 0, bytes(8), mark, limits)))
        connection.recv()

    with serve(answer, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever).start()
        done = generate("--cloud", f"127.0.0.1:{server.socket.getsockname()[1]}")
        server.shutdown()
    assert f"version {messages.PROTOCOL_VERSION} of the skydraft protocol and the other side version 99" in refusal(
        done
    )


async def test_a_device_that_loses_its_cloud_finishes_alone(cloud: str) -> None:
    with running_cloud(SLOW + TARGET) as (process, address):
        async with Link(upstream(address), CUT) as link:
            with writing_through(link, "--offline", "edge") as device:
                await cut(link)
                process.kill()
                out, err = await asyncio.to_thread(device.communicate, timeout=PATIENCE_S)
    answer = json.loads(out)
    assert (device.returncode, answer["is_alone"], len(answer["tokens"])) == (0, True, LONG)
    origins = [token["origin"] for token in answer["tokens"]]
    num_together = origins.index("edge")
    assert 0 < num_together < LONG
    assert set(origins[num_together:]) == {"edge"}
    whole = json_of("--cloud", cloud, "--mode", "cloud", num_tokens=LONG)
    assert ids(answer)[:num_together] == ids(whole)[:num_together]
    assert err.count("\n") == 1
    assert "goes on alone" in err


async def test_a_device_waits_for_a_lost_cloud_and_writes_the_same_text(cloud: str) -> None:
    port = free_port()
    with running_cloud(SLOW + TARGET, port) as (process, address):
        async with Link(upstream(address), CUT) as link:
            with writing_through(link, "--offline", "wait", "--offline-wait", "3600") as device:
                await cut(link)
                process.kill()
                process.wait()
                with running_cloud(TARGET, port):
                    link.cut(refuse_s=0)  # from now on it lets connections through
                    out, err = await asyncio.to_thread(device.communicate, timeout=PATIENCE_S)
    answer = json.loads(out)
    assert (device.returncode, answer["is_alone"], answer["reconnects"]) == (0, False, 1)
    assert ids(answer) == ids(json_of("--cloud", cloud, "--mode", "cloud", num_tokens=LONG))
    assert err.count("\n") == 1
    assert "trying again" in err


def ids(answer: dict[str, Any]) -> list[int]:
    return [token["id"] for token in answer["tokens"]]


def upstream(address: str) -> Address:
    return Address("127.0.0.1", int(address.rpartition(":")[2]))


def writing_through(link: Link, *flags: str) -> contextlib.AbstractContextManager[Process]:
    """A device that writes a text with a cloud at the other end of a link."""
    cloud = f"{link.address}"
    length = ("--max-tokens", str(LONG))
    return started("generate", PROMPT, "--draft", SLOW + DRAFT, "--cloud", cloud, *length, "--json", *flags)


async def cut(link: Link) -> None:
    """Wait until the link has broken off."""
    await until(lambda: link.carried.up_bytes + link.carried.down_bytes == CUT.cut_after_bytes)


@linux_only
def test_ctrl_c_while_models_load_ends_everything_quietly() -> None:
    with started("generate", PROMPT, "--draft", DRAFT, "--target", TARGET, start_new_session=True) as process:
        wait_until(lambda: children(process.pid), "a cloud for the occasion")
        [child] = children(process.pid)
        interrupt(process)
        assert process.communicate(timeout=PATIENCE_S) == ("", "")
        assert process.returncode == 130
        assert not is_alive(child)


@linux_only
@pytest.mark.parametrize("is_killed", [False, True])
def test_the_cloud_for_the_occasion_ends_with_the_one_that_started_it(is_killed: bool) -> None:
    terminal, inside = os.openpty()
    flags = ("--draft", SLOW + DRAFT, "--target", SLOW + TARGET, "--max-tokens", "3000", "--way", "wait:4")
    with started(
        "generate", PROMPT, *flags, stdout=inside, start_new_session=True, env=os.environ | {"TERM": "xterm-256color"}
    ) as process:
        os.close(inside)
        shown = b""
        while shown.count(b"\x1b[38;5;") < 20:  # words in their origin's colours
            shown += os.read(terminal, 4096)
        [child] = children(process.pid)
        if is_killed:
            process.kill()
        else:
            interrupt(process)
        shown += rest(terminal)
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == (-9 if is_killed else 130)
        wait_until(lambda: not is_alive(child), "the end of the cloud")
    os.close(terminal)
    assert b"\x1b" not in re.sub(rb"\x1b\[[0-9;]*m", b"", shown), "something was drawn again"
    if not is_killed:
        assert shown.count(b"\n") == 1, "the text is one line, and Ctrl-C ends it"
        assert shown.endswith(b"\r\n")


def test_a_text_comes_out_of_a_pipe_as_it_is_written_and_stays_when_it_is_interrupted() -> None:
    flags = ("--draft", SLOW + DRAFT, "--mode", "edge", "--max-tokens", "3000")
    with started("generate", PROMPT, *flags, start_new_session=True) as process:
        shown = b""
        while len(shown.split()) < 5:
            shown += os.read(process.stdout.fileno(), 4096)
        assert process.poll() is None
        interrupt(process)
        rest, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "")
    words = json_of("--mode", "edge", draft=DRAFT, num_tokens=3000)["text"]
    text = shown.decode() + rest
    assert text.endswith("\n")
    assert words.startswith(text.rstrip("\n"))


def test_nobody_reads_on_is_status_141_and_the_end_of_the_text() -> None:
    flags = ("--draft", SLOW + DRAFT, "--mode", "edge", "--max-tokens", "3000")
    with started("generate", PROMPT, *flags) as process:
        assert os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == ""


@linux_only
def test_what_a_pipe_takes_in_part_while_the_command_is_stopped_is_not_lost() -> None:
    flags = ("--draft", DRAFT, "--mode", "edge", "--max-tokens", "3000", "--json")
    with started("generate", PROMPT, *flags, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        pipe = process.stdout.fileno()
        size = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        wait_until(lambda: fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) == size.to_bytes(4, sys.byteorder))
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert len(out) > size
    assert len(json.loads(out)["tokens"]) == 3000


def rest(terminal: int) -> bytes:
    """What comes until the other end is closed."""
    data = b""
    try:
        while part := os.read(terminal, 4096):
            data += part
    except OSError:  # how Linux says so
        pass
    return data


def test_a_cloud_says_where_it_listens_and_ctrl_c_ends_it_quietly() -> None:
    with started("cloud", "--model", TARGET, "--port", "0", start_new_session=True) as process:
        assert process.stdout.readline().startswith("skydraft cloud listens on ws://127.0.0.1:")
        assert process.stderr.readline().startswith("On a device: export SKYDRAFT_CLOUD=ws://127.0.0.1:")
        interrupt(process)
        assert process.communicate(timeout=PATIENCE_S) == ("", "")
        assert process.returncode == 130


def test_a_cloud_is_refused_a_port_in_use(cloud: str) -> None:
    port = cloud.rpartition(":")[2]
    told = refusal(skydraft("cloud", "--target", TARGET, "--port", port))
    assert f"nothing can listen on 127.0.0.1 port {port}" in told


@pytest.mark.parametrize("where", [("--target", TARGET), ("--mode", "edge")])
def test_a_text_that_outgrows_a_slot_is_printed_as_far_as_it_goes_and_ends_with_status_3(
    where: tuple[str, ...],
) -> None:
    limits = ("--max-length", 24)  # the prompt comes on top
    told = generate(*where, *limits, "--json")
    result = json.loads(told.stdout)
    assert told.returncode == 3
    assert 5 < len(result["tokens"]) < 24
    assert result["ended_early"] in told.stderr
    assert "--max-length" in result["ended_early"]
    piped = generate(*where, *limits)
    assert (piped.returncode, piped.stdout) == (3, result["text"] + "\n")
    assert "Note: the text ended early, after" in piped.stderr
