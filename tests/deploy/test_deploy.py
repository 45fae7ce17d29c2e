"""What is in deploy/ is well formed and names only what there is."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from skydraft.cli.app import app
from skydraft.cloud.ray import scaling as ray_scaling
from skydraft.cloud.ray.serve import DEPLOYMENT, make_application
from skydraft.config import CloudSettings, with_flags
from tests.waiting import PATIENCE_S

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which skydraft[torch] brings")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DRAIN_MARGIN_S = 10


def check_command(command: list[str]) -> dict[str, Any]:
    """Parse `skydraft cloud ...` as it would be; returns its parameters."""
    assert Path(command[0]).name == "skydraft"
    assert command[1] == "cloud"
    cloud = app.commands["cloud"]
    return cloud.make_context("cloud", command[2:]).params


# systemd


@pytest.fixture
def unit() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "skydraft-cloud.service")
    return parser["Service"]


def test_the_units_command_is_one_and_its_stop_waits_for_the_drain(unit: configparser.SectionProxy) -> None:
    flags = check_command(shlex.split(unit["ExecStart"]))
    assert {flags[name] is not None for name in ("config", "keys", "tls_cert", "tls_key")} == {True}
    assert int(unit["TimeoutStopSec"]) == flags["drain_s"] + DRAIN_MARGIN_S


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "skydraft-cloud.service"
    text = (DEPLOY / unit.name).read_text()
    unit.write_text(text.replace("/opt/skydraft/bin/skydraft", "/bin/true"))  # verify wants a program that is there
    command = ["systemd-analyze", "verify", str(unit)]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    rated = subprocess.run(command, capture_output=True, timeout=PATIENCE_S)
    assert rated.returncode == 0  # exposure 2.0 of 10 at most


# Container


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def test_the_container_is_not_roots_and_its_command_is_one() -> None:
    assert int(last("USER")) > 0
    flags = check_command(json.loads(last("ENTRYPOINT")) + json.loads(last("CMD")))
    assert flags["behind_proxy"]
    assert flags["keys"] == "/etc/skydraft/keys.toml"
    assert str(flags["port"]) == last("EXPOSE")


def test_the_containers_health_is_whether_it_is_ready_where_it_listens() -> None:
    check = last("HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert f"http://127.0.0.1:{last('EXPOSE')}/readyz" in command[2]


def test_the_container_copies_what_there_is_and_nothing_is_kept_from_it() -> None:
    kept = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [name for word, rest in instructions() if word == "COPY" and "--from" not in rest for name in rest.split()]
    sources = [name for name in copied if name not in ("./",)]
    assert set(sources) == set(kept)
    assert all((ROOT / name).exists() for name in sources)


# Ray


def application() -> dict[str, Any]:
    only: dict[str, Any]
    (only,) = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())["applications"]
    return only


def test_the_application_for_ray_is_made_of_settings_that_there_are() -> None:
    config = application()
    assert config["import_path"] == f"{make_application.__module__}:{make_application.__name__}"
    settings = with_flags(CloudSettings(), **config["args"])
    assert settings.keys
    assert settings.behind_proxy


def test_rays_autoscaling_asks_our_policy() -> None:
    (deployment,) = application()["deployments"]
    assert deployment["name"] == DEPLOYMENT
    policy = deployment["autoscaling_config"]["policy"]
    module, name = policy["policy_function"].split(":")
    assert module == ray_scaling.__name__
    inspect.signature(getattr(ray_scaling, name)).bind(**policy["policy_kwargs"])
