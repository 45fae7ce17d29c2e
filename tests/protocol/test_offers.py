import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft import core
from skydraft.core import AcceptanceRule, Draft, Exact, LatticeDistribution, MinProb, Rank, Rejection
from skydraft.errors import LocalProtocolError, RemoteProtocolError
from skydraft.protocol import messages, offers, packing
from tests.protocol import strategies

NUM_TOKENS = 1000  # ids take 10 bits
REJECTION = Rejection(2, 4)
LIKELY_FIRST = LatticeDistribution((3, 5), (3, 1))


@st.composite
def drafts(draw: st.DrawFn, rule: AcceptanceRule) -> Draft:
    forced = draw(st.lists(st.integers(0, NUM_TOKENS - 1), max_size=4).map(tuple))
    start = draw(strategies.positions)
    if isinstance(rule, Rejection):
        drawn = draw(strategies.drawn_tokens(NUM_TOKENS, rule))
        if forced or drawn.token_ids:
            return Draft(start, forced + drawn.token_ids, None, len(forced), drawn.distributions or None)
        return Draft(start, (0,), None, 1)
    judged = draw(st.lists(st.integers(0, NUM_TOKENS - 1), min_size=not forced, max_size=6).map(tuple))
    tree = draw(st.none() | st.tuples(*(st.integers(0, i) for i in range(len(judged)))))
    parents = None if tree is None else (*range(len(forced)), *(parent + len(forced) for parent in tree))
    return Draft(start, forced + judged, parents, len(forced))


@pytest.mark.parametrize("rule", [Exact(), Rank(3), MinProb(0.5), Rejection(8, 64), Rejection(1, 1)])
@given(data=st.data())
def test_every_offer_comes_back(data: st.DataObject, rule: AcceptanceRule) -> None:
    draft, session = data.draw(drafts(rule)), data.draw(strategies.sessions)
    wire = offers.to_wire(draft, session, NUM_TOKENS, rule)
    assert wire.session == session
    assert offers.from_wire(wire, NUM_TOKENS, rule) == draft


def test_forced_tokens_take_no_room_in_a_tree() -> None:
    tree = Draft(0, (*range(100), 1, 2, 3), (*range(100), 100, 100, 102), num_forced=100)
    wire = offers.to_wire(tree, 0, NUM_TOKENS, Exact())
    assert wire.packed_parents == packing.pack_parents((0, 0, 2))


def test_a_tree_that_is_a_chain_stays_a_tree() -> None:
    wire = offers.to_wire(Draft(0, (7,), (0,)), 0, NUM_TOKENS, Exact())
    assert offers.from_wire(wire, NUM_TOKENS, Exact()).parents == (0,)


def test_under_rejection_only_forced_tokens_are_packed_as_ids() -> None:
    draft = Draft(5, (900, 3), None, 1, (LIKELY_FIRST,))
    wire = offers.to_wire(draft, 0, NUM_TOKENS, REJECTION)
    assert wire.packed_ids == packing.pack_ids([900], 10)
    assert wire.packed_probs == packing.pack_probs([3], [LIKELY_FIRST], NUM_TOKENS, REJECTION)


@pytest.mark.parametrize(
    ("draft", "rule", "complaint"),
    [
        (Draft(0, ()), Exact(), "0 tokens"),
        (Draft(0, (1,), None, 2), Exact(), "1 tokens cannot be sent with 2 of them forced"),
        (Draft(0, (1,), None, -1), Exact(), "-1 of them forced"),
        (Draft(0, (1, 2), (0,)), Exact(), "2 tokens has 1 parents"),
        (Draft(0, (1, 2), (0, 0), 2), Exact(), "forced tokens must come first, as a chain"),
        (Draft(0, (1, 2, 3), (0, 1, 1), 2), Exact(), "node 0 has parent -1"),
        (Draft(0, (1, 2), (0, 2)), Exact(), "node 1 has parent 2"),
        (Draft(0, (NUM_TOKENS + 24,)), Exact(), "does not fit in 10 bits"),
        (
            Draft(0, (3,), None, 0, (LIKELY_FIRST,)),
            Exact(),
            "rule exact this offer needs 0 draft distributions and has 1",
        ),
        (Draft(0, (3,)), REJECTION, "needs 1 draft distributions and has 0"),
        (Draft(0, (3, 3), None, 0, (LIKELY_FIRST,)), REJECTION, "needs 2 draft distributions and has 1"),
        (Draft(0, (3,), (0,), 0, (LIKELY_FIRST,)), REJECTION, "must be a chain"),
        (Draft(0, (4,), None, 0, (LIKELY_FIRST,)), REJECTION, "no weight"),
    ],
)
def test_sending_what_is_no_offer_is_our_error(draft: Draft, rule: AcceptanceRule, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        offers.to_wire(draft, 0, NUM_TOKENS, rule)


def ids(*token_ids: int) -> bytes:
    return packing.pack_ids(token_ids, 10)


NINE_DRAWN = packing.pack_probs([3] * 9, [LIKELY_FIRST] * 9, NUM_TOKENS, REJECTION)


@pytest.mark.parametrize(
    ("wire", "rule", "complaint"),
    [
        (messages.Draft(0, ids(1000)), Exact(), "token id 1000"),
        (messages.Draft(0, b"a"), Exact(), "1 bytes came"),
        (messages.Draft(0, ids(1, 2), num_forced=3), Exact(), "2 packed tokens says that 3 are forced"),
        (messages.Draft(0, ids(*range(9))), Exact(), "9 tokens that are not forced and this side takes 8"),
        (messages.Draft(0, ids(1, 2), packed_parents=b"\2"), Exact(), "trees of 2 nodes"),
        (messages.Draft(0, ids(1, 2), packed_parents=b"\0\0"), Exact(), "takes 1 bytes and 2 came"),
        (messages.Draft(0, ids(1), packed_probs=b"\0"), Exact(), "draft distributions and the rule is exact"),
        (messages.Draft(0, ids(1)), REJECTION, "packed tokens are all forced"),
        (messages.Draft(0, ids(1), num_forced=1, packed_parents=b"\0"), REJECTION, "is a chain"),
        (messages.Draft(0, b"", packed_probs=b"\xff" * 3), REJECTION, "draft distributions"),
        (messages.Draft(0, b"", packed_probs=NINE_DRAWN), REJECTION, "9 tokens that are not forced"),
    ],
)
def test_receiving_what_is_no_offer_is_the_peers_error(
    wire: messages.Draft, rule: AcceptanceRule, complaint: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        offers.from_wire(wire, NUM_TOKENS, rule, max_draft_tokens=8)


def test_forced_tokens_do_not_count_towards_the_limit() -> None:
    wire = offers.to_wire(Draft(0, tuple(range(500)), None, 492), 0, NUM_TOKENS, Exact())
    assert len(offers.from_wire(wire, NUM_TOKENS, Exact(), max_draft_tokens=8).token_ids) == 500


@given(wire=strategies.drafts(), rule=strategies.rules, num_tokens=st.sampled_from([1, 5, 1000, 151_936, 2**24]))
def test_any_draft_on_the_wire_is_an_offer_or_refused(
    wire: messages.Draft, rule: AcceptanceRule, num_tokens: int
) -> None:
    try:
        draft = offers.from_wire(wire, num_tokens, rule)
    except RemoteProtocolError:
        return
    assert draft.token_ids
    assert all(0 <= token_id < num_tokens for token_id in draft.token_ids)
    assert draft.parents is None or all(0 <= parent <= node for node, parent in enumerate(draft.parents))
    num_probs = len(draft.token_ids) - draft.num_forced if isinstance(rule, core.Rejection) else 0
    assert len(draft.distributions or ()) == num_probs
