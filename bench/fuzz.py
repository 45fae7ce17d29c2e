"""Strangers who send a live cloud whatever `bench.fuzz_frames` makes up, beside a device that writes its texts.

Over real sockets to a cloud in a process of its own. The strangers have a key of their own, whose limits are all that
keeps them from taking every place. Of every connection is checked what must come back: a message that is none closes it
with a reason, everything else leaves it open and the cloud answering. That is what `bench.soak --fuzz` runs.

`python -m bench.fuzz` runs `bench.floods`, one after the other, each for 10 s and with the same device beside it.

Claims:
    slowdown_NAME: median time of the device's texts, each over a connection of its own, under the flood NAME, over that
        without.
    honest_slowdown_max: the largest of these. Aim: at most 2.
    honest_texts_failed: that came to no end, or to another than the cloud's own. Must be 0.
    flooded_memory_mb: the most that a cloud had taken at the end of a flood.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import CloseCode

from bench import flooded
from bench.claims import RESULTS, parse_arguments, show, write_results
from bench.fuzz_frames import NEVER_OPENED, PROBE, Episode, FrameFuzzer, upgrade_request
from bench.honest import PATIENCE_S, HonestText
from bench.observed import ObservedCloud, Sample
from bench.replay import write_alone
from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.core import Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.load import load_engine
from skydraft.errors import SkydraftError
from skydraft.protocol import codec, messages
from skydraft.protocol.limits import FrameLimits
from skydraft.transport.address import session_url
from skydraft.transport.websocket import connect

MODEL = "table:vocab=64,seed=3,order=2"
CLOUD_LIMITS = FrameLimits(max_draft_tokens=64)  # of a cloud as it comes
GRACE_S = 1.0
SAMPLE_PERIOD_S = 0.5
NO_HANDSHAKE_PAUSE_S = 0.1
NUM_STRANGERS = 8
STRANGER = KeyGrant(max_sessions=32, max_in_flight=64)
SHARE_DEAF, SHARE_GARBAGE, SHARE_RUDE = 0.05, 0.02, 0.5  # of connections: that never read, speak no WebSocket, just go
MAX_TOLD = 5  # failures that are kept word for word
FLOOD_S, QUICK_S = 10.0, 1.0  # of each flood
REFUSALS = frozenset((CloseCode.PROTOCOL_ERROR, CloseCode.MESSAGE_TOO_BIG))


class Keys(NamedTuple):
    """What the cloud knows its callers by."""

    file: Path
    stranger: str
    honest: str


def make_keys(folder: Path) -> Keys:
    """Make a file of keys for strangers and for the device beside them."""
    file = folder / "keys.toml"
    return Keys(file, add_key(file, "stranger", STRANGER), add_key(file, "honest", KeyGrant()))


def cloud_flags(keys: Keys) -> tuple[str, ...]:
    """What a cloud that is to be fuzzed is started with."""
    return ("--keys", str(keys.file), "--grace", f"{GRACE_S:g}")


@dataclass
class FuzzResult:
    """What strangers did and what came of it.

    num_frames: that were sent and, but for those of the deaf, provably handled.
    num_refused: of these, messages that were none and were answered by closing the connection.
    failures: in words, with the frames in hexadecimal; the first few. num_failures: all.
    faults: that the strangers heard, by code.
    num_texts, num_wrong: of the device beside them. longest_wait_s: that it waited for an answer.
    samples: of the cloud while it went on. after: when the last stranger's sessions had ended.
    """

    num_frames: int = 0
    num_connections: int = 0
    num_refused: int = 0
    num_failures: int = 0
    failures: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    num_texts: int = 0
    num_wrong: int = 0
    longest_wait_s: float = 0.0
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    after: Sample | None = None

    def fail(self, what: str, frames: list[bytes]) -> None:
        self.num_failures += 1
        if len(self.failures) < MAX_TOLD:
            self.failures.append(f"{what}: {' '.join(frame[:200].hex() or '-' for frame in frames[-3:])}")


async def fuzz(cloud: ObservedCloud, keys: Keys, num_frames: int, seed: int) -> FuzzResult:
    """Send a cloud at least num_frames frames.

    Raises:
        SkydraftError: the cloud has ended, or serves its honest device no more.
    """
    result, began_s = FuzzResult(), time.monotonic()
    attack = Attack(cloud.url, keys.stranger, seed, result)
    attacking = asyncio.create_task(attack.run(num_frames))
    beside = (
        asyncio.create_task(_write_honestly(cloud.url, keys.honest, result, attack)),
        asyncio.create_task(_watch(cloud, result.samples)),
    )
    try:
        done, _ = await asyncio.wait((attacking, *beside), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # those beside end by errors only
    finally:
        for task in (attacking, *beside):
            task.cancel()
        await asyncio.gather(attacking, *beside, return_exceptions=True)
    result.seconds = time.monotonic() - began_s
    result.after = await settled(cloud)
    return result


async def _watch(cloud: ObservedCloud, samples: list[Sample]) -> None:
    while True:
        samples.append(await asyncio.to_thread(cloud.sample))
        await asyncio.sleep(SAMPLE_PERIOD_S)


async def settled(cloud: ObservedCloud) -> Sample:
    """The cloud when everybody has left and been forgotten; as it is, where that does not come."""
    deadline_s = time.monotonic() + PATIENCE_S
    sample = await asyncio.to_thread(cloud.sample)
    while (sample.num_sessions or sample.num_connections) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.2)
        sample = await asyncio.to_thread(cloud.sample)
    return sample


class Attack:
    """Strangers who come one after the other, several at a time."""

    def __init__(self, url: str, key: str, seed: int, result: FuzzResult) -> None:
        self._url = url
        self._key = key
        self._headers = {"Authorization": f"Bearer {key}"}
        self._rng = Random(seed)
        self._result = result
        self.fuzzer = FrameFuzzer(
            seed, messages.VocabularyMark.of(load_engine(MODEL, "target").vocabulary), CLOUD_LIMITS
        )

    async def run(self, num_frames: int) -> None:
        """Until at least so many frames were sent."""
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_STRANGERS):
                group.create_task(self._come_and_go(num_frames))

    async def _come_and_go(self, num_frames: int) -> None:
        while not self.is_enough(num_frames):
            self._result.num_connections += 1
            if self._rng.random() < SHARE_GARBAGE:
                await self._send_garbage()
            else:
                await self._play(self.fuzzer.episode())

    def is_enough(self, num_frames: int) -> bool:
        """Whether so many frames were sent."""
        return self._result.num_frames >= num_frames

    async def _send_garbage(self) -> None:
        """Bytes that are no WebSocket frames, after a handshake or in its place."""
        parts = urlsplit(self._url)
        with suppress(ConnectionError):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            if self._rng.random() < 0.5:
                writer.write(upgrade_request(self._key))
            writer.write(self._rng.randbytes(self._rng.choice((1, 10, 1000, 30_000))))
            await writer.drain()
            self._result.num_frames += 1
            writer.transport.abort()

    async def _play(self, episode: Episode) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S), self._connected() as socket:
                if self._rng.random() < SHARE_DEAF:
                    await self._talk_deaf(socket, episode)
                else:
                    await self._talk(socket, episode)
        except TimeoutError:
            self._result.fail(f"no answer within {PATIENCE_S:g} s", episode.frames)
        except (OSError, InvalidHandshake) as error:
            self._result.fail(f"no handshake ({error})", [])
            await asyncio.sleep(NO_HANDSHAKE_PAUSE_S)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ClientConnection]:
        socket = await connect_websocket(
            session_url(self._url),
            additional_headers=self._headers,
            compression=None,
            proxy=None,
            ping_interval=None,
            close_timeout=1.0,
            max_size=None,
        )
        try:
            yield socket
            if self._rng.random() >= SHARE_RUDE:
                await socket.close()
        finally:
            socket.transport.abort()

    async def _talk_deaf(self, socket: ClientConnection, episode: Episode) -> None:
        with suppress(ConnectionClosed):
            for frame in episode.frames:
                await socket.send(frame)
                self._result.num_frames += 1

    async def _talk(self, socket: ClientConnection, episode: Episode) -> None:
        """Send all, and wait until the last frame has been answered."""
        hearing = asyncio.create_task(self._hear(socket))
        try:
            for frame in episode.frames:
                await socket.send(frame)
            if not episode.is_fatal:
                await socket.send(PROBE)
        except ConnectionClosed:
            pass  # what it means is looked at below
        finally:
            is_probed = await _ended(hearing)
        self._result.num_frames += len(episode.frames)
        self._result.num_refused += episode.is_fatal
        is_refused_well = episode.is_fatal and socket.close_code in REFUSALS
        if not (is_probed or is_refused_well):
            self._result.fail(f"closed with {socket.close_code} {socket.close_reason}", episode.frames)

    async def _hear(self, socket: ClientConnection) -> bool:
        """Until the probe is answered (True) or the connection ends (False)."""
        with suppress(ConnectionClosed):
            async for data in socket:
                assert isinstance(data, bytes)
                message = codec.decode_cloud_message(data)
                if isinstance(message, messages.Opened):
                    self.fuzzer.hear(message.resume_key or b"?")
                if isinstance(message, messages.Fault):
                    if message.session == NEVER_OPENED:
                        return True
                    self._note(message)
        return False

    def _note(self, fault: messages.Fault) -> None:
        self._result.faults[fault.code.value] += 1
        if fault.code is messages.FaultCode.INTERNAL:
            self._result.fail(f"an internal fault ({fault.sentence})", [])


async def _ended(hearing: asyncio.Task[bool]) -> bool:
    """What a listener has heard; it does not outlive the one who waits for it."""
    try:
        return await hearing
    finally:
        hearing.cancel()


# The device beside them


async def _write_honestly(url: str, key: str, result: FuzzResult, attack: Attack) -> None:
    """Text after text, by offers and by credit in turn, until cancelled. Its resume keys are told to all strangers."""
    engine, rng = load_engine(MODEL, "target"), Random(0)

    def hear(message: messages.CloudMessage, wait_s: float) -> None:
        result.longest_wait_s = max(result.longest_wait_s, wait_s)
        if isinstance(message, messages.Opened):
            attack.fuzzer.hear(message.resume_key)

    for seed in range(2**31):
        prompt = Prompt((TokenSegment(tuple(rng.randrange(64) for _ in range(12))),))
        sampling = SamplingParams(temperature=1.0, seed=seed, max_tokens=40)
        session = EdgeSession(engine.vocabulary, prompt, sampling, Exact())
        truth = write_alone(engine, prompt, sampling)
        connection = await connect(url, token=key)
        try:
            await HonestText(connection, session, truth, rng, hear).write(drafts=bool(seed % 2))
        finally:
            await connection.close()
        result.num_texts += 1
        result.num_wrong += list(session.token_ids) != truth


def main() -> int:
    """Flood; 1 where the device beside was held up for too long, or lost a text."""
    options = parse_arguments(__doc__.splitlines()[0])
    try:
        with tempfile.TemporaryDirectory() as folder:
            keys = make_keys(Path(folder))
            results = flooded.measure(
                Path(folder), keys.stranger, keys.honest, cloud_flags(keys), QUICK_S if options.quick else FLOOD_S
            )
    except SkydraftError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1
    claims = flooded.claims(results)
    show(claims, options.json)
    if not options.quick:
        content = {"claims": [claim._asdict() for claim in claims], "floods": [each._asdict() for each in results]}
        write_results(RESULTS / "floods.json", "bench.fuzz", content)
    return int(not flooded.is_good(results))


if __name__ == "__main__":
    sys.exit(main())
