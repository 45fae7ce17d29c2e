from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from skydraft.cloud import tracing
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.tracing import PASSES_PER_SPAN, make_metrics
from tests.waiting import PATIENCE_S

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class _Collector(HTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            names = {item.value.string_value for item in resource.resource.attributes if item.key == "service.name"}
            self.server.services |= names
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[_Collector]:
    server = _Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_collector_is_told_of_connections_and_of_some_passes(
    collector: _Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "EXPORT_TIMEOUT_S", PATIENCE_S)
    metrics = make_metrics(collector.url + "/")
    with metrics.connection("phone"):
        for _ in range(PASSES_PER_SPAN + 1):
            metrics.passed(num_sessions=2, num_positions=9, num_emitted=4, forward_s=0.25)
    metrics.shutdown()
    spans = sorted(collector.spans, key=lambda span: span.name)
    assert [span.name for span in spans] == ["connection", "forward_pass", "forward_pass"]
    assert {item.key: item.value.string_value for item in spans[0].attributes} == {"skydraft.key": "phone"}
    facts = {item.key: item.value.int_value for item in spans[1].attributes}
    assert facts == {"skydraft.sessions": 2, "skydraft.positions": 9, "skydraft.tokens": 4}
    assert (spans[1].end_time_unix_nano - spans[1].start_time_unix_nano) / 1e9 == pytest.approx(0.25, abs=1e-6)
    assert collector.services == {"skydraft-cloud"}
    assert b"skydraft_pass_sessions_count 101.0" in metrics.exposition()


def test_a_collector_that_is_not_there_is_no_error() -> None:
    metrics = make_metrics("http://127.0.0.1:9")
    with metrics.connection("phone"):
        metrics.passed(1, 1, 1, 0.1)
    metrics.shutdown()


def test_without_an_endpoint_nothing_of_opentelemetrys_sdk_is_imported() -> None:
    assert type(make_metrics(None)) is Metrics
    code = "import sys, skydraft.cloud.tracing; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == "[]"
