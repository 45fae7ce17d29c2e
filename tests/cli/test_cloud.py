import json
import socket
from pathlib import Path

import pytest

from skydraft.cli import run
from skydraft.cli.cloud import line_for_devices


@pytest.mark.parametrize("replicas", [[], ["--ray", "2"]])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "host 0.0.0.0 is open to other machines and there are no API keys"),
        (["--behind-proxy"], "a proxy lets other machines in and there are no API keys"),
        (["--tls-cert", "cert.pem"], "give both --tls-cert and --tls-key"),
        (["--keys", "missing.toml"], "make it with: skydraft cloud-key add NAME --keys missing.toml"),
        (["--tls-cert", "missing.pem", "--tls-key", "missing.key"], "missing.pem .* cannot be used: No such file"),
    ],
)
def test_a_cloud_that_would_be_open_or_is_set_up_wrongly_is_refused_before_its_model_is_loaded(
    flags: list[str], words: str, replicas: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cloud", "--model", "a-model-that-nobody-has", "--port", "0", *replicas, *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    with pytest.raises(ValueError, match=words):
        raise ValueError(err)


def test_beyond_this_machine_keys_are_not_enough_without_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.toml"
    assert run(["cloud-key", "add", "phone", "--keys", str(keys)]) == 0
    capsys.readouterr()
    assert run(["cloud", "--model", "a-model-that-nobody-has", "--host", "0.0.0.0", "--keys", str(keys)]) == 2
    assert "pass unencrypted: give --tls-cert and --tls-key, or say --behind-proxy" in capsys.readouterr().err


def test_a_new_key_is_all_that_is_printed_and_the_note_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cloud-key", "add", "phone", "--keys", str(tmp_path / "keys.toml")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("skydraft.phone.")
    assert out.count("\n") == 1
    assert "only time that the key is shown" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "a b"], "a key's name is 1 to 64"),
        (["add", "phone", "--max-sessions", "0"], "wrong limit of a key"),
        (["remove", "phone"], "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_key_is_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["cloud-key", *arguments, "--keys", str(tmp_path / "keys.toml")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert words in err


def test_keys_are_listed_with_the_limits_that_are_not_the_usual_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.toml"
    assert run(["cloud-key", "add", "phone", "--keys", str(keys)]) == 0
    assert run(["cloud-key", "add", "robot", "--max-sessions", "2", "--sees-metrics", "--keys", str(keys)]) == 0
    capsys.readouterr()
    assert run(["cloud-key", "list", "--keys", str(keys)]) == 0
    assert capsys.readouterr().out == "phone\nrobot  max_sessions=2  sees_metrics=True\n"
    assert run(["cloud-key", "list", "--json", "--keys", str(keys)]) == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["phone", "robot"]
    assert "sha256" not in out


@pytest.mark.parametrize(
    ("address", "has_keys", "line"),
    [
        ("ws://127.0.0.1:8471", False, "export SKYDRAFT_CLOUD=ws://127.0.0.1:8471"),
        ("wss://gpu.example:1", True, "export SKYDRAFT_CLOUD=wss://gpu.example:1 SKYDRAFT_KEY=..."),
        ("wss://0.0.0.0:1", False, f"export SKYDRAFT_CLOUD=wss://{socket.gethostname()}:1"),
        ("wss://[::]:1", False, f"export SKYDRAFT_CLOUD=wss://{socket.gethostname()}:1"),
    ],
)
def test_a_cloud_says_what_to_paste_on_a_device(address: str, has_keys: bool, line: str) -> None:
    assert line_for_devices(address, has_keys) == line
