import math

import numpy as np

from skydraft.engines.numpy.layers import GELU_BLOCK, apart, erf, gelu, silu, softmax, together

RNG = np.random.default_rng(0)


def test_the_error_function_is_exact_to_a_few_rounding_errors() -> None:
    x = np.linspace(-6, 6, 20_001).astype(np.float32)
    expected = [math.erf(value) for value in x.tolist()]
    np.testing.assert_allclose(erf(x), expected, atol=5e-7)
    assert erf(np.array([0.0, -40.0, 40.0], np.float32)).tolist() == [0, -1, 1]


def test_gelu_is_computed_in_blocks_and_in_place() -> None:
    x = RNG.standard_normal((3, GELU_BLOCK - 5)).astype(np.float32) * 3
    expected = [[value * 0.5 * (1 + math.erf(value / 2**0.5)) for value in row] for row in x.tolist()]
    assert gelu(x) is x
    np.testing.assert_allclose(x, expected, atol=2e-6)


def test_silu_of_very_negative_numbers_is_nothing() -> None:
    assert silu(np.array([-1000.0, 0.0, 1000.0], np.float32)).tolist() == [0, 0, 1000]


def test_softmax_sums_to_one_and_gives_masked_entries_nothing() -> None:
    scores = np.array([[1.0, 2.0, -np.inf], [500.0, 500.0, 500.0]], np.float32)
    weights = softmax(scores)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert weights[0, 2] == 0
    np.testing.assert_allclose(weights[1], 1 / 3, rtol=1e-6)


def test_a_row_apart_has_the_same_bits_among_any_others() -> None:
    matrix = RNG.standard_normal((192, 576)).astype(np.float32)
    rows = RNG.standard_normal((105, 192)).astype(np.float32)
    expected = np.concatenate([apart(row[None], matrix) for row in rows])
    np.testing.assert_allclose(expected, together(rows, matrix), atol=1e-4)
    for first, end in ((0, 105), (1, 3), (50, 58), (7, 100)):
        np.testing.assert_array_equal(apart(rows[first:end], matrix), expected[first:end])
    scattered = np.asfortranarray(rows)[::3]
    np.testing.assert_array_equal(apart(scattered, matrix), expected[::3])
