import math
from contextlib import suppress
from unittest.mock import Mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skydraft.core import Lattice, LatticeDistribution, TokenLogprobs, TreeShape
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol import packing
from skydraft.protocol.limits import MAX_PROBS_BYTES, MAX_VOCABULARY
from tests.effort import effort_of
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
    assert packing.pack([1, 2, 3], 18).hex() == "0000400020000c"
    assert packing.pack([0xABC, 0xDEF], 12).hex() == "abcdef"
    assert packing.pack([], 18) == b""


@pytest.mark.parametrize("id_bits", WIDTHS)
def test_every_count_at_every_width_comes_back(id_bits: int) -> None:
    largest = (1 << id_bits) - 1
    for num_ids in range(34):
        for ids in (tuple(i * 7919 % (largest + 1) for i in range(num_ids)), (largest,) * num_ids, (0,) * num_ids):
            data = packing.pack(ids, id_bits)
            assert len(data) == math.ceil(num_ids * id_bits / 8)
            assert packing.num_packed_ids(len(data), id_bits) == num_ids
            assert packing.unpack_ids(data, id_bits, largest + 1) == ids


class Witness(int):
    """Notes how long a number it is written behind."""

    longest_bits = 0

    def __ror__(self, before: int) -> int:
        Witness.longest_bits = max(Witness.longest_bits, int(before).bit_length())
        return int(before) | int(self)


def test_long_lists_pack_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps grow with the list, and the numbers in between, which a step may take long for, do not."""

    def steps(num_ids: int) -> int:
        ids = [151_935] * num_ids
        return effort_of(lambda: packing.unpack_ids(packing.pack(ids, 18), 18, 151_936)).num_steps

    assert steps(2**12) < 4.1 * steps(2**10)
    layout = Mock(wraps=packing._layout)
    monkeypatch.setattr(packing, "_layout", layout)
    packing.unpack_ids(packing.pack([Witness(151_935)] * 2**10, 18), 18, 151_936)
    assert 0 < Witness.longest_bits <= packing.GROUP * 18
    assert {call.args[0] for call in layout.call_args_list} == {packing.GROUP}


@pytest.mark.parametrize("token_id", [256, -1, 2**40])
@pytest.mark.parametrize("place", [0, 20])
def test_packing_refuses_an_id_that_does_not_fit(token_id: int, place: int) -> None:
    ids = [0] * 40
    ids[place] = token_id
    with pytest.raises(LocalProtocolError, match="8 bits"):
        packing.pack(ids, 8)


@pytest.mark.parametrize("num_ids", [1, 7, 9, 15])
@pytest.mark.parametrize("id_bits", [w for w in WIDTHS if w % 8])
def test_padding_must_be_zero(num_ids: int, id_bits: int) -> None:
    data = bytearray(packing.pack([0] * num_ids, id_bits))
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
        packing.unpack_ids(packing.pack(ids, 18), 18, 151_936)


@given(st.binary(max_size=80), st.integers(8, 24))
def test_any_bytes_are_ids_or_refused_and_what_is_read_packs_to_the_same_bytes(data: bytes, id_bits: int) -> None:
    try:
        ids = packing.unpack_ids(data, id_bits, 1 << id_bits)
    except RemoteProtocolError:
        return
    assert packing.pack(ids, id_bits) == data


# Digest of a log


def test_log_digest_is_blake2b_over_four_byte_ids() -> None:
    assert packing.log_digest([]).hex() == "e4a6a0577479b2b4"
    assert packing.log_digest([5, 6]).hex() == "cb95b055958168f9"
    assert packing.log_digest([6, 5]) != packing.log_digest([5, 6])


# Trees


def test_a_parent_takes_the_bits_that_the_last_needs() -> None:
    assert packing.pack_parents(TreeShape((0, 0, 1, 3))).hex() == "07"  # 00 00 01 11
    assert len(packing.pack_parents(TreeShape((0,) * 16))) == 8


def test_a_chain_takes_nothing() -> None:
    assert packing.pack_parents(TreeShape.chain(7)) == b""
    assert packing.unpack_parents(b"", 7) == TreeShape.chain(7)


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(*(st.integers(0, i) for i in range(n)))))
def test_every_tree_comes_back(parents: tuple[int, ...]) -> None:
    shape = TreeShape(parents)
    assert packing.unpack_parents(packing.pack_parents(shape), len(parents)) == shape


def test_a_large_tree_comes_back() -> None:
    shape = TreeShape(tuple(node // 2 for node in range(1000)))
    assert packing.unpack_parents(packing.pack_parents(shape), 1000) == shape


@pytest.mark.parametrize(("data", "num_nodes"), [(b"\0\0", 4), (b"\1", 2), (b"\0", 0), (bytes(4), 100)])
def test_bytes_that_are_no_tree_of_so_many_nodes_are_refused(data: bytes, num_nodes: int) -> None:
    with pytest.raises(RemoteProtocolError):
        packing.unpack_parents(data, num_nodes)


def test_a_chain_that_comes_as_a_tree_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="is a chain"):
        packing.unpack_parents(packing.pack((0, 1, 2), 2), 3)


# Draft distributions

LATTICES = [
    (151_936, Lattice(8, 64)),
    (151_936, Lattice(1, 1)),
    (151_936, Lattice(1, 64)),
    (151_936, Lattice(40, 1000)),
    (5, Lattice(8, 64)),  # fewer tokens than are kept
    (5, Lattice(2, 1)),  # fewer values than a byte has
    (1, Lattice(3, 7)),
    (256, Lattice(256, 16)),
    (2**24, Lattice(3, 65536)),
]


@pytest.mark.parametrize(("num_tokens", "lattice"), LATTICES)
@settings(max_examples=25)
@given(data=st.data())
def test_every_drawn_token_comes_back(data: st.DataObject, num_tokens: int, lattice: Lattice) -> None:
    drawn = data.draw(strategies.drawn_tokens(num_tokens, lattice))
    packed = packing.pack_probs(*drawn, num_tokens, lattice)
    assert packing.unpack_probs(packed, num_tokens, lattice) == drawn


def test_a_drawn_token_is_a_record_as_the_page_says() -> None:
    # A support of 2, the second of them drawn, ids 0 and 2 of 8 bits, weight 1 less 1 in 2 bits.
    packed = packing.pack_probs([2], [LatticeDistribution((0, 2), (1, 3))], 3, Lattice(2, 4))
    assert packed.hex(" ") == "01 01 00 02 00"
    both = [LatticeDistribution((0, 2), (3, 1)), LatticeDistribution((1,), (4,))]
    assert packing.pack_probs([0, 1], both, 3, Lattice(2, 4)).hex(" ") == "01 00 00 02 80 00 00 01"


def test_a_token_of_a_large_vocabulary_takes_26_bytes_at_most() -> None:
    widest = LatticeDistribution(tuple(range(151_928, 151_936)), (57, *[1] * 7))
    assert len(packing.pack_probs([151_935], [widest], 151_936, Lattice(8, 64))) == 26
    assert packing.max_drawn_tokens(151_936, Lattice(8, 64)) == MAX_PROBS_BYTES // 26


def test_tokens_without_weight_are_left_out() -> None:
    lattice = Lattice(2, 10)
    packed = packing.pack_probs([7], [LatticeDistribution((0, 1, 4, 7), (0, 4, 0, 6))], 100, lattice)
    assert packing.unpack_probs(packed, 100, lattice) == ((7,), (LatticeDistribution((1, 7), (4, 6)),))


@pytest.mark.parametrize(
    ("token_id", "support", "weights", "complaint"),
    [
        (1, (1, 2, 3), (1, 1, 2), "3 tokens of some weight"),
        (1, (), (), "0 tokens"),
        (1, (1, 2), (4,), "2 tokens and the weights .4."),
        (1, (1, 2), (0, 0), "may have 1 to 2"),
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
def test_packing_refuses_what_the_lattice_does_not_allow(
    token_id: int, support: tuple[int, ...], weights: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        packing.pack_probs([token_id], [LatticeDistribution(support, weights)], 10, Lattice(2, 4))


def test_packing_refuses_more_distributions_than_an_offer_may_have() -> None:
    with pytest.raises(LocalProtocolError, match=str(MAX_PROBS_BYTES)):
        packing.pack_probs([0] * 900, [LatticeDistribution((0,), (64,))] * 900, 151_936, Lattice(8, 64))


@pytest.mark.parametrize(
    "data",
    [
        "00",
        "00 01 02",
        "01 02 00 02 00",
        "01 00 00 02",
        "01 00 02 00 00",
        "01 00 00 03 00",
        "02 00 00 01 02 00",
        "00 00",
    ],
)
def test_records_that_are_cut_off_or_no_distribution_are_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        packing.unpack_probs(bytes.fromhex(data), 3, Lattice(2, 4))


def test_more_bytes_than_an_offer_may_have_are_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError, match="4097 bytes .* may have 4096"):
        packing.unpack_probs(b"\0" * 4097, 2, Lattice(1, 1))


@pytest.mark.parametrize(("num_tokens", "lattice"), LATTICES)
@settings(max_examples=30)
@example(data=b"")
@example(data=b"\0" * 20)
@given(data=st.binary(max_size=120))
def test_any_bytes_are_drawn_tokens_or_refused(data: bytes, num_tokens: int, lattice: Lattice) -> None:
    try:
        drawn = packing.unpack_probs(data, num_tokens, lattice)
    except RemoteProtocolError:
        return
    assert packing.pack_probs(*drawn, num_tokens, lattice) == data


@pytest.mark.parametrize(
    ("num_tokens", "lattice"),
    [(151_936, Lattice(8, 64)), (151_936, Lattice(256, 65536)), (2**24, Lattice(256, 1)), (2, Lattice(1, 1))],
)
def test_reading_the_most_distributions_takes_a_bounded_effort(num_tokens: int, lattice: Lattice) -> None:
    for num_bytes in (MAX_PROBS_BYTES - 7, MAX_PROBS_BYTES):
        for data in (b"\0" * num_bytes, b"\0" + b"\x55" * (num_bytes - 1)):

            def read(data: bytes = data) -> None:
                with suppress(RemoteProtocolError):
                    packing.unpack_probs(data, num_tokens, lattice)

            effort = effort_of(read)
            assert effort.num_steps < 200 * num_bytes  # 5 microseconds a byte
            assert effort.peak_bytes < 100 * num_bytes


some_logprobs = st.floats(max_value=0, width=32)


@given(num_top=st.integers(0, 3), data=st.data())
def test_log_probabilities_come_back_as_they_were(num_top: int, data: st.DataObject) -> None:
    top = st.lists(st.tuples(st.integers(0, 299), some_logprobs), min_size=num_top, max_size=num_top).map(tuple)
    told = data.draw(st.lists(st.none() | st.builds(TokenLogprobs, some_logprobs, top), max_size=4))
    packed = packing.pack_logprobs(told, num_top)
    assert len(packed) == len(told) * packing.num_logprob_bytes(num_top)
    assert packing.unpack_logprobs(packed, len(told), num_top, 300) == told


@pytest.mark.parametrize(
    ("told", "count", "complaint"),
    [
        (TokenLogprobs(-1.0, ((2, -0.5),)), 2, "of 2 tokens take 24 bytes and 12 bytes came"),
        (TokenLogprobs(0.5, ((2, -0.5),)), 1, "none may be above 0"),
        (TokenLogprobs(-1.0, ((2, 0.5),)), 1, "none may be above 0"),
        (TokenLogprobs(-1.0, ((300, -0.5),)), 1, "none may be above 0"),
    ],
)
def test_log_probabilities_that_are_none_are_refused(told: TokenLogprobs, count: int, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        packing.unpack_logprobs(packing.pack_logprobs([told], 1), count, 1, 300)


def test_log_probabilities_of_another_number_of_tokens_are_not_packed() -> None:
    with pytest.raises(LocalProtocolError, match="cannot be packed for 2 tokens each"):
        packing.pack_logprobs([TokenLogprobs(-1.0, ((2, -0.5),))], 2)
