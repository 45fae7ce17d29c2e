import pytest

from skydraft.policies.tiers import (
    LEAST_DRAFT_TOKENS_PER_S,
    SIZES,
    Capacity,
    Precision,
    Tier,
    draft_tokens_per_s,
    propose,
)

GB = 10**9


def capacity(gb_per_s: float, free_gb: float = 1000, **facts: bool) -> Capacity:
    return Capacity(gb_per_s * GB, int(free_gb * GB), **facts)


def proposed(gb_per_s: float, free_gb: float = 1000, **facts: bool) -> tuple[str, str]:
    proposal = propose(capacity(gb_per_s, free_gb, **facts))
    assert proposal.size is not None
    assert proposal.precision is not None
    return proposal.size.example, proposal.precision.flags


def test_a_step_takes_the_weights_over_the_bandwidth_and_a_millisecond_a_layer() -> None:
    qwen = SIZES[1]
    step_s = 1 / draft_tokens_per_s(qwen, Precision("float32", 4, ""), capacity(20))
    assert step_s == pytest.approx(494e6 * 4 / 20e9 + 0.024)


@pytest.mark.parametrize(
    ("gb_per_s", "model", "flags", "tier"),
    [
        (5, "SmolLM2-135M", "--quantize", Tier.PHONE),
        (7, "Qwen2.5-0.5B", "--quantize", Tier.PHONE),
        (30, "Qwen2.5-1.5B", "--quantize", Tier.LAPTOP),
        (50, "Qwen2.5-3B", "--quantize", Tier.LAPTOP),
        (200, "Qwen2.5-7B", "--quantize", Tier.WORKSTATION),
        (500, "Qwen2.5-7B", "--dtype float32", Tier.WORKSTATION),
    ],
)
def test_the_largest_model_that_drafts_in_time_is_proposed(gb_per_s: float, model: str, flags: str, tier: Tier) -> None:
    assert proposed(gb_per_s) == (model, flags)
    proposal = propose(capacity(gb_per_s))
    assert proposal.tier is tier
    assert proposal.tokens_per_s is not None
    assert proposal.tokens_per_s >= LEAST_DRAFT_TOKENS_PER_S


def test_the_most_precise_form_that_is_fast_enough_is_proposed() -> None:
    assert proposed(60, free_gb=2.9) == ("Qwen2.5-0.5B", "--quantize")
    assert proposed(60, free_gb=4.0) == ("Qwen2.5-1.5B", "--quantize")
    assert proposed(8, free_gb=0.9) == ("SmolLM2-135M", "--quantize")
    assert proposed(8, free_gb=0.98) == ("SmolLM2-135M", "--quantize")


def test_weights_take_no_more_than_half_of_the_free_memory() -> None:
    assert proposed(500, free_gb=2 * 7.61 + 0.01) == ("Qwen2.5-7B", "--quantize")
    assert proposed(500, free_gb=2 * 7.61 - 0.01) == ("Qwen2.5-3B", "--quantize")


def test_on_an_accelerator_weights_are_bfloat16() -> None:
    assert proposed(3000, free_gb=100, is_accelerator=True) == ("Qwen2.5-7B", "--dtype bfloat16")
    assert proposed(3000, free_gb=8, is_accelerator=True) == ("Qwen2.5-1.5B", "--dtype bfloat16")


def test_on_battery_the_model_is_one_size_smaller_and_the_reason_says_so() -> None:
    assert proposed(50, is_on_battery=True) == ("Qwen2.5-1.5B", "--quantize")
    assert "spares the battery" in propose(capacity(50, is_on_battery=True)).reason
    assert "battery" not in propose(capacity(50)).reason
    assert proposed(5, is_on_battery=True) == ("SmolLM2-135M", "--quantize")


@pytest.mark.parametrize(("gb_per_s", "free_gb"), [(1, 1000), (1000, 0.2)])
def test_a_machine_too_slow_or_too_small_for_any_draft_lets_the_cloud_write(gb_per_s: float, free_gb: float) -> None:
    proposal = propose(capacity(gb_per_s, free_gb))
    assert (proposal.tier, proposal.size, proposal.tokens_per_s) == (Tier.THIN, None, None)
    assert "--mode cloud" in proposal.work
    assert f"{gb_per_s:.1f} GB/s" in proposal.reason
    assert f"{free_gb:.1f} GB of free memory" in proposal.reason


def test_the_reason_names_bandwidth_model_and_speed() -> None:
    assert propose(capacity(10)).reason == ("memory read at 10.0 GB/s gives Qwen2.5-0.5B in 8 bits about 14 tokens/s")
