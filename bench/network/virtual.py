"""One text in virtual time: both halves of a session, real messages and real models, exact pace, nothing else running.

The device does as `edge/exact_writer` and the cloud as `cloud/scheduler`; what computing takes is in the pace.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from bench.network.model_cache import Path, Thinking
from bench.network.oracle import OracleTree
from bench.network.profiles import Sides
from bench.network.virtual_cloud import VirtualCloud
from skydraft.core import Exact, Prompt, SamplingParams, ShareLevel, TokenSegment
from skydraft.decoding.drafting import Drafting
from skydraft.decoding.edge_session import EdgeSession
from skydraft.decoding.guess_tree import Node
from skydraft.decoding.lookup import Lookup
from skydraft.edge.border import Border, DisclosureRecord
from skydraft.edge.draft_lease import DraftLease
from skydraft.edge.measuring import PING_PERIOD_S
from skydraft.edge.tree_reader import TreeReader
from skydraft.policies.planner import Planner
from skydraft.protocol import codec, messages
from skydraft.protocol.limits import FrameLimits
from skydraft.transport.link.shaping import PathSettings, Shaper

CONNECT_ROUND_TRIPS = 2  # TCP's handshake and WebSocket's
UP_HEAD_BYTES, DOWN_HEAD_BYTES = 58, 54  # of a short message: IP, TCP with timestamps, WebSocket (masked upwards)

_LIMITS = FrameLimits()
_Result = TypeVar("_Result")


@dataclass
class Clock:
    """Virtual time and what will happen in it."""

    now_s: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._count, event))

    def run_until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            assert self._events, "device and cloud wait for each other"
            self.now_s, _, event = heapq.heappop(self._events)
            event()


class Processor:
    """What computes on it at once gets equal shares of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[Callable[[], None], float] = {}  # what follows each, and the seconds that it needs still
        self._since_s = 0.0
        self._num_changes = 0

    def run(self, seconds: float, then: Callable[[], None]) -> None:
        """Compute for so long, alone, and call `then`."""
        self._catch_up()
        self._jobs[then] = seconds
        self._look_ahead()

    def _catch_up(self) -> None:
        elapsed_s, self._since_s = self._clock.now_s - self._since_s, self._clock.now_s
        for job in self._jobs:
            self._jobs[job] -= elapsed_s / len(self._jobs)

    def _look_ahead(self) -> None:
        """To when the next job ends, unless another begins before."""
        self._num_changes += 1
        if not self._jobs:
            return
        first, change = min(self._jobs, key=lambda job: self._jobs[job]), self._num_changes

        def end() -> None:
            if change == self._num_changes:
                self._catch_up()
                del self._jobs[first]
                self._look_ahead()
                first()

        self._clock.after(max(0.0, self._jobs[first]) * len(self._jobs), end)


@dataclass
class Stopwatch:
    """How long deciding takes, in real time, from one answer of the cloud to the next.

    laps_s: of each answer.
    """

    laps_s: list[float] = field(default_factory=list)
    _lap_s: float = 0.0

    def time(self, call: Callable[[], _Result]) -> _Result:
        begin_s = time.perf_counter()
        try:
            return call()
        finally:
            self._lap_s += time.perf_counter() - begin_s

    def lap(self) -> None:
        self.laps_s.append(self._lap_s)
        self._lap_s = 0.0


@dataclass(frozen=True)
class VirtualLink:
    """round_trip_s, rate_mbps: as of an emulated link."""

    round_trip_s: float
    rate_mbps: float

    def shaper(self) -> Shaper:
        return Shaper(PathSettings(delay_ms=self.round_trip_s * 500, rate_mbps=self.rate_mbps), 0)


@dataclass(frozen=True)
class Virtual:
    """What a text took. Times in seconds from the start, without a connection.

    num_positions: that the cloud computed. num_read: nodes that the device read.
    """

    token_ids: Path
    times_s: list[float]
    counts: list[int]
    rounds: int
    num_positions: int
    num_read: int
    record: DisclosureRecord
    stopwatch: Stopwatch


class VirtualText:
    """One text under way.

    Args:
        planner: of the device; what it learnt serves the next text.
        is_drafted: False where the cloud writes alone.
        is_oracle: the device knows which of its guesses hold.
        looks_up: it also looks guesses up in the prompt and the text.
    """

    def __init__(
        self,
        minds: Thinking,
        sides: Sides,
        link: VirtualLink,
        planner: Planner,
        is_drafted: bool = True,
        is_oracle: bool = False,
        looks_up: bool = False,
    ) -> None:
        opening = minds.opening
        sampling = SamplingParams(max_tokens=opening.sampling.max_tokens)  # see VirtualCloud
        self._prompt = Prompt((TokenSegment(opening.prompt_ids),))
        self._minds, self._link, self._planner = minds, link, planner
        self._is_drafted = is_drafted
        self._pace = sides.draft_pace
        self._clock, self._stopwatch = Clock(), Stopwatch()
        self._device = Processor(self._clock)
        self._cloud_processor = self._device if sides.is_shared else Processor(self._clock)
        self._border = Border(ShareLevel.TOKENS)
        self._cloud = VirtualCloud(minds, sides.cloud_pace)
        self._up, self._down = link.shaper(), link.shaper()
        self._session = EdgeSession(minds.vocabulary, self._prompt, sampling, Exact())
        lookup = Lookup(planner.habits.match_confidence, opening.prompt_ids) if looks_up else None
        self._drafting = Drafting(self._session, planner, 0.0, lookup)
        if is_oracle:
            self._drafting.tree = OracleTree(minds.text(), must_ask=not self._drafting.way.has_credit)
        self._reader = TreeReader(_NoEngine(), DraftLease(0), None, 0)  # type: ignore[arg-type]
        self._is_prompt_begun = self._is_prompt_read = self._is_drafting = self._is_cloud_busy = False
        self._is_cloud_idle = True  # it has no offer to judge
        self._num_read = 0
        self._times_s: list[float] = []
        self._counts: list[int] = []

    def run(self) -> Virtual:
        self._read_prompt()
        self._clock.after(CONNECT_ROUND_TRIPS * self._link.round_trip_s, self._connected)
        self._clock.run_until(lambda: self._session.is_complete)
        return Virtual(
            tuple(self._session.token_ids),
            self._times_s,
            self._counts,
            self._session.num_rounds,
            self._cloud.num_positions,
            self._num_read,
            self._border.record,
            self._stopwatch,
        )

    # The device

    def _connected(self) -> None:
        if not self._is_drafted:
            self._session.give_credit(self._session.sampling.max_tokens)
            self._send_due()
            return
        self._send_due()
        self._planner.saw_interruption()
        self._drafting.saw_connection()
        self._ping()
        self._act()

    def _ping(self) -> None:
        round_trip_s = self._link.round_trip_s

        def answered() -> None:
            self._planner.saw_ping(round_trip_s)
            self._clock.after(PING_PERIOD_S, self._ping)

        self._clock.after(round_trip_s, answered)

    def _read_prompt(self) -> None:
        """Begin to, once there are drafts to be made."""
        if self._is_drafted and self._drafting.way.width and not self._is_prompt_begun:
            self._is_prompt_begun = True
            self._device.run(self._pace.pass_s(0, len(self._minds.opening.prompt_ids)), self._prompt_read)

    def _prompt_read(self) -> None:
        self._is_prompt_read = True
        self._act()

    def _act(self) -> None:
        """Offer what is worth it, and draft on."""
        if not self._is_drafted or not self._session.can_follow:
            return
        drafting, time_policy = self._drafting, self._stopwatch.time
        drafting.give_credit()
        time_policy(drafting.offer)
        self._send_due()
        self._read_prompt()
        if self._is_prompt_read and not self._is_drafting and (nodes := time_policy(drafting.next_step)):
            reading = self._reader.plan(drafting.tree, nodes)
            num_tokens = len(reading.token_ids)
            seconds = self._pace.pass_s(num_tokens) if num_tokens else 0.0
            self._num_read += num_tokens
            self._is_drafting = True
            self._device.run(seconds, partial(self._drafted, nodes, num_tokens, self._clock.now_s))

    def _drafted(self, nodes: list[Node], num_tokens: int, begun_s: float) -> None:
        seconds = self._clock.now_s - begun_s
        self._is_drafting = False
        count = self._drafting.way.num_guesses
        guesses = [self._minds.guesses(path_of(node), count) for node in nodes]
        self._stopwatch.time(lambda: self._drafting.saw_draft_step(nodes, guesses, num_tokens, seconds))
        self._act()

    def _hear(self, data: bytes) -> None:
        num_before = self._session.num_positions
        message = self._border.let_in(data)
        new_tokens = self._session.receive(message)
        self._is_cloud_idle = not self._session.num_in_flight
        if isinstance(message, messages.Opened) and message.pass_times is not None:
            self._planner.saw_pass_times(message.pass_times)
            self._drafting.saw_answer()
        if new_tokens:
            self._times_s.append(self._clock.now_s)
            self._counts.append(len(new_tokens))
            if self._is_drafted:
                num_computed = self._session.num_positions - num_before
                self._stopwatch.time(lambda: self._plan(len(new_tokens), num_computed))
                self._stopwatch.lap()
        self._act()

    def _plan(self, num_new: int, num_computed: int) -> None:
        self._planner.saw_answer(self._clock.now_s, num_new, num_computed, self._session.has_credit)
        self._drafting.saw_answer()

    # The link and the cloud

    def _send_due(self) -> None:
        for message in self._session.to_send():
            if self._is_cloud_idle and isinstance(message, messages.Offer):
                self._is_cloud_idle = False
                self._planner.saw_question(self._clock.now_s)
            data, now_s = self._border.let_out(message), self._clock.now_s
            out_s = self._up.schedule(len(data) + UP_HEAD_BYTES, now_s)
            self._clock.after(out_s - now_s, partial(self._arrived, data))

    def _reply(self, message: messages.CloudMessage | None) -> None:
        if message is not None:
            data, now_s = codec.encode(message), self._clock.now_s
            out_s = self._down.schedule(len(data) + DOWN_HEAD_BYTES, now_s)
            self._clock.after(out_s - now_s, lambda: self._hear(data))

    def _arrived(self, data: bytes) -> None:
        self._reply(self._cloud.receive(codec.decode_edge_message(data, _LIMITS)))
        self._work()

    def _work(self) -> None:
        step = None if self._is_cloud_busy else self._cloud.step()
        if step is None:
            return
        self._is_cloud_busy = True

        def finished() -> None:
            self._is_cloud_busy = False
            self._reply(step.message)
            self._work()

        self._cloud_processor.run(step.seconds, finished)


class _NoEngine:
    """The reader only plans here."""


def path_of(node: Node) -> Path:
    """The text from its first token to a node."""
    path: list[int] = []
    above: Node | None = node
    while above is not None and above.token_id is not None:
        path.append(above.token_id)
        above = above.parent
    return tuple(reversed(path))
