import json
from pathlib import Path

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from skydraft.core import TensorSegment
from skydraft.engines.log_mel import Level, LogMel, load_level, load_log_mel, mel_filters
from skydraft.errors import AudioError
from skydraft.text import checkpoint
from skydraft.text.checkpoint import Checkpoint


def tone(num_samples: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(num_samples) * 0.05
    samples: np.ndarray = (0.5 * np.sin(np.arange(num_samples) * 0.3) + noise).astype(np.float32)
    return samples


def features(segment: TensorSegment) -> np.ndarray:
    return np.frombuffer(segment.data, "<f2").reshape(segment.shape).astype(np.float32)


def test_features_have_a_column_for_each_hundredth_of_a_second() -> None:
    segment = LogMel()(tone(16_000 + 159))
    assert (segment.name, segment.dtype, segment.shape) == ("log_mel", "float16", (128, 100))
    assert len(segment.data) == 25_600


def test_equal_samples_give_equal_features() -> None:
    assert LogMel()(tone(20_000)) == LogMel()(tone(20_000))
    assert LogMel()(tone(20_000)) != LogMel()(tone(20_000, seed=1))


def test_features_equal_those_of_the_padding_processor_but_for_the_last_two_frames_and_rounding() -> None:
    extractor = WhisperFeatureExtractor(feature_size=128)  # type: ignore[no-untyped-call]
    samples = tone(32_000)
    padded = extractor(samples, sampling_rate=16_000)["input_features"][0][:, :200]
    difference = np.abs(features(LogMel()(samples)) - padded)
    assert difference[:, :198].max() <= 0.0005
    assert difference.max() < 2


@pytest.mark.parametrize("num_mel_bins", [16, 80, 128])
@pytest.mark.parametrize("num_samples", [480, 16_001, 30_000])
def test_features_equal_those_of_the_extractor_without_padding_but_for_rounding(
    num_mel_bins: int, num_samples: int
) -> None:
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)  # type: ignore[no-untyped-call]
    samples = tone(num_samples)
    expected = extractor(samples, sampling_rate=16_000, padding="do_not_pad", truncation=False)["input_features"][0]
    np.testing.assert_allclose(features(LogMel(num_mel_bins)(samples)), expected, atol=0.0006)
    np.testing.assert_allclose(mel_filters(num_mel_bins, 201).T, extractor.mel_filters, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 0.0])
def test_values_lie_where_log_mel_lies(scale: float) -> None:
    values = features(LogMel()(np.clip(tone(16_000) * 2, -1, 1) * np.float32(scale)))
    assert -1.5 <= values.min() <= values.max() <= 2


LEVEL = Level(percentile=98.0, steps_per_unit=64)


def levelled(samples: np.ndarray) -> np.ndarray:
    segment = LogMel(80, level=LEVEL)(samples)
    assert (segment.name, segment.dtype) == ("levelled_log_mel", "int8")
    return np.frombuffer(segment.data, np.int8).reshape(segment.shape)


def test_levelled_features_are_the_extractors_moved_to_one_level_and_rounded_to_steps() -> None:
    extractor = WhisperFeatureExtractor(feature_size=80)  # type: ignore[no-untyped-call]
    log_mel = extractor(tone(32_000), sampling_rate=16_000, padding="do_not_pad")["input_features"][0]
    expected = log_mel + 1 - np.percentile(log_mel.max(axis=0), 98)
    steps = levelled(tone(32_000))
    assert steps.shape == (80, 200)
    assert np.abs(LEVEL.values(steps) - expected).max() <= 0.5 / 64 + 1e-6


@pytest.mark.parametrize("gain_db", [-40.0, -20.0, 6.0])
def test_levelled_features_do_not_tell_the_level(gain_db: float) -> None:
    louder = levelled(tone(16_000) * np.float32(10 ** (gain_db / 20)))
    assert np.abs(louder.astype(int) - levelled(tone(16_000))).max() <= 1


def test_a_click_moves_the_level_of_no_frame_but_its_own() -> None:
    samples = tone(32_000)
    samples[16_000] = 50.0
    difference = np.abs(levelled(samples).astype(int) - levelled(tone(32_000)))
    far = np.r_[0:97, 103:200]
    assert difference[40:, far].max() <= 40  # the extractor's floor, 80 dB below the click, may rise
    assert np.median(difference[:, far]) <= 1


def test_silence_can_be_levelled() -> None:
    assert (levelled(np.zeros(16_000, np.float32)) == 64).all()


def test_a_folder_says_whether_its_model_hears_levels(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert load_level(Checkpoint.open(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text('{"level_percentile": 98.0, "steps_per_unit": 64}')
    assert load_level(Checkpoint.open(tmp_path)) == LEVEL
    assert load_log_mel(Checkpoint.open(tmp_path))(tone(16_000)).name == "levelled_log_mel"


def test_samples_are_not_changed() -> None:
    samples = tone(16_000)
    LogMel()(samples)
    assert np.array_equal(samples, tone(16_000))


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (tone(479), "0.030 s"),
        (np.zeros(0, np.float32), "0.000 s"),
        (np.zeros((2, 16_000), np.float32), r"\[2, 16000\]"),
        (np.zeros(16_000), "float64"),
        (np.full(16_000, np.nan, np.float32), "no numbers"),
        (np.full(16_000, np.inf, np.float32), "no numbers"),
        (np.full(16_000, 32_767, np.float32), "far outside"),
    ],
)
def test_what_is_no_recording_is_refused(samples: np.ndarray, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        LogMel()(samples)


def test_the_shortest_recording_gives_three_frames() -> None:
    assert LogMel()(tone(480)).shape == (128, 3)


@pytest.mark.parametrize(
    ("files", "num_mel_bins"),
    [
        ({"config": {}}, 128),
        ({"config": {"audio_config": {"num_mel_bins": 16}}}, 16),
        ({"config": {"thinker_config": {"audio_config": {"num_mel_bins": 16}}}}, 16),
        ({"config": {"audio_config": {"num_mel_bins": 16}}, "preprocessor_config": {"feature_size": 80}}, 80),
    ],
)
def test_a_folder_says_how_many_bands_its_model_hears(
    tmp_path: Path, files: dict[str, object], num_mel_bins: int
) -> None:
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert load_log_mel(Checkpoint.open(tmp_path))(tone(1_600)).shape[0] == num_mel_bins


def test_a_folder_may_hop_otherwise(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"hop_length": 320}))
    assert load_log_mel(Checkpoint.open(tmp_path))(tone(16_000)).shape == (128, 50)
    assert checkpoint.Checkpoint.open(tmp_path).name == tmp_path.name
