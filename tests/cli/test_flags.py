import dataclasses

import pytest

from skydraft.cli.flags import CloudFlags, DemoFlags, DoctorFlags, WritingFlags
from skydraft.config import CloudSettings, DeviceSettings
from skydraft.core import Mode, ShareLevel
from skydraft.errors import ConfigError


def test_without_flags_the_settings_are_the_defaults():
    assert WritingFlags().settings() == DemoFlags().settings() == DeviceSettings()
    assert CloudFlags().settings() == CloudSettings()


@pytest.mark.parametrize(("flags", "settings"), [(WritingFlags, DeviceSettings), (CloudFlags, CloudSettings)])
def test_every_setting_that_a_person_may_want_has_a_flag(flags, settings):
    names = {field.name for field in dataclasses.fields(flags)}
    bounds = {"max_draft_tokens", "max_in_flight", "max_frame_bytes", "max_prompt_tokens", "max_tensor_bytes"}
    bounds |= {"max_connections", "max_connections_per_key", "max_sessions", "max_positions", "max_state_bytes"}
    of_the_file_only = {*bounds, "prefill_tokens", "open_s", "idle_s", "stall_s"}
    assert set(settings.__struct_fields__) - names <= of_the_file_only


def test_flags_go_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\nseed = 7\nmode = "cloud"\noffline = "fail"\n[cloud]\nport = 9\nnum_slots = 3\n')
    device = WritingFlags(config=file, mode=Mode.EDGE, share=ShareLevel.NONE, offline="edge").settings()
    assert device == DeviceSettings(seed=7, mode=Mode.EDGE, share=ShareLevel.NONE, offline="edge")
    assert CloudFlags(config=file, port=0).settings() == CloudSettings(port=0, num_slots=3)


def test_a_target_beside_a_cloud_that_runs_is_refused(tmp_path):
    both = "--target b is the model of a cloud to be started and --cloud ws://a one that runs"
    with pytest.raises(ConfigError, match=both):
        WritingFlags(cloud="ws://a", target="b").settings()
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\ncloud = "ws://a"\n')
    with pytest.raises(ConfigError, match=both):
        WritingFlags(config=file, target="b").settings()
    file.write_text('[device]\ncloud = "ws://a"\ntarget = "b"\n')
    with pytest.raises(ConfigError, match=both):
        WritingFlags(config=file).settings()


def test_a_cloud_that_is_typed_puts_the_target_of_a_file_aside(tmp_path):
    file = tmp_path / "skydraft.toml"
    file.write_text('[device]\ntarget = "b"\n')
    assert WritingFlags(config=file, cloud="ws://a").settings().cloud == "ws://a"
    assert DoctorFlags(config=file, cloud="ws://a").settings().cloud == "ws://a"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1.0 and must be 0 to 100"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"accept": "nearly"}, "unknown acceptance rule 'nearly'"),
        ({"gate": "sometimes"}, "gate 'sometimes' is none of"),
        ({"block_length": 65}, "block_length is 65"),
        ({"cloud": "ftp://x"}, "unknown form of a cloud's address 'ftp://x'"),
        ({"share": ShareLevel.NONE}, "share level none lets nothing leave the device"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_loaded(wrong, sentence):
    with pytest.raises(ConfigError, match=sentence):
        WritingFlags(**wrong).settings()
