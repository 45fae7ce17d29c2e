"""The strangers themselves: what they send, and that they notice a cloud which takes it badly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bench import fuzz
from bench.fuzz_frames import NEVER_OPENED, NUM_SESSIONS, PROBE, Episode, FrameFuzzer
from skydraft.errors import RemoteProtocolError
from skydraft.protocol import codec, messages
from skydraft.protocol.limits import MAX_TEXT_TOKENS, FrameLimits
from tests.linked import table

LIMITS = FrameLimits(max_draft_tokens=64)
KEY = b"sixteen bytes of"


def fuzzer(seed: int = 1) -> FrameFuzzer:
    made = FrameFuzzer(seed, messages.VocabularyMark.of(table(fuzz.MODEL).vocabulary), LIMITS)
    made.hear(KEY)
    return made


def episodes(number: int) -> list[Episode]:
    source = fuzzer()
    return [source.episode() for _ in range(number)]


def read(frame: bytes) -> messages.EdgeMessage | None:
    try:
        return codec.decode_edge_message(frame, LIMITS)
    except RemoteProtocolError:
        return None


def test_the_same_seed_makes_the_same_episodes() -> None:
    one, two, other = fuzzer(), fuzzer(), fuzzer(2)
    assert [one.episode() for _ in range(50)] == [two.episode() for _ in range(50)]
    assert [one.episode() for _ in range(50)] != [other.episode() for _ in range(50)]


def test_no_frame_but_the_last_of_a_fatal_episode_is_to_be_refused() -> None:
    for episode in episodes(150):
        assert [read(frame) is None for frame in episode.frames[:-1]] == [False] * (len(episode.frames) - 1)
        assert (read(episode.frames[-1]) is None) is episode.is_fatal


def test_many_connections_end_with_what_is_no_message_and_some_are_long() -> None:
    made = episodes(200)
    assert 0.5 < sum(episode.is_fatal for episode in made) / 200 < 0.95
    assert max(len(episode.frames) for episode in made) > 40


def test_there_is_every_kind_of_message_and_of_absurdity() -> None:
    sent = [message for episode in episodes(300) for frame in episode.frames if (message := read(frame)) is not None]
    assert {type(message) for message in sent} == {messages.Open, messages.Offer, messages.Generate, messages.Close}
    drafts = [message for message in sent if isinstance(message, messages.Offer)]
    opens = [message for message in sent if isinstance(message, messages.Open)]
    assert {0, MAX_TEXT_TOKENS} <= {draft.start for draft in drafts}
    assert any(draft.packed_parents for draft in drafts)
    assert any(draft.packed_probs for draft in drafts)
    assert any(draft.num_forced for draft in drafts)
    assert any(len(draft.packed_ids) > LIMITS.max_draft_tokens for draft in drafts)
    assert {str(opening.rule).partition(":")[0] for opening in opens} == {"exact", "rejection", "rank", "prob"}
    assert any(opening.resume is not None and opening.resume.key == KEY for opening in opens)
    assert any(opening.resume is not None and opening.resume.key != KEY for opening in opens)


def test_sessions_are_opened_twice_and_credit_goes_backwards() -> None:
    has_twice = has_backwards = False
    for episode in episodes(200):
        sent = [read(frame) for frame in episode.frames]
        numbers = [message.session for message in sent if isinstance(message, messages.Open)]
        has_twice |= len(numbers) > len(set(numbers))
        for number in range(NUM_SESSIONS):
            credit = [part.up_to for part in sent if isinstance(part, messages.Generate) and part.session == number]
            has_backwards |= any(later < earlier for earlier, later in pairwise(credit))
    assert has_twice
    assert has_backwards


# Clouds that take it badly

Handler = Callable[[ServerConnection], Awaitable[None]]


async def attack(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> fuzz.FuzzResult:
    """Some episodes at a cloud that does as the handler says, all by strangers who listen."""
    for name in ("SHARE_DEAF", "SHARE_GARBAGE"):
        monkeypatch.setattr(fuzz, name, 0.0)
    result = fuzz.FuzzResult()
    async with serve(handler, "127.0.0.1", 0, close_timeout=0.2) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await fuzz.Attack(f"ws://127.0.0.1:{port}", "key", 1, result).run(60)
    return result


async def answer_probes(socket: ServerConnection) -> None:
    fault = codec.encode(messages.Fault(messages.FaultCode.PROTOCOL, "not open", NEVER_OPENED))
    async for frame in socket:
        assert isinstance(frame, bytes)
        if frame == PROBE:
            await socket.send(fault)
        elif read(frame) is None:
            await socket.close(1002)


async def test_a_good_cloud_fails_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    result = await attack(answer_probes, monkeypatch)
    assert (result.num_failures, result.failures) == (0, [])
    assert result.num_frames >= 60


async def test_a_cloud_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(socket: ServerConnection) -> None:
        await socket.wait_closed()

    monkeypatch.setattr(fuzz, "PATIENCE_S", 0.3)
    monkeypatch.setattr(fuzz.Attack, "is_enough", lambda self, _: self._result.num_failures > 0, raising=True)
    result = await attack(hang, monkeypatch)
    assert "no answer within 0.3 s" in result.failures[0]


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_cloud_that_ends_connections_for_no_good_reason_is_noticed(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async def drop(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(code)

    result = await attack(drop, monkeypatch)
    assert f"closed with {code}" in result.failures[0]
    assert result.num_failures == result.num_connections


async def test_an_internal_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stumble(socket: ServerConnection) -> None:
        await socket.send(codec.encode(messages.Fault(messages.FaultCode.INTERNAL, "oh", 0)))
        await answer_probes(socket)

    result = await attack(stumble, monkeypatch)
    assert "an internal fault (oh)" in result.failures[0]
