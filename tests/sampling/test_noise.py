from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skydraft.sampling import noise
from skydraft.sampling.logarithm import log
from skydraft.sampling.noise import (
    LARGEST_GUMBEL,
    LEAST_GUMBEL,
    Stream,
    gumbel,
    philox,
    seeds_like,
    uniform,
    vocabulary_uniform,
)
from tests.sampling.helpers import ToArray, assert_law

# Random123, tests/kat_vectors, the lines of philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
]

words32 = st.integers(0, 2**32 - 1)


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """As the paper writes it, on Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second % 2**32, (first >> 32) ^ c3 ^ k1, first % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


@pytest.mark.parametrize("line", KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(line: str, to_array: ToArray) -> None:
    numbers = [int(word, 16) for word in line.split()]
    c0, c1, c2, c3 = (to_array(np.array([word], dtype=np.int64)) for word in numbers[:4])
    assert [int(word[0]) for word in philox((c0, c1, c2, c3), (numbers[4], numbers[5]))] == numbers[6:]


@given(counter=st.lists(words32, min_size=4, max_size=4), key=st.lists(words32, min_size=2, max_size=2))
def test_philox_agrees_with_plain_integers(counter: list[int], key: list[int]) -> None:
    c0, c1, c2, c3 = (np.array([word]) for word in counter)
    assert [int(word[0]) for word in philox((c0, c1, c2, c3), (key[0], key[1]))] == plain_philox(counter, key)


@given(word=words32, multiplier=st.sampled_from(noise._MULTIPLIERS))
def test_products_stay_within_int64(word: int, multiplier: int) -> None:
    assert -(2**63) <= word * multiplier < 2**63


@given(
    seed=st.integers(0, 2**64 - 1),
    position=words32,
    token_id=st.integers(0, 2**33),
    stream=st.sampled_from(list(Stream)),
)
def test_uniform_follows_the_layout_of_the_design(seed: int, position: int, token_id: int, stream: Stream) -> None:
    words = plain_philox([token_id // 4, position, int(stream), 0], [seed % 2**32, seed // 2**32])
    expected = (words[token_id % 4] + 0.5) / 2**32
    assert uniform(seed, position, np.array([token_id]), stream).tolist() == [expected]


def test_streams_are_numbered_as_the_design_says() -> None:
    assert {stream.name: stream.value for stream in Stream} == {"TARGET": 0, "DRAFT": 1, "ACCEPT": 2, "RESIDUAL": 3}


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 4, 5, 131])
def test_contiguous_numbers_are_those_of_each_token_alone(vocab_size: int, to_array: ToArray) -> None:
    positions = to_array(np.array([0, 7, 2**32 - 1]))
    together = vocabulary_uniform(2**63 + 5, positions, vocab_size, Stream.TARGET)
    alone = [uniform(2**63 + 5, positions, to_array(np.array([i])), Stream.TARGET) for i in range(vocab_size)]
    assert together.tolist() == [[float(column[row]) for column in alone] for row in range(3)]


def test_positions_and_token_ids_broadcast() -> None:
    positions, token_ids = np.arange(3)[:, None], np.arange(10)[None, :]
    expected = vocabulary_uniform(1, np.arange(3), 10, Stream.TARGET)
    assert np.array_equal(uniform(1, positions, token_ids, Stream.TARGET), expected)


def test_noise_has_equal_bits_in_numpy_and_torch() -> None:
    """Two million values."""
    token_ids = np.arange(250_000)
    for stream in Stream:
        for position in (127, 2**32 - 1):
            ours = gumbel(2**64 - 1, position, token_ids, stream)
            theirs = gumbel(2**64 - 1, position, torch.from_numpy(token_ids), stream)
            assert np.array_equal(ours.view(np.int64), theirs.numpy().view(np.int64))


def test_extreme_words_give_finite_noise_of_equal_bits_below_the_stated_bound() -> None:
    words = np.concatenate([np.arange(10), 2**31 + np.arange(-5, 5), 2**32 - 10 + np.arange(10)])
    u = noise._to_unit(words)
    assert u.min() > 0
    assert u.max() < 1
    values = -log(-log(u))
    theirs = -log(-log(noise._to_unit(torch.from_numpy(words))))
    assert np.array_equal(values.view(np.int64), theirs.numpy().view(np.int64))
    assert values[-1] == pytest.approx(33 * np.log(2))
    assert values[-1] < LARGEST_GUMBEL
    assert values[0] == pytest.approx(-np.log(33 * np.log(2)))
    assert values[0] > LEAST_GUMBEL


def test_uniform_numbers_are_uniform_in_every_stream() -> None:
    for stream in Stream:
        u = vocabulary_uniform(11, np.arange(20), 5_000, stream)
        assert_law(np.histogram(u, bins=100, range=(0, 1))[0], np.full(100, 0.01))


def test_neighbouring_positions_streams_tokens_and_seeds_are_uncorrelated() -> None:
    token_ids = np.arange(100_000)
    base = uniform(5, 9, token_ids, Stream.TARGET)
    others = [
        uniform(5, 10, token_ids, Stream.TARGET),
        uniform(5, 9, token_ids, Stream.DRAFT),
        uniform(5, 9, token_ids + 1, Stream.TARGET),
        uniform(6, 9, token_ids, Stream.TARGET),
        uniform(5 + 2**32, 9, token_ids, Stream.TARGET),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 4.5 / np.sqrt(len(token_ids))


def test_gumbel_noise_has_the_mean_and_variance_of_its_law() -> None:
    values = gumbel(3, 0, np.arange(400_000), Stream.TARGET)
    assert values.mean() == pytest.approx(np.euler_gamma, abs=4.5 * np.sqrt(np.pi**2 / 6 / len(values)))
    assert values.var() == pytest.approx(np.pi**2 / 6, rel=0.02)


SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def test_a_seed_for_each_row_gives_the_bits_of_that_seed_alone(to_array: ToArray) -> None:
    positions = to_array(np.arange(len(SEEDS)) * 1000)
    seeds = seeds_like(SEEDS, positions)
    together = vocabulary_uniform(seeds, positions, 13, Stream.TARGET)
    alone = [vocabulary_uniform(seed, positions[i : i + 1], 13, Stream.TARGET) for i, seed in enumerate(SEEDS)]
    assert together.tolist() == [row.tolist()[0] for row in alone]
    token_ids = to_array(np.arange(len(SEEDS)) * 99)
    noise = gumbel(seeds, positions, token_ids, Stream.DRAFT).tolist()
    assert noise == [
        gumbel(seed, positions[i : i + 1], token_ids[i : i + 1], Stream.DRAFT).tolist()[0]
        for i, seed in enumerate(SEEDS)
    ]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_of_more_than_64_bits_is_an_error(seed: int) -> None:
    with pytest.raises(ValueError, match="must be 0 to"):
        uniform(seed, 0, np.array([0]), Stream.TARGET)
    with pytest.raises(ValueError, match="must be 0 to"):
        seeds_like([5, seed], np.array([0]))
