import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import Prompt, SegmentKind, TensorSegment, TokenSegment
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol import messages, packing, segments
from tests.protocol import strategies


@given(st.lists(strategies.segments, max_size=5))
def test_every_prompt_comes_back(wire: list[messages.WireSegment]) -> None:
    prompt = segments.from_wire(wire, strategies.NUM_TOKENS)
    assert segments.to_wire(prompt, strategies.ID_BITS) == tuple(wire)


def test_a_prompt_keeps_its_segments_in_order_and_of_their_kind() -> None:
    tensor = TensorSegment("log_mel", "float32", (1, 2), b"\0" * 8)
    prompt = Prompt((TokenSegment((1, 2)), tensor, TokenSegment((3,), SegmentKind.EVIDENCE)))
    assert segments.from_wire(segments.to_wire(prompt, 8), 4) == prompt


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="token id 5 "):
        segments.from_wire([messages.WireTokens(b"\5")], 5)


def test_a_tensor_whose_bytes_do_not_fit_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="should have 8 bytes"):
        segments.from_wire([messages.WireTensor("mel", "float32", (2,), b"\0" * 7)], 5)


def test_sending_an_id_that_does_not_fit_is_our_error() -> None:
    with pytest.raises(LocalProtocolError, match="8 bits"):
        segments.to_wire(Prompt((TokenSegment((256,)),)), packing.id_bits(256))


def test_sending_too_many_segments_is_our_error() -> None:
    with pytest.raises(LocalProtocolError, match="65 segments and may have 64"):
        segments.to_wire(Prompt((TokenSegment((1,)),) * 65), 8)
