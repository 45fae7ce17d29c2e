from __future__ import annotations

import math

import msgspec
import pytest
from msgspec import structs

from skydraft.core import Calibration, EmotionConfidence, Familiarity, LinearScore, Subspace, read_calibration
from skydraft.core.calibration import LEAST_PROBABILITY
from skydraft.errors import ConfigError

CALIBRATION = Calibration("made up", 10, "abc", {"margin": (0.0, 0.2, 1.0)})


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.25, 0.1), (0.5, 0.2), (0.75, 0.6), (1.0, 1.0)])
def test_quantiles_between_those_that_are_known_lie_on_a_line(share: float, value: float) -> None:
    assert CALIBRATION.quantile("margin", share) == pytest.approx(value)


def test_a_signal_that_was_not_calibrated_is_named_with_those_that_were() -> None:
    with pytest.raises(ConfigError, match="entropy is not calibrated; known are margin"):
        CALIBRATION.quantile("entropy", 0.2)


def test_a_calibration_is_read_as_it_was_written() -> None:
    assert read_calibration(msgspec.json.encode(CALIBRATION)) == CALIBRATION


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"material": "", "num_texts": 1, "weights": "", "quantiles": {"margin": [1.0]}}'),
        *('{"material": "", "num_texts": 1, "weights": "", "quantiles": {}, "more": 1}', "\xff"),
    ],
)
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="this is no calibration file: "):
        read_calibration(text.encode("latin-1"))


def test_quantiles_that_fall_are_refused() -> None:
    with pytest.raises(ConfigError, match="the quantiles of margin fall"):
        read_calibration(b'{"material": "", "num_texts": 1, "weights": "", "quantiles": {"margin": [0.2, 0.1]}}')


def test_confidence_is_logistic_in_the_log_odds() -> None:
    confidence = EmotionConfidence(own=(0.0, 1.0), clouds=(math.log(3), 0.5))
    assert confidence.of(0.7, is_clouds=False) == pytest.approx(0.7)
    assert confidence.of(0.9, is_clouds=True) == pytest.approx(0.9)  # odds of 9: 3 * 9 ** 0.5
    assert confidence.of(0.0, is_clouds=False) == pytest.approx(LEAST_PROBABILITY)
    assert confidence.of(1.0, is_clouds=False) == pytest.approx(1 - LEAST_PROBABILITY)


def test_what_is_known_of_confidence_and_familiarity_is_read_as_it_was_written() -> None:
    score, subspace = LinearScore(-0.5, (0.0,), (1.0,), (2.0,)), Subspace((0.0,), (1.0,), ((1.0,),), 0.5)
    familiarity = Familiarity(64, score, subspace)
    whole = structs.replace(CALIBRATION, confidence=EmotionConfidence((0.1, 0.8), (0.7, 0.6)), familiarity=familiarity)
    assert read_calibration(msgspec.json.encode(whole)) == whole
