from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from skydraft.config import CloudSettings, DeviceSettings, Settings, load_settings, with_flags
from skydraft.config.presets import Preset
from skydraft.core import Evidence, Mode, Setting, ShareLevel, check_settings
from skydraft.engines.settings import EngineSettings
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


def test_a_file_may_spell_settings_as_flags_do(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, "[device]\nmax-tokens = 9\nthreads = 2\n[cloud]\nslots = 3\n"))
    assert settings.device == DeviceSettings(max_tokens=9, num_threads=2)
    assert settings.cloud == CloudSettings(num_slots=3)
    both = load_settings(written(tmp_path, '[device]\nmodel = "m"\n[cloud]\ntarget = "m"\n'))
    assert (both.device.target, both.cloud.model) == ("m", "m")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[device]\nshair = 1\n", "has in [device] the unknown key 'shair': did you mean 'share'?"),
        ("[device]\nmax-token = 1\n", "the unknown key 'max-token': did you mean 'max-tokens'?"),
        ("[device]\nqqq = 1\n", "the unknown key 'qqq': skydraft settings --all shows what there is"),
        ("[devise]\nseed = 1\n", "the unknown key 'devise': did you mean 'device'?"),
        ('cloud = "gpu.example"\n', "has the unknown key 'cloud': it belongs in [device]"),
        ("port = 9\n", "has the unknown key 'port': it belongs in [gateway] or [cloud]"),
        ('[device]\nhost = "h"\n', "has in [device] the unknown key 'host': it belongs in [gateway] or [cloud]"),
        ("[device]\nmax-tokens = 1\nmax_tokens = 2\n", "has in [device] max_tokens in two spellings: leave one out"),
        ("[device]\nseed = 'a'\n", "seed"),
        ("[device\n", "is not TOML"),
        ('[device]\nshare = "all"\n', "all"),
        ("[device]\nblock_length = 65\n", "device.block_length is 65 and must be 0 to 64"),
        ('[device]\naccept = "rank:0"\n', "rank:R is 0 and must be 1 to"),
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
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "temperature is -1.0 and must be 0 to 100"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"accept": "nearly"}, "unknown acceptance rule 'nearly'"),
        ({"gate": "x"}, "unknown gate 'x'; expected one of"),
        ({"gate": "entropy:-1"}, "the threshold of gate 'entropy' is -1"),
        ({"gate": "entropy", "accept": "exact"}, "gate entropy commits tokens that the cloud did not judge"),
        ({"max_escalated": 0.3, "accept": "rejection"}, "max_escalated is 0.3, and under the rule rejection"),
        ({"objective": "privacy", "accept": "rejection"}, "the objective is privacy, and under the rule rejection"),
        ({"strict": True, "accept": "rank:4"}, "strict asks for the cloud's own text and the rule rank:4"),
        ({"strict": True, "accept": "rejection"}, "does not promise it: use the rule exact"),
        ({"draft": "lookup", "mode": "edge"}, "draft lookup is no model, and with mode edge"),
        ({"draft": "lookup:m", "offline": "edge"}, "offline edge and keep_home false the device is to write by itself"),
        ({"draft": "lookup", "way": "tree"}, "way tree is of drafts by a model and draft lookup is none"),
        ({"draft": "lookup", "accept": "rank:20"}, "draft lookup is no model, and the rule rank:20 needs one"),
        ({"strict": True, "mode": "auto"}, "with mode auto and offline wait the device may write alone"),
        ({"strict": True, "offline": "edge"}, "with mode hybrid and offline edge the device may write alone"),
        ({"max_escalated": math.nan}, "device.max_escalated is nan"),
        ({"min_p": 2.0}, "min_p is 2.0 and must be 0 to 1"),
        ({"accept": "rank:4", "frequency_penalty": 0.5}, "the rule rank:4 accepts what the model finds likely"),
        ({"way": "sideways"}, "unknown way to draft 'sideways'; expected one of"),
        ({"block_length": 65}, "block_length is 65"),
        ({"cloud": "ftp://x"}, "unknown form of a cloud's address 'ftp://x'"),
        ({"share": "none"}, "share level none lets nothing leave the device"),
        ({"evidence": "always"}, "evidence always lets evidence leave the device, and share level tokens does not"),
        ({"evidence": "unsure", "share": "none", "mode": "edge"}, "and share level none does not: use share features"),
        ({"evidence": "unsure", "share": "features", "mode": "cloud"}, "and mode cloud asks for the cloud's own"),
        ({"evidence": "unsure", "share": "features", "strict": True}, "and strict asks for the cloud's own"),
        ({"evidence": "unsure", "share": "features", "draft": "lookup"}, "draft lookup is no model that could"),
        ({"evidence": "sometimes"}, "device.evidence is 'sometimes' and is of the wrong type"),
        ({"preset": "best"}, "device.preset is 'best'"),
        ({"gate": "margin@200%"}, "the rate of gate 'margin' is 200% and must be 0% to 100%"),
        ({"share": "all"}, "device.share is 'all' and must be one of none, tokens, features"),
        ({"offline": "never"}, "device.offline is 'never' and must be one of wait, edge, tunnel, fail"),
        ({"device": "the moon"}, "device is 'the moon' and must be auto, cpu"),
        ({"dtype": "int3"}, "dtype is 'int3' and must be one of auto, float32"),
        ({"quantize": True, "device": "cuda"}, "device is cuda and must be cpu where quantize is on"),
        ({"quantize": True, "dtype": "bfloat16"}, "dtype is bfloat16 and must be float32 where quantize is on"),
        ({"draft": ""}, "device.draft is '' and must be the name of a model"),
        ({"num_threads": "two"}, "device.num_threads is 'two' and is of the wrong type: Expected `int`, got `str`"),
    ],
)
def test_a_wrong_device_is_refused_where_its_settings_are_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DeviceSettings(**settings)
    with pytest.raises(ConfigError):
        with_flags(DeviceSettings(), **settings)


@pytest.mark.parametrize(
    ("settings", "evidence"),
    [
        ({}, Evidence.NEVER),
        ({"share": "features"}, Evidence.UNSURE),
        ({"share": "features", "mode": "auto", "accept": "exact"}, Evidence.UNSURE),
        ({"share": "features", "accept": "exact", "gate": "margin@20%"}, Evidence.UNSURE),
        ({"share": "features", "mode": "cloud"}, Evidence.ALWAYS),
        ({"share": "features", "strict": True}, Evidence.ALWAYS),
        ({"share": "features", "gate": "always"}, Evidence.ALWAYS),
        ({"share": "features", "evidence": "always"}, Evidence.ALWAYS),
        ({"share": "features", "evidence": "never", "mode": "cloud"}, Evidence.NEVER),
    ],
)
def test_a_share_level_is_a_ceiling_and_evidence_says_when(settings: dict[str, Any], evidence: Evidence) -> None:
    device = DeviceSettings(**settings)
    assert device.evidence_leaves is evidence
    is_kept = evidence is Evidence.NEVER
    assert device.shared_in_prompts is (ShareLevel.TOKENS if is_kept else ShareLevel.FEATURES)


@pytest.mark.parametrize(
    ("settings", "is_alone"),
    [
        ({}, True),
        ({"mode": "auto"}, True),
        ({"share": "features", "evidence": "never"}, True),
        ({"share": "none", "mode": "edge"}, True),
        ({"mode": "auto", "objective": "privacy", "gate": "always"}, True),
        ({"share": "features"}, False),
        ({"mode": "cloud"}, False),
        ({"strict": True}, False),
        ({"accept": "rank:20"}, False),
        ({"gate": "entropy"}, False),
        ({"preset": "ugsd"}, False),
    ],
)
def test_a_cloud_that_cannot_hear_is_asked_only_where_something_says_so(
    settings: dict[str, Any], is_alone: bool
) -> None:
    assert DeviceSettings(**settings).captions_alone == is_alone


def test_a_preset_sets_what_is_not_given() -> None:
    ugsd = DeviceSettings(preset=Preset.UGSD)
    assert (ugsd.accept, ugsd.gate, ugsd.block_length) == ("rank:20", "entropy:2.5", 0)
    assert DeviceSettings(preset=Preset.UGSD, gate="margin:0.2").gate == "margin:0.2"
    assert with_flags(DeviceSettings(gate="margin:0.2"), preset="ugsd").gate == "margin:0.2"
    assert with_flags(ugsd, accept="rank:3").accept == "rank:3"


def test_a_word_of_an_enumeration_becomes_its_member_in_python_too() -> None:
    settings = DeviceSettings(mode="edge", share="none", temperature=1)  # type: ignore[arg-type]
    assert (settings.mode, settings.share) == (Mode.EDGE, ShareLevel.NONE)
    assert isinstance(settings.temperature, float)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_frame_bytes": -1}, "cloud.max_frame_bytes is -1 and must be"),
        ({"max_length": -3}, "cloud.max_length is -3 and must be"),
        ({"num_threads": -1}, "cloud.num_threads is -1 and must be"),
        ({"num_slots": 0}, "cloud.num_slots is 0 and must be"),
        ({"idle_s": math.nan}, "cloud.idle_s is nan"),
        ({"grace_s": "long"}, "cloud.grace_s is 'long' and is of the wrong type"),
        ({"model": ""}, "cloud.model is '' and must be the name of a model"),
        ({"device": "cuda:first"}, "device is 'cuda:first'"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"log_level": "loud"}, "cloud.log_level is 'loud' and must be one of debug, info, warning, error"),
        ({"allowed_origins": ("example.org",)}, "cloud.allowed_origins is 'example.org'"),
        ({"otel_endpoint": "localhost:4318"}, "cloud.otel_endpoint is 'localhost:4318' and must be as http"),
    ],
)
def test_a_wrong_cloud_is_refused_where_its_settings_are_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CloudSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_slots": 0}, "num_slots is 0"),
        ({"max_length": -1}, "max_length is -1"),
        ({"device": ""}, "device is ''"),
        ({"dtype": "double"}, "dtype is 'double'"),
        ({"prefill_chunk": 0.5}, "prefill_chunk is 0.5 and is of the wrong type"),
        ({"quantize": True, "device": "mps"}, "device is mps"),
    ],
)
def test_a_wrong_engine_is_refused_where_its_settings_are_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EngineSettings(**settings)


class Bounded(msgspec.Struct):
    limit: Annotated[int | None, Setting("A limit.", bounds=(1, 9))] = None


def test_a_setting_with_bounds_may_be_left_out() -> None:
    check_settings(Bounded())
    check_settings(Bounded(limit=9))
    with pytest.raises(ConfigError, match="limit is 10 and must be 1 to 9"):
        check_settings(Bounded(limit=10))


@pytest.mark.parametrize(
    ("settings", "are_clouds"),
    [
        ({}, False),
        ({"share": ShareLevel.FEATURES}, False),
        ({"share": ShareLevel.FEATURES, "evidence": Evidence.ALWAYS}, True),
        ({"share": ShareLevel.FEATURES, "evidence": Evidence.ALWAYS, "mode": Mode.EDGE}, False),
        ({"mode": Mode.CLOUD}, True),
        ({"strict": True}, True),
        ({"preset": Preset.UGSD}, False),
        ({"mode": Mode.EDGE, "share": ShareLevel.NONE}, False),
    ],
)
def test_captions_are_promised_to_be_the_clouds_own(settings: dict[str, Any], are_clouds: bool) -> None:
    assert DeviceSettings(**settings).captions_are_clouds is are_clouds
