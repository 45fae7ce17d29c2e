"""Which of several sources of settings counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from skydraft.config import CloudSettings, DeviceSettings, Layer, combine, layers, user_file
from skydraft.core import ShareLevel
from skydraft.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a file of settings; returns the file."""
    file = tmp_path / ".config" / "skydraft" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[device]\ncloud = "user.example"\nseed = 1\nmax_tokens = 11\n[cloud]\nport = 1\n')
    return file


def test_flags_count_before_variables_before_a_named_file_before_the_users_own(home: Path, tmp_path: Path) -> None:
    named = tmp_path / "project.toml"
    named.write_text('[device]\ncloud = "named.example"\nseed = 2\ndraft = "named"\n')
    environment = {"HOME": str(tmp_path), "SKYDRAFT_CLOUD": "variable.example", "SKYDRAFT_DRAFT": "variable"}
    found = layers(DeviceSettings, named, environment)
    settings, sources = combine(DeviceSettings, found, {"draft": "typed", "share": None})
    assert settings == DeviceSettings(cloud="variable.example", seed=2, max_tokens=11, draft="typed")
    assert sources == {
        "cloud": "SKYDRAFT_CLOUD",
        "seed": str(named),
        "max_tokens": str(home),
        "draft": "the command line",
    }


def test_each_command_takes_its_table_of_a_file(home: Path, tmp_path: Path) -> None:
    found = layers(CloudSettings, None, {"HOME": str(tmp_path)})
    assert combine(CloudSettings, found, {}).settings == CloudSettings(port=1)


def test_a_variable_names_a_file_too_and_one_that_is_given_counts_before_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text('[device]\nshare = "features"\n')
    second.write_text("[device]\nseed = 2\n")
    environment = {"HOME": str(tmp_path), "SKYDRAFT_CONFIG": str(first)}
    (layer,) = layers(DeviceSettings, None, environment)
    assert combine(DeviceSettings, [layer], {}).settings.share is ShareLevel.FEATURES
    (layer,) = layers(DeviceSettings, second, environment)
    assert layer == (str(second), {"seed": 2})


def test_the_users_file_is_where_the_system_keeps_such_files(tmp_path: Path) -> None:
    assert user_file({"HOME": "/h"}) == Path("/h/.config/skydraft/config.toml")
    assert user_file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/skydraft/config.toml")
    assert user_file({}).is_absolute()
    assert layers(DeviceSettings, None, {"HOME": str(tmp_path)}) == []


def test_a_file_in_the_working_directory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("skydraft.toml", "config.toml", ".skydraft.toml"):
        Path(name).write_text('[device]\ncloud = "elsewhere.example"\n')
    assert layers(DeviceSettings, None, {"HOME": "/nowhere"}) == []


@pytest.mark.parametrize(
    ("lower", "flags", "expected"),
    [
        ({"target": "m"}, {"cloud": "c.example"}, ("c.example", "embedded")),
        ({"cloud": "c.example"}, {"target": "m"}, (None, "m")),
        ({"cloud": "c.example", "target": "m"}, {}, ("c.example", "m")),
        ({"cloud": "c.example"}, {"seed": 1}, ("c.example", "embedded")),
    ],
)
def test_what_a_higher_layer_says_of_cloud_or_target_puts_the_other_aside(
    lower: dict[str, str], flags: dict[str, object], expected: tuple[str | None, str]
) -> None:
    settings, sources = combine(DeviceSettings, [Layer("a file", lower)], flags)
    assert (settings.cloud, settings.target) == expected
    assert ("cloud" in sources, "target" in sources) == (expected[0] is not None, expected[1] != "embedded")


def test_what_is_wrong_is_told_with_where_it_stands(home: Path, tmp_path: Path) -> None:
    home.write_text("[device]\nshair = 1\n")
    with pytest.raises(ConfigError, match=f"the settings file {home} has in .*shair"):
        layers(DeviceSettings, None, {"HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="cannot be read"):
        layers(DeviceSettings, tmp_path / "nowhere.toml", {})


def test_an_empty_variable_is_none_and_a_wrong_one_is_refused() -> None:
    assert layers(DeviceSettings, None, {"HOME": "/nowhere", "SKYDRAFT_CLOUD": ""}) == []
    with pytest.raises(ConfigError, match="unknown form of a cloud's address 'ftp://x'"):
        combine(DeviceSettings, layers(DeviceSettings, None, {"HOME": "/nowhere", "SKYDRAFT_CLOUD": "ftp://x"}), {})
