"""A gateway's metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from skydraft.core import Origin, Token
from skydraft.edge.report import Report

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """The counts of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Gauge("skydraft_gateway_requests", "Requests for texts now", registry=registry)
        self._texts = Counter("skydraft_gateway_texts", "Texts written", registry=registry)
        self._tokens = Counter(
            "skydraft_gateway_tokens", "Tokens written, by where they came from", ["origin"], registry=registry
        )
        self._drafted = Counter("skydraft_gateway_tokens_drafted", "Draft tokens that were judged", registry=registry)
        for origin in Origin:
            self._tokens.labels(origin.value)
        self._problems = Counter(
            "skydraft_gateway_problems", "Answers that say what is wrong, by status", ["status"], registry=registry
        )
        self._first_token_s = Histogram(
            "skydraft_gateway_first_token_seconds", "Time to the first token", buckets=_SECONDS, registry=registry
        )

    def begun(self) -> None:
        self._requests.inc()

    def ended(self) -> None:
        self._requests.dec()

    def wrote(self, tokens: Sequence[Token]) -> None:
        """A text has grown."""
        for token in tokens:
            self._tokens.labels(token.origin.value).inc()

    def text_ended(self, report: Report) -> None:
        """It was not broken off."""
        self._texts.inc()
        self._drafted.inc(report.num_drafted)
        self._first_token_s.observe(report.first_token_s)

    def refused(self, status: int) -> None:
        """An answer said what is wrong."""
        self._problems.labels(str(status)).inc()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
