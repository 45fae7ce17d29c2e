from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from skydraft.core import (
    Exact,
    Grammar,
    MinProb,
    Prompt,
    Rank,
    Rejection,
    SamplingParams,
    TensorSegment,
    TokenSegment,
    parse_rule,
    read_float,
    read_int,
)
from skydraft.errors import ConfigError
from tests.waiting import PATIENCE_S

WITHOUT_EXTRAS = """
import asyncio, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "safetensors", "soundfile", "soxr", "fastapi", "uvicorn"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from skydraft.config import DeviceSettings
from skydraft.edge.device import Device
settings = DeviceSettings(draft="table:vocab=16,seed=1", mode="edge", share="none", max_tokens=12)
with Device.load(settings) as device:
    print(len(asyncio.run(device.generate("ba de")).tokens))
"""


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("exact", Exact()),
        ("rejection", Rejection(8, 64)),
        ("rejection:4,100", Rejection(4, 100)),
        ("rank", Rank(20)),
        ("rank:3", Rank(3)),
        ("prob:0.25", MinProb(0.25)),
    ],
)
def test_rules_read_what_they_print(text: str, rule: object) -> None:
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    ["", "exactly", "exact:1", "exact:", "rank:x", "rank:-1", "rank:", "prob:", "prob:2", "rejection:4", "rejection:"],
)
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rule(text)


NO_NUMBERS = [
    *("", " 5", "5 ", "\n5", "5\n", "1_0", "\u0661", "\uff15", "+5", "--5", "5-", "0x10", "5j", "1e", "."),
    *("nan", "inf", "-inf"),
]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1e400"])
def test_what_python_takes_for_a_number_and_is_none_in_ascii_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_float(text)
    with pytest.raises(ValueError, match="is not a whole number"):
        read_int(text)
    for rule in (f"rank:{text}", f"prob:{text}", f"rejection:{text},64", f"rejection:8,{text}"):
        with pytest.raises(ConfigError, match="unknown acceptance rule"):
            parse_rule(rule)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_from_what_python_writes(number: float) -> None:
    assert read_float(repr(number)) == number


@given(st.integers(-(10**40) + 1, 10**40 - 1))
def test_every_whole_number_is_read_from_what_python_writes(number: int) -> None:
    assert read_int(str(number)) == number


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_k", -1),
        ("seed", 2**64),
        ("max_tokens", 0),
        ("min_p", 1.5),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("repetition_penalty", 0),
        ("top_logprobs", 21),
        ("the number of stop strings", ("a", "b", "c", "d", "e")),
        ("the length of a stop string", ("",)),
        ("the length of a stop string", ("a" * 257,)),
        ("a token id of logit_bias", ((3, 1.0), (3, 2.0))),
        ("logit_bias of token 3", ((3, 101.0),)),
        ("the length of logit_bias", tuple((token_id, 1.0) for token_id in range(1025))),
    ],
)
def test_sampling_parameters_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    field = next((field for field in ("logit_bias", "stop") if field in name), name)
    with pytest.raises(ConfigError, match=f"{name} is .* and must be"):
        replace(SamplingParams(), **{field: value})


@pytest.mark.parametrize(
    "field",
    [
        {"presence_penalty": 0.5},
        {"repetition_penalty": 1.1},
        {"logit_bias": ((3, 1.0),)},
        {"grammar": Grammar("regex", "a+")},
    ],
)
def test_a_rule_that_does_not_judge_by_choices_takes_nothing_that_shapes_them(field: dict[str, Any]) -> None:
    sampling = SamplingParams(**field)
    Exact().check_sampling(sampling)
    Rejection().check_sampling(sampling)
    for rule in (Rank(20), MinProb(0.1)):
        rule.check_sampling(SamplingParams(temperature=0.8, min_p=0.1))
        with pytest.raises(ConfigError, match=f"the rule {rule} accepts what the model finds likely, whatever"):
            rule.check_sampling(sampling)


def test_a_grammar_has_a_source_of_bounded_length() -> None:
    for source in ("", "a" * 32769):
        with pytest.raises(ConfigError, match="the length of a grammar is .* and must be 1 to 32768 characters"):
            Grammar("regex", source)


def test_a_text_ends_at_an_end_token_or_at_its_length() -> None:
    params = SamplingParams(max_tokens=3, end_ids=(7,))
    assert not params.is_end([])
    assert not params.is_end([7, 1])
    assert params.is_end([1, 7])
    assert params.is_end([1, 2, 3])


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="should have 24 bytes .* and has 23"):
        TensorSegment("log_mel", "float32", (2, 3), bytes(23))


def test_the_text_of_a_prompt_is_all_of_its_tokens() -> None:
    tensor = TensorSegment("log_mel", "float32", (1, 1), bytes(4))
    assert Prompt((TokenSegment((1, 2)), tensor, TokenSegment((3,)))).token_ids == (1, 2, 3)


def test_a_device_without_torch_writes_text() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, timeout=PATIENCE_S)
    assert run.stderr == ""
    assert run.stdout == "12\n"
