"""What `--ray` and a configuration of Ray Serve refuse before Ray is begun; what works with Ray is in tests/ray.

What `--ray` refuses as a single cloud does is in tests/cli/test_cloud.
"""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from skydraft.cli import run
from skydraft.cloud.ray.serve import _reason, make_application
from skydraft.errors import ConfigError


def test_a_gpu_named_by_number_is_refused_for_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cloud", "--ray", "2", "--port", "0", "--device", "cuda:1"]) == 2
    assert "give --device cuda instead of cuda:1" in capsys.readouterr().err


def test_an_address_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["cloud", "--ray", "2", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another with --host and --port" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_the_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cloud", "--ray", "2", "--port", "0"]) == 1
    assert "the package ray is not installed: pip install 'skydraft[ray]'" in capsys.readouterr().err


def test_a_cluster_is_refused_without_keys_also_where_a_file_has_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "skydraft.toml"
    config.write_text('[cloud]\nmodel = "table:vocab=8"\n')
    for args in ({}, {"config": str(config)}, {"model": "embedded", "host": "127.0.0.1"}):
        with pytest.raises(ConfigError, match="a cluster's ports are open to other machines.*cloud-key add"):
            make_application(args)


def test_a_wrong_setting_for_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="slots"):
        make_application({"slots": 3})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "The deployment failed.\n  File x, line 1\nskydraft.errors.ModelLoadError: no such model: m\n\n",
            "no such model: m",
        ),
        ("Something\nelse", "else"),
        ("", "Ray gives no reason"),
    ],
)
def test_of_what_ray_says_of_a_failure_our_own_sentence_is_shown(message: str, reason: str) -> None:
    assert _reason(message) == reason
