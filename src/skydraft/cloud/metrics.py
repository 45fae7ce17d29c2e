"""A cloud's metrics for Prometheus. Operators rely on their names: deploy/grafana uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.samples import Sample

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_POWERS_OF_2 = tuple(float(2**exponent) for exponent in range(13))


class Metrics:
    """The counts of one cloud, in a registry of their own. Any thread may call it; a call takes microseconds."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"skydraft_{name}", help_text, labels, registry=registry)

        def gauge(name: str, help_text: str) -> Gauge:
            return Gauge(f"skydraft_{name}", help_text, registry=registry)

        def histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"skydraft_{name}", help_text, registry=registry, buckets=buckets)

        self._connections = gauge("connections", "WebSocket connections now")
        self._sessions = gauge("sessions", "Sessions now, those whose devices are away included")
        self._sessions_opened = counter("sessions_opened", "Sessions opened")
        self._pass_sessions = histogram("pass_sessions", "Sessions in one forward pass", _POWERS_OF_2)
        self._pass_positions = histogram("pass_positions", "Positions computed in one forward pass", _POWERS_OF_2)
        self._pass_tokens = histogram("pass_tokens", "Tokens of text that one forward pass gave", (0.0, *_POWERS_OF_2))
        self._forward_s = histogram("forward_seconds", "Time of one forward pass", _SECONDS)
        self._queue_s = histogram("queue_seconds", "Time that work waited for its forward pass", _SECONDS)
        self._offered = counter("tokens_offered", "Draft tokens that were judged")
        self._accepted = counter("tokens_accepted", "Draft tokens that were accepted")
        self._evictions = counter("evictions", "Idle sessions that lost their KV cache to others")
        self._restorations = counter("restorations", "Evicted sessions that were prefilled again")
        self._prompt_read = counter("prompt_tokens_read", "Tokens of prompts that were read")
        self._prompt_reused = counter("prompt_tokens_reused", "Tokens of prompts that earlier prompts had read")
        self._prefix_bytes = gauge("prefix_cache_bytes", "Memory of what was read of prompts")
        self._faults = counter("faults", "What was refused, by the fault's code", "code")
        # How much work came to its pass, and how long it waited in all. Replaced as a whole: threads see no half of it.
        self._waits: tuple[int, float] = (0, 0.0)
        self._waits_told = self._waits

    @contextmanager
    def connection(self, key_name: str) -> Iterator[None]:
        """A device is connected for as long as the context lasts."""
        self._connections.inc()
        try:
            yield
        finally:
            self._connections.dec()

    def opened(self) -> None:
        """A session has begun."""
        self._sessions.inc()
        self._sessions_opened.inc()

    def closed(self) -> None:
        """A session is over or forgotten."""
        self._sessions.dec()

    def passed(self, num_sessions: int, num_positions: int, num_emitted: int, forward_s: float) -> None:
        """One forward pass was run.

        Args:
            num_sessions: that took part.
            num_positions: tokens computed, prefilled ones included.
            num_emitted: tokens that the verified logs of all sessions grew by.
            forward_s: how long it took.
        """
        self._pass_sessions.observe(num_sessions)
        self._pass_positions.observe(num_positions)
        self._pass_tokens.observe(num_emitted)
        self._forward_s.observe(forward_s)

    def waited(self, queue_s: float) -> None:
        """Work came to its forward pass after this time."""
        self._queue_s.observe(queue_s)
        num, total_s = self._waits
        self._waits = num + 1, total_s + queue_s

    def recent_queue_s(self) -> float:
        """Mean of `waited` since this was last asked, in seconds; 0 where nothing waited."""
        (num, total_s), (num_told, told_s) = self._waits, self._waits_told
        self._waits_told = num, total_s
        return (total_s - told_s) / (num - num_told) if num > num_told else 0.0

    def judged(self, num_offered: int, num_accepted: int) -> None:
        """A draft was judged. num_offered: tokens that asked for judgement (of a tree: its nodes)."""
        self._offered.inc(num_offered)
        self._accepted.inc(num_accepted)

    def moved(self, num_evicted: int, num_restored: int) -> None:
        """Some sessions lost their KV cache to others, and some got theirs back."""
        self._evictions.inc(num_evicted)
        self._restorations.inc(num_restored)

    def read_prompts(self, num_read: int, num_reused: int) -> None:
        """Tokens of prompts were read, others need not be."""
        self._prompt_read.inc(num_read)
        self._prompt_reused.inc(num_reused)

    def watch_prefixes(self, num_bytes: Callable[[], int]) -> None:
        """num_bytes: says what the prefix cache takes when it is called, from any thread."""
        self._prefix_bytes.set_function(num_bytes)

    def refused(self, code: str) -> None:
        """A session or connection was refused. code: of protocol.messages.FaultCode."""
        self._faults.labels(code).inc()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)

    def samples(self) -> Iterator[Sample]:
        """What `exposition` says of this cloud, one by one."""
        for metric in self._registry.collect():
            for sample in metric.samples:
                if sample.name.startswith("skydraft_") and not sample.name.endswith("_created"):
                    yield sample

    def shutdown(self) -> None:
        """Nothing more will be counted."""
