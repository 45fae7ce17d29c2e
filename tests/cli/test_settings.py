from __future__ import annotations

import json
from pathlib import Path

import pytest

from skydraft.cli import run
from skydraft.config import CloudSettings, DeviceSettings, GatewaySettings


def test_settings_are_shown_with_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[device]\nseed = 3\n[cloud]\nport = 9\n")
    monkeypatch.setenv("SKYDRAFT_CLOUD", "gpu.example")
    monkeypatch.setenv("SKYDRAFT_KEY", "skydraft.me.secret")
    assert run(["settings", "--config", str(file), "--json"]) == 0
    rows = {row["setting"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name: (row["value"], row["source"]) for name, row in rows.items()} == {
        "device.cloud": ("gpu.example", "SKYDRAFT_CLOUD"),
        "device.key": ("(set)", "SKYDRAFT_KEY"),
        "device.seed": (3, str(file)),
        "cloud.port": (9, str(file)),
    }
    assert run(["settings", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert "gpu.example" in out
    assert "secret" not in out


def test_without_any_the_place_for_them_is_named_and_all_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings"]) == 0
    assert "skydraft/config.toml" in capsys.readouterr().err.replace("\n", "")
    assert run(["settings", "--all", "--json"]) == 0
    rows = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert len(rows) == sum(len(kind.__struct_fields__) for kind in (DeviceSettings, GatewaySettings, CloudSettings))
    assert {row["source"] for row in rows} == {"default"}
