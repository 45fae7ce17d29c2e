import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import AcceptanceRule, Draft, Exact, LatticeDistribution, MinProb, Rank, Rejection, TreeShape
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
    if rule.draft_lattice is not None:
        drawn = draw(strategies.drawn_tokens(NUM_TOKENS, rule.draft_lattice))
        if forced or drawn.token_ids:
            return Draft.chain(start, forced + drawn.token_ids, len(forced), drawn.distributions or None)
        return Draft.chain(start, (0,), 1)
    tree = draw(st.none() | strategies.small_trees)
    if tree is not None:
        shape, judged = tree
    else:
        judged = draw(st.lists(st.integers(0, NUM_TOKENS - 1), min_size=not forced, max_size=6).map(tuple))
        shape = TreeShape.chain(len(judged))
    return Draft(start, forced + judged, shape.below_chain(len(forced)), len(forced))


@pytest.mark.parametrize("rule", [Exact(), Rank(3), MinProb(0.5), Rejection(8, 64), Rejection(1, 1)])
@given(data=st.data())
def test_every_offer_comes_back(data: st.DataObject, rule: AcceptanceRule) -> None:
    draft, session = data.draw(drafts(rule)), data.draw(strategies.sessions)
    wire = offers.to_wire(draft, session, NUM_TOKENS, rule)
    assert wire.session == session
    assert offers.from_wire(wire, NUM_TOKENS, rule) == draft


def test_forced_tokens_take_no_room_in_a_tree() -> None:
    tree = Draft(0, (*range(100), 1, 2, 3), TreeShape((*range(100), 100, 100, 102)), num_forced=100)
    wire = offers.to_wire(tree, 0, NUM_TOKENS, Exact())
    assert wire.packed_parents == packing.pack_parents(TreeShape((0, 0, 2)))


def test_under_rejection_only_forced_tokens_are_packed_as_ids() -> None:
    draft = Draft.chain(5, (900, 3), 1, (LIKELY_FIRST,))
    wire = offers.to_wire(draft, 0, NUM_TOKENS, REJECTION)
    assert wire.packed_ids == packing.pack([900], 10)
    assert wire.packed_probs == packing.pack_probs([3], [LIKELY_FIRST], NUM_TOKENS, REJECTION.draft_lattice)


@pytest.mark.parametrize(
    ("draft", "rule", "complaint"),
    [
        (Draft.chain(0, ()), Exact(), "without tokens"),
        (Draft.chain(0, (1,), 2), Exact(), "2 of a draft's 1 tokens are forced"),
        (Draft.chain(0, (1,), -1), Exact(), "-1 of a draft's 1 tokens are forced"),
        (Draft(0, (1, 2), TreeShape((0,))), Exact(), "2 tokens and 1 parents"),
        (Draft(0, (1, 2), TreeShape((0, 0)), 2), Exact(), "must be a chain from the root"),
        (Draft(0, (1, 2, 3), TreeShape((0, 1, 1)), 2), Exact(), "node 2 cannot be kept"),
        (Draft(0, (1, 2), TreeShape((0, 2))), Exact(), "node 1 hangs from row 2"),
        (Draft.chain(0, (NUM_TOKENS + 24,)), Exact(), "does not fit in 10 bits"),
        (
            Draft.chain(0, (3,), 0, (LIKELY_FIRST,)),
            Exact(),
            "rule exact this offer needs 0 draft distributions and has 1",
        ),
        (Draft.chain(0, (3,)), REJECTION, "needs 1 draft distributions and has 0"),
        (Draft.chain(0, (3, 3), 0, (LIKELY_FIRST,)), REJECTION, "needs 2 draft distributions and has 1"),
        (Draft(0, (3, 5), TreeShape((0, 0)), 0, (LIKELY_FIRST,) * 2), REJECTION, "must be a chain"),
        (Draft.chain(0, (4,), 0, (LIKELY_FIRST,)), REJECTION, "no weight"),
    ],
)
def test_sending_what_is_no_offer_is_our_error(draft: Draft, rule: AcceptanceRule, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        offers.to_wire(draft, 0, NUM_TOKENS, rule)


def ids(*token_ids: int) -> bytes:
    return packing.pack(token_ids, 10)


NINE_DRAWN = packing.pack_probs([3] * 9, [LIKELY_FIRST] * 9, NUM_TOKENS, REJECTION.draft_lattice)


@pytest.mark.parametrize(
    ("wire", "rule", "complaint"),
    [
        (messages.Offer(0, ids(1000)), Exact(), "token id 1000"),
        (messages.Offer(0, b"a"), Exact(), "1 bytes came"),
        (messages.Offer(0, ids(1, 2), num_forced=3), Exact(), "2 packed tokens says that 3 are forced"),
        (messages.Offer(0, ids(*range(9))), Exact(), "9 tokens that are not forced and this side takes 8"),
        (messages.Offer(0, ids(1, 2), packed_parents=b"\xc0"), Exact(), "node 0 hangs from row 1"),
        (messages.Offer(0, ids(1, 2), packed_parents=b"\x40"), Exact(), "is a chain and came with parents"),
        (messages.Offer(0, ids(1, 2), packed_parents=b"\0\0"), Exact(), "2 numbers of 1 bits came in 2 bytes"),
        (messages.Offer(0, ids(2, 2), packed_parents=b"\0"), Exact(), "same token twice behind one node"),
        (messages.Offer(0, ids(1), packed_probs=b"\0"), Exact(), "draft distributions and the rule is exact"),
        (messages.Offer(0, ids(1)), REJECTION, "packed tokens are all forced"),
        (messages.Offer(0, ids(1), num_forced=1, packed_parents=b"\0"), REJECTION, "is a chain"),
        (messages.Offer(0, b"", packed_probs=b"\xff" * 3), REJECTION, "a draft distribution of 256 tokens"),
        (messages.Offer(0, b"", packed_probs=NINE_DRAWN), REJECTION, "9 tokens that are not forced"),
    ],
)
def test_receiving_what_is_no_offer_is_the_peers_error(
    wire: messages.Offer, rule: AcceptanceRule, complaint: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        offers.from_wire(wire, NUM_TOKENS, rule, max_draft_tokens=8)


def test_forced_tokens_do_not_count_towards_the_limit() -> None:
    wire = offers.to_wire(Draft.chain(0, tuple(range(500)), 492), 0, NUM_TOKENS, Exact())
    assert len(offers.from_wire(wire, NUM_TOKENS, Exact(), max_draft_tokens=8).token_ids) == 500


@given(wire=strategies.drafts(), rule=strategies.rules, num_tokens=st.sampled_from([1, 5, 1000, 151_936, 2**24]))
def test_any_draft_on_the_wire_is_an_offer_or_refused(
    wire: messages.Offer, rule: AcceptanceRule, num_tokens: int
) -> None:
    try:
        draft = offers.from_wire(wire, num_tokens, rule)
    except RemoteProtocolError:
        return
    assert draft.token_ids
    assert all(0 <= token_id < num_tokens for token_id in draft.token_ids)
    assert draft.check() == draft
    num_probs = draft.num_judged if rule.draft_lattice else 0
    assert len(draft.distributions or ()) == num_probs
