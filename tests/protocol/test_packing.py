import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skydraft.core import LatticeDistribution, Rejection
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol import packing
from skydraft.protocol.limits import MAX_PROBS_BYTES, MAX_VOCABULARY
from tests.protocol import strategies

WIDTHS = range(8, 25)


# Ids


@pytest.mark.parametrize(
    ("num_tokens", "bits"), [(1, 8), (2, 8), (256, 8), (257, 9), (512, 9), (151_936, 18), (2**18, 18), (2**24, 24)]
)
def test_an_id_takes_the_bits_that_the_largest_needs_and_at_least_8(num_tokens: int, bits: int) -> None:
    assert packing.id_bits(num_tokens) == bits


@pytest.mark.parametrize("num_tokens", [0, -1, MAX_VOCABULARY + 1])
def test_a_vocabulary_of_impossible_size_is_refused(num_tokens: int) -> None:
    with pytest.raises(LocalProtocolError, match=str(num_tokens)):
        packing.id_bits(num_tokens)


def test_ids_stand_most_significant_bit_first() -> None:
    assert packing.pack_ids([1, 2, 3], 18).hex() == "0000400020000c"
    assert packing.pack_ids([0xABC, 0xDEF], 12).hex() == "abcdef"
    assert packing.pack_ids([], 18) == b""


@pytest.mark.parametrize("id_bits", WIDTHS)
def test_every_count_at_every_width_comes_back(id_bits: int) -> None:
    largest = (1 << id_bits) - 1
    for num_ids in range(34):
        for ids in (tuple(i * 7919 % (largest + 1) for i in range(num_ids)), (largest,) * num_ids, (0,) * num_ids):
            data = packing.pack_ids(ids, id_bits)
            assert len(data) == math.ceil(num_ids * id_bits / 8)
            assert packing.num_packed_ids(len(data), id_bits) == num_ids
            assert packing.unpack_ids(data, id_bits, largest + 1) == ids


def test_long_lists_pack_in_linear_time() -> None:
    def seconds(num_ids: int) -> float:
        before = time.process_time()
        packing.unpack_ids(packing.pack_ids([151_935] * num_ids, 18), 18, 151_936)
        return time.process_time() - before

    assert seconds(2**16) < 40 * seconds(2**13) + 0.01  # quadratic would be 64 times


@pytest.mark.parametrize("token_id", [256, -1, 2**40])
@pytest.mark.parametrize("place", [0, 20])
def test_packing_refuses_an_id_that_does_not_fit(token_id: int, place: int) -> None:
    ids = [0] * 40
    ids[place] = token_id
    with pytest.raises(LocalProtocolError, match="8 bits"):
        packing.pack_ids(ids, 8)


@pytest.mark.parametrize("num_ids", [1, 7, 9, 15])
@pytest.mark.parametrize("id_bits", [w for w in WIDTHS if w % 8])
def test_padding_must_be_zero(num_ids: int, id_bits: int) -> None:
    data = bytearray(packing.pack_ids([0] * num_ids, id_bits))
    for bit in range(-num_ids * id_bits % 8):
        data[-1] = 1 << bit
        with pytest.raises(RemoteProtocolError, match="not zero"):
            packing.unpack_ids(bytes(data), id_bits, 2**24)


@pytest.mark.parametrize("id_bits", WIDTHS)
def test_lengths_that_no_count_has_are_refused(id_bits: int) -> None:
    possible = {math.ceil(num_ids * id_bits / 8) for num_ids in range(100)}
    for num_bytes in set(range(100)) - possible:
        with pytest.raises(RemoteProtocolError, match=f"{num_bytes} bytes"):
            packing.unpack_ids(bytes(num_bytes), id_bits, 2**24)


@pytest.mark.parametrize("num_ids", [1, 8, 9, 30])
def test_an_id_outside_the_vocabulary_is_refused(num_ids: int) -> None:
    ids = (*[0] * (num_ids - 1), 151_936)
    with pytest.raises(RemoteProtocolError, match="151936 came and the vocabulary has 151936"):
        packing.unpack_ids(packing.pack_ids(ids, 18), 18, 151_936)


@given(st.binary(max_size=80), st.integers(8, 24))
def test_any_bytes_are_ids_or_refused_and_what_is_read_packs_to_the_same_bytes(data: bytes, id_bits: int) -> None:
    try:
        ids = packing.unpack_ids(data, id_bits, 1 << id_bits)
    except RemoteProtocolError:
        return
    assert packing.pack_ids(ids, id_bits) == data


# Digest of a log


def test_log_digest_is_blake2b_over_four_byte_ids() -> None:
    assert packing.log_digest([]).hex() == "e4a6a0577479b2b4"
    assert packing.log_digest([5, 6]).hex() == "cb95b055958168f9"
    assert packing.log_digest([6, 5]) != packing.log_digest([5, 6])


# Trees


def test_trees_are_numbered_without_gaps() -> None:
    trees = [(0, b, c, d) for b in range(2) for c in range(3) for d in range(4)]
    assert sorted(packing.pack_parents(tree) for tree in trees) == [bytes([number]) for number in range(24)]
    assert all(packing.unpack_parents(packing.pack_parents(tree), 4) == tree for tree in trees)


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(*(st.integers(0, i) for i in range(n)))))
def test_every_tree_comes_back_in_the_fewest_bytes(parents: tuple[int, ...]) -> None:
    data = packing.pack_parents(parents)
    assert packing.unpack_parents(data, len(parents)) == parents
    ideal_bits = math.lgamma(len(parents) + 1) / math.log(2)
    assert len(data) <= max(1, math.ceil(ideal_bits / 8 + 1e-6))


def test_a_large_tree_comes_back() -> None:
    parents = tuple(node // 2 for node in range(1000))
    assert packing.unpack_parents(packing.pack_parents(parents), 1000) == parents


def test_a_tree_of_one_node_is_not_empty() -> None:
    assert packing.pack_parents((0,)) == b"\0"


@pytest.mark.parametrize("parents", [(1,), (0, 2), (0, -1)])
def test_packing_refuses_a_node_before_its_parent(parents: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="parent"):
        packing.pack_parents(parents)


@pytest.mark.parametrize(
    ("data", "num_nodes"), [(b"", 1), (b"\1", 1), (b"\x18", 4), (b"\0\0", 4), (b"", 0), (b"\1", 0)]
)
def test_bytes_that_are_no_tree_are_refused(data: bytes, num_nodes: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{num_nodes} nodes"):
        packing.unpack_parents(data, num_nodes)


# Draft distributions

RULES = [
    (151_936, Rejection(8, 64)),
    (151_936, Rejection(1, 1)),
    (151_936, Rejection(1, 64)),
    (151_936, Rejection(40, 1000)),
    (5, Rejection(8, 64)),  # fewer tokens than the rule cuts to
    (5, Rejection(2, 1)),  # fewer values than a byte has
    (1, Rejection(3, 7)),
    (256, Rejection(256, 16)),
    (2**24, Rejection(3, 65536)),
]


def ideal_bytes(num_drawn: int, num_tokens: int, rule: Rejection) -> float:
    """What numbers for all supports of at most top_k tokens, their weights, and a token of each, would take."""
    num_codes = sum(
        math.comb(num_tokens, size) * math.comb(rule.lattice - 1, size - 1) * size for size in range(1, rule.top_k + 1)
    )
    return num_drawn * math.log2(num_codes) / 8


@pytest.mark.parametrize(("num_tokens", "rule"), RULES)
@settings(max_examples=25)
@given(data=st.data())
def test_every_drawn_token_comes_back(data: st.DataObject, num_tokens: int, rule: Rejection) -> None:
    drawn = data.draw(strategies.drawn_tokens(num_tokens, rule))
    packed = packing.pack_probs(*drawn, num_tokens, rule)
    assert packing.unpack_probs(packed, num_tokens, rule) == drawn


@pytest.mark.parametrize(("num_tokens", "rule"), [pair for pair in RULES if ideal_bytes(1, *pair) > 1])
@pytest.mark.parametrize("num_drawn", [0, 1, 5, 16])
def test_drawn_tokens_take_less_than_a_byte_above_the_fewest(num_tokens: int, rule: Rejection, num_drawn: int) -> None:
    certain = LatticeDistribution((num_tokens - 1,), (rule.lattice,))
    packed = packing.pack_probs([num_tokens - 1] * num_drawn, [certain] * num_drawn, num_tokens, rule)
    assert ideal_bytes(num_drawn, num_tokens, rule) <= len(packed) < ideal_bytes(num_drawn, num_tokens, rule) + 1


def test_a_token_of_a_large_vocabulary_takes_under_20_bytes() -> None:
    assert 19 < ideal_bytes(1, 151_936, Rejection(8, 64)) < 20


def test_drawn_tokens_are_enumerated_as_the_page_says() -> None:
    # V 3, K 2, L 4: supports of one token have the numbers 0 to 2, those of two 3 + 3 * 3 * 2 = 21.
    # Support {0, 2}: C(0, 1) + C(2, 2) = 1 of 3. Weights (1, 3): bar at 0 of 3. Token 2: place 1 of 2.
    packed = packing.pack_probs([2], [LatticeDistribution((0, 2), (1, 3))], 3, Rejection(2, 4))
    assert packed == bytes([3 + (1 * 3 + 0) * 2 + 1])
    # 21 numbers are fewer than 256: each token is a digit to the base 256.
    both = [LatticeDistribution((0, 2), (1, 3)), LatticeDistribution((1,), (4,))]
    assert packing.pack_probs([0, 1], both, 3, Rejection(2, 4)) == bytes([9, 1])


def test_drawn_tokens_are_numbered_without_gaps() -> None:
    drawn = [packing.unpack_probs(bytes([number]), 3, Rejection(2, 4)) for number in range(21)]
    assert len(set(drawn)) == 21
    assert all(distribution.weights.count(0) == 0 for _, (distribution,) in drawn)


def test_tokens_without_weight_are_left_out() -> None:
    rule = Rejection(2, 10)
    packed = packing.pack_probs([7], [LatticeDistribution((0, 1, 4, 7), (0, 4, 0, 6))], 100, rule)
    assert packing.unpack_probs(packed, 100, rule) == ((7,), (LatticeDistribution((1, 7), (4, 6)),))


@pytest.mark.parametrize(
    ("token_id", "support", "weights", "complaint"),
    [
        (1, (1, 2, 3), (1, 1, 2), "3 tokens"),
        (1, (), (), "0 tokens"),
        (1, (1, 2), (4,), "2 tokens and the weights .4."),
        (1, (1, 2), (0, 0), "1 to 2 above 0"),
        (2, (2, 1), (1, 3), "ascend"),
        (1, (1, 1), (1, 3), "ascend"),
        (10, (1, 10), (1, 3), "ascend"),
        (1, (-1, 1), (1, 3), "ascend"),
        (1, (1, 2), (1, 2), "sum to 4"),
        (1, (1, 2), (5, -1), "sum to 4"),
        (3, (1, 2), (1, 3), "no weight"),
        (1, (1, 2), (0, 4), "no weight"),
    ],
)
def test_packing_refuses_what_the_rule_does_not_allow(
    token_id: int, support: tuple[int, ...], weights: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        packing.pack_probs([token_id], [LatticeDistribution(support, weights)], 10, Rejection(2, 4))


def test_packing_refuses_more_distributions_than_an_offer_may_have() -> None:
    with pytest.raises(LocalProtocolError, match=str(MAX_PROBS_BYTES)):
        packing.pack_probs([0] * 400, [LatticeDistribution((0,), (64,))] * 400, 151_936, Rejection(8, 64))


@pytest.mark.parametrize("data", [bytes([21]), bytes([255]), bytes([0, 21])])
def test_numbers_above_the_number_of_distributions_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="above"):
        packing.unpack_probs(data, 3, Rejection(2, 4))


def test_more_bytes_than_an_offer_may_have_are_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError, match="4097 bytes .* may have 4096"):
        packing.unpack_probs(b"\0" * 4097, 2, Rejection(1, 1))


def test_a_number_with_more_digits_than_its_length_has_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="above"):
        packing.unpack_probs(b"\xff" * 20, 151_936, Rejection(8, 64))


@pytest.mark.parametrize(("num_tokens", "rule"), RULES)
@settings(max_examples=30)
@example(data=b"")
@example(data=b"\0" * 20)
@given(data=st.binary(max_size=120))
def test_any_bytes_are_drawn_tokens_or_refused(data: bytes, num_tokens: int, rule: Rejection) -> None:
    try:
        drawn = packing.unpack_probs(data, num_tokens, rule)
    except RemoteProtocolError:
        return
    assert packing.pack_probs(*drawn, num_tokens, rule) == data


@pytest.mark.parametrize(
    ("num_tokens", "rule"),
    [(151_936, Rejection(8, 64)), (151_936, Rejection(256, 65536)), (2**24, Rejection(256, 1)), (2, Rejection(1, 1))],
)
def test_reading_the_most_distributions_takes_bounded_time(num_tokens: int, rule: Rejection) -> None:
    before = time.process_time()
    for num_bytes in range(MAX_PROBS_BYTES - 12, MAX_PROBS_BYTES + 2):
        for data in (b"\0" * num_bytes, b"\0" + b"\x55" * (num_bytes - 1)):
            try:
                packing.unpack_probs(data, num_tokens, rule)
            except RemoteProtocolError:
                continue
    assert time.process_time() - before < 5
