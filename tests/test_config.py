from __future__ import annotations

from pathlib import Path

import pytest

from skydraft.config import CloudSettings, DeviceSettings, Settings, load_settings, with_flags
from skydraft.core import Mode, ShareLevel
from skydraft.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "skydraft.toml"
    path.write_text(text)
    return path


def test_no_file_gives_the_defaults() -> None:
    assert load_settings(None) == Settings()


def test_a_file_sets_both_tables(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, '[device]\nshare = "features"\nseed = 7\n[cloud]\nport = 9000\n'))
    assert settings.device == DeviceSettings(share=ShareLevel.FEATURES, seed=7)
    assert settings.cloud == CloudSettings(port=9000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[device]\nshair = 1\n", "unknown field `shair`"),
        ("[device]\nseed = 'a'\n", "seed"),
        ("[device\n", "is not TOML"),
        ('[device]\nshare = "all"\n', "all"),
        ("[device]\nblock_length = 65\n", "device.block_length is 65 and must be 0 to 64"),
        ('[device]\naccept = "rank:0"\n', "rank:R is 0 and must be 1 or more"),
        ('[device]\nshare = "none"\n', "share level none lets nothing leave"),
        ("[cloud]\nport = 70000\n", "cloud.port is 70000"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(tmp_path, text))
    assert words in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.toml")


def test_flags_go_over_the_file_and_none_was_not_given() -> None:
    settings = with_flags(DeviceSettings(seed=3, max_tokens=9), seed=4, max_tokens=None, mode="edge")
    assert settings == DeviceSettings(seed=4, max_tokens=9, mode=Mode.EDGE)


def test_a_wrong_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match="wrong setting"):
        with_flags(DeviceSettings(), seed="many")


@pytest.mark.parametrize(
    "setting", [{"max_frame_bytes": -1}, {"max_length": -3}, {"num_threads": -1}, {"num_slots": 0}]
)
def test_numbers_out_of_range_are_refused_by_name(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"cloud.{next(iter(setting))} is .* and must be"):
        CloudSettings(**setting)


def test_a_word_that_is_none_of_offline_is_refused_in_python_too() -> None:
    with pytest.raises(ConfigError, match="offline is 'never' and must be one of wait, edge, fail"):
        DeviceSettings(offline="never")  # type: ignore[arg-type]
