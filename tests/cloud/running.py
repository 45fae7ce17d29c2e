"""Clouds in threads of this process, and raw devices that speak with them."""

from __future__ import annotations

import http.client
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.sync.client import ClientConnection

from skydraft.cloud.metrics import Metrics
from skydraft.cloud.serve import Server, bind, make_server
from skydraft.config import CloudSettings
from skydraft.core import Exact, Prompt, SamplingParams
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.base import Engine
from skydraft.protocol import codec, messages
from tests.linked import PROMPT, table
from tests.waiting import PATIENCE_S, wait_until

MODEL = "table:vocab=8,seed=5,order=2"
SAMPLING = SamplingParams(temperature=0.7, seed=3, max_tokens=20)


class Running(NamedTuple):
    """A cloud. address: as `ws://HOST:PORT`, known before it is ready."""

    address: str
    server: Server
    announced: queue.SimpleQueue[str]


@contextmanager
def running(
    settings: CloudSettings, load: Callable[[], Engine] = lambda: table(MODEL), is_ready: bool = True
) -> Iterator[Running]:
    """Serve; by default until ready before the context begins."""
    announced: queue.SimpleQueue[str] = queue.SimpleQueue()
    server = make_server(load, settings, announced.put)
    listener = bind(settings)
    address = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Running(announced.get(timeout=PATIENCE_S) if is_ready else address, server, announced)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def the_websocket(cloud: Running) -> WebSocketsSansIOProtocol:
    """The cloud's end of its only connection."""
    (protocol,) = cloud.server.server_state.connections
    assert isinstance(protocol, WebSocketsSansIOProtocol)
    return protocol


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


def get(address: str, path: str, **headers: str) -> Answer:
    """Ask with HTTP; underscores in the names of headers are hyphens."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


def samples(exposition: str) -> dict[str, float]:
    """Metrics by name, and by name and label where there is one."""
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            label = sample.labels.get("code")
            found[f"{sample.name}:{label}" if label else sample.name] = sample.value
    return found


def counted(metrics: Metrics) -> dict[str, float]:
    return samples(metrics.exposition().decode())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def new_session(number: int = 0, prompt: Prompt = PROMPT, sampling: SamplingParams = SAMPLING) -> EdgeSession:
    return EdgeSession(table(MODEL).vocabulary, prompt, sampling, Exact(), number)


def tell(socket: ClientConnection, message: messages.EdgeMessage) -> None:
    socket.send(codec.encode(message))


def tell_due(socket: ClientConnection, session: EdgeSession) -> None:
    """What the session lists."""
    for message in session.to_send():
        tell(socket, message)


def hear(socket: ClientConnection) -> messages.CloudMessage:
    return codec.decode_cloud_message(socket.recv(timeout=PATIENCE_S, decode=False))


def open_session(socket: ClientConnection, session: EdgeSession) -> None:
    """Open it and take in what the cloud answers."""
    tell(socket, session.open())
    session.receive(hear(socket))


def hear_fault(socket: ClientConnection) -> messages.Fault:
    """The next fault; what comes before it is not looked at."""
    while not isinstance(message := hear(socket), messages.Fault):
        pass
    return message
