from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import torch

from skydraft.sampling import logarithm
from skydraft.sampling.logarithm import log
from tests.sampling.helpers import ulps

RNG = np.random.default_rng(20110913)
WORDS = np.concatenate([np.arange(1000), 2**32 - 1 - np.arange(1000), RNG.integers(0, 2**32, 500_000)])
UNIFORMS = (WORDS + 0.5) / 2**32
# Where numpy has no wider float to compare with, the library's own logarithm may be an ulp off too.
MAX_ULPS = 1 if np.finfo(np.longdouble).nmant > 52 else 2
SQRT_HALF = np.sqrt(0.5)
EDGES = np.array([np.finfo(float).tiny, np.finfo(float).max, 0.5, 1.0, 2.0, 3.0, SQRT_HALF, np.sqrt(2)])
EDGES = np.concatenate([EDGES, np.nextafter(EDGES[2:], 0), np.nextafter(EDGES[2:], 4)])
ANY_SCALE = np.concatenate([EDGES, 2.0 ** RNG.uniform(-1022, 1023, 300_000), RNG.uniform(0.5, 2.0, 300_000)])


def test_log_is_within_one_ulp_of_the_true_value_wherever_noise_uses_it() -> None:
    exponential = -log(UNIFORMS)
    assert ulps(log(UNIFORMS), np.log(UNIFORMS.astype(np.longdouble))) < MAX_ULPS
    assert ulps(log(exponential), np.log(exponential.astype(np.longdouble))) < MAX_ULPS


def test_log_is_within_one_ulp_of_the_true_value_at_any_scale() -> None:
    x = ANY_SCALE[ANY_SCALE != 1]
    assert ulps(log(x), np.log(x.astype(np.longdouble))) < MAX_ULPS


def test_log_has_equal_bits_in_numpy_and_torch() -> None:
    for x in (UNIFORMS, -log(UNIFORMS), ANY_SCALE):
        assert np.array_equal(log(x).view(np.int64), log(torch.from_numpy(x)).numpy().view(np.int64))


def test_log_does_not_depend_on_where_a_value_stands() -> None:
    """Vector instructions treat the ends of an array apart from its middle."""
    x = UNIFORMS[:997]
    assert np.array_equal(log(x), np.array([float(log(x[i : i + 1])[0]) for i in range(len(x))]))


def test_log_of_one_is_zero_and_of_powers_of_two_is_their_multiple_of_ln_2() -> None:
    assert float(log(np.array([1.0]))[0]) == 0.0
    powers = np.arange(-1022, 1024)
    assert ulps(log(2.0**powers)[powers != 0], (powers * np.log(np.longdouble(2)))[powers != 0]) < MAX_ULPS


def test_the_two_parts_of_ln_2_sum_to_it_and_the_high_part_times_an_exponent_is_exact() -> None:
    with localcontext() as context:
        context.prec = 50
        parts = Decimal(logarithm._LN2_HIGH) + Decimal(logarithm._LN2_LOW)
        assert abs(parts - Decimal(2).ln()) < Decimal(2) ** -85
    mantissa = int(logarithm._LN2_HIGH * 2**53)
    assert mantissa % 2**21 == 0


def test_left_out_terms_of_the_series_are_below_a_quarter_ulp() -> None:
    square = ((np.sqrt(2) - 1) / (np.sqrt(2) + 1)) ** 2
    first_left_out = square ** (logarithm._NUM_TERMS + 1) / (2 * logarithm._NUM_TERMS + 3)
    assert first_left_out / (1 - square) < 2.0**-53 / 4
