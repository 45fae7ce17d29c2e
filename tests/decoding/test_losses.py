"""What a lost connection and a cloud that lies do to a session: origins stay right, and lies are refused."""

from __future__ import annotations

import pytest

from skydraft.config import CloudSettings
from skydraft.core import Exact, Rejection, SamplingParams
from skydraft.decoding.edge_session import EdgeSession
from skydraft.errors import RemoteProtocolError
from skydraft.protocol import messages, packing
from tests.linked import PROMPT, Linked, cloud_only, table

MODEL = "table:vocab=8,seed=5,order=2"
SAMPLING = SamplingParams(max_tokens=24)
TRUTH = cloud_only(table(MODEL), SAMPLING)
WRONG = (TRUTH[2] + 1) % 8


def linked(sampling: SamplingParams = SAMPLING, settings: CloudSettings | None = None) -> Linked:
    joined = Linked(EdgeSession(table(MODEL).vocabulary, PROMPT, sampling, Exact()), table(MODEL), settings)
    joined.open()
    return joined


def origins(joined: Linked) -> list[str]:
    return [token.origin.value for token in joined.session.tokens()]


def lose_verdict(joined: Linked, token_ids: list[int]) -> None:
    joined.session.offer(token_ids)
    joined.send_due()
    joined.carry_up()
    joined.think()
    joined.cut()


def test_a_lost_correction_stays_a_correction() -> None:
    joined = linked()
    lose_verdict(joined, [*TRUTH[:2], WRONG])
    joined.open()
    assert origins(joined) == ["accepted", "accepted", "corrected"]
    assert joined.session.num_rounds == 1


def test_a_lost_bonus_token_stays_the_clouds_own() -> None:
    joined = linked()
    lose_verdict(joined, TRUTH[:3])
    joined.open()
    assert origins(joined) == ["accepted"] * 3 + ["cloud"]


def test_a_second_attempt_to_reconnect_forgets_no_offer() -> None:
    joined = linked()
    lose_verdict(joined, [*TRUTH[:2], WRONG])
    joined.session.disconnect()
    joined.open()
    assert origins(joined) == ["accepted", "accepted", "corrected"]


def test_what_credit_wrote_after_a_lost_correction_is_the_clouds_own() -> None:
    joined = linked()
    joined.session.give_credit(24)
    joined.send_due()
    joined.session.offer([TRUTH[0], (TRUTH[1] + 1) % 8])
    joined.send_due()
    joined.carry_up()
    joined.carry_up()
    while joined.think():
        pass
    joined.cut()
    joined.open()
    assert origins(joined) == ["accepted", "corrected"] + ["cloud"] * 22


def test_an_offer_that_never_arrived_accepts_nothing_later() -> None:
    joined = linked()
    joined.session.offer(TRUTH[:2])
    joined.cut()
    joined.open()
    joined.session.give_credit(24)
    joined.send_due()
    joined.settle()
    assert set(origins(joined)) == {"cloud"}
    assert joined.session.num_rounds == 0


def test_a_complete_text_takes_late_offers_in_silence() -> None:
    joined = linked(SamplingParams(max_tokens=4), CloudSettings(max_in_flight=2))
    joined.session.give_credit(4)
    joined.send_due()
    joined.settle()
    assert joined.session.is_complete
    for _ in range(4):
        joined.send(messages.Offer(4, b"\x01"))
        joined.settle()
    assert joined.registry.num_sessions == 1


def test_a_session_that_is_away_computes_nothing() -> None:
    joined = linked()
    joined.session.give_credit(24)
    joined.send_due()
    joined.carry_up()
    joined.cut()
    assert not joined.think()


def test_offers_beyond_any_text_are_refused_and_not_kept() -> None:
    joined = linked()
    ((_, fault),) = joined.registry.receive(
        joined.connection, messages.Offer(1_000_000, bytes(100_000), num_forced=100_000)
    )
    assert isinstance(fault, messages.Fault)
    assert "and this side takes none beyond 88" in fault.sentence


@pytest.mark.parametrize("message", [messages.Verdict(1, 1000), messages.Tokens(0, bytes([1] * 25))])
def test_tokens_that_nobody_knows_or_beyond_the_end_are_the_clouds_mistake(message: messages.CloudMessage) -> None:
    joined = linked()
    joined.session.offer([1])
    with pytest.raises(RemoteProtocolError, match="the cloud wrote"):
        joined.session.receive(message)


def test_a_new_session_without_a_key_is_the_clouds_mistake() -> None:
    vocabulary = table(MODEL).vocabulary
    session = EdgeSession(vocabulary, PROMPT, SAMPLING, Exact())
    session.open()
    mark = messages.VocabularyMark(8, vocabulary.digest())
    with pytest.raises(RemoteProtocolError, match="without a key"):
        session.receive(
            messages.Opened(messages.PROTOCOL_VERSION, 0, b"", 0, packing.log_digest(()), mark, messages.LEAST_LIMITS)
        )


def test_a_block_is_never_longer_than_its_distributions_may_be() -> None:
    vocabulary = table("table:vocab=20000").vocabulary
    session = EdgeSession(vocabulary, PROMPT, SAMPLING, Rejection(256, 65536))
    assert 1 <= session.max_block_length < 10
    assert EdgeSession(vocabulary, PROMPT, SAMPLING, Exact()).max_block_length == 16
