"""OpenTelemetry spans beside the metrics, where a collector is named: of each connection, and of some forward passes.

Needs the extra `otel`, and imports nothing of it otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from skydraft import __version__
from skydraft.cloud.metrics import Metrics

PASSES_PER_SPAN = 100  # a span costs some 30 us, and there may be hundreds of passes a second
EXPORT_TIMEOUT_S = 5.0
TRACES_PATH = "/v1/traces"


def make_metrics(otel_endpoint: str | None) -> Metrics:
    """Metrics, which also send spans to a collector where one is named.

    Args:
        otel_endpoint: as CloudSettings.otel_endpoint.
    """
    return Metrics() if otel_endpoint is None else TracedMetrics(otel_endpoint)


class TracedMetrics(Metrics):
    """Metrics that are sent as spans too.

    Args:
        endpoint: base URL of the collector; where it does not answer, spans are lost and nothing else.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH, timeout=EXPORT_TIMEOUT_S)
        resource = Resource.create({"service.name": "skydraft-cloud", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("skydraft.cloud", __version__)
        self._num_passes = 0

    @contextmanager
    def connection(self, key_name: str) -> Iterator[None]:
        with super().connection(key_name):
            span = self._tracer.start_span("connection", attributes={"skydraft.key": key_name})
            try:
                yield
            finally:
                span.end()

    def passed(self, num_sessions: int, num_positions: int, num_emitted: int, forward_s: float) -> None:
        super().passed(num_sessions, num_positions, num_emitted, forward_s)
        if self._num_passes % PASSES_PER_SPAN == 0:
            end_ns = time.time_ns()
            attributes = {
                "skydraft.sessions": num_sessions,
                "skydraft.positions": num_positions,
                "skydraft.tokens": num_emitted,
            }
            start_ns = end_ns - int(forward_s * 1e9)
            self._tracer.start_span("forward_pass", attributes=attributes, start_time=start_ns).end(end_ns)
        self._num_passes += 1

    def shutdown(self) -> None:
        """Send what is left; takes EXPORT_TIMEOUT_S at most."""
        self._provider.shutdown()
