"""A gateway in a thread of this process, with real sockets, a table for a draft and a cloud beside it."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from skydraft.client import AsyncClient
from skydraft.cloud.access.keys import KeyRing
from skydraft.cloud.serve import bind
from skydraft.config import CloudSettings, DeviceSettings, GatewaySettings
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.table_spec import load_table
from skydraft.engines.load import load_tokenizer
from skydraft.gateway.distances import distances_of
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.serve import GatewayServer
from tests.cloud.running import Running, running
from tests.linked import cloud_only
from tests.waiting import PATIENCE_S

TARGET = "table:vocab=64,seed=3,order=2,end=5"
DRAFT = "table:vocab=64,seed=3,order=2,end=5,noise=0.7"
NUM_SLOTS = 8


class Served(NamedTuple):
    """A gateway. url: its base URL. cloud: that it works with."""

    url: str
    gateway: Gateway
    server: GatewayServer
    cloud: Running

    def connected(self) -> socket.socket:
        """A connection of an app that speaks HTTP by hand."""
        where = urlsplit(self.url)
        return socket.create_connection((where.hostname, where.port), timeout=PATIENCE_S)

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=PATIENCE_S)

    def stream(self, path: str, body: object) -> list[str]:
        """The data of all events."""
        with httpx.stream("POST", f"{self.url}{path}", json=body, timeout=PATIENCE_S) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            return [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]

    def chunks(self, path: str, body: object) -> list[dict[str, Any]]:
        """Of a completion: all events but the last."""
        *data, last = self.stream(path, body)
        assert last == "[DONE]"
        return [json.loads(each) for each in data]


def request_of(path: str, body: object, **headers: str) -> bytes:
    """A POST as it is sent."""
    data = json.dumps(body).encode()
    lines = [f"POST /v1{path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


@contextmanager
def served(settings: GatewaySettings | None = None, target: str = TARGET, **options: Any) -> Iterator[Served]:
    """Serve. target: the cloud's model. options: of the device."""
    settings = settings or GatewaySettings(port=0)
    ready: queue.SimpleQueue[Served | BaseException] = queue.SimpleQueue()
    load = partial(load_table, target, EngineLimits(NUM_SLOTS, 4096))
    with running(CloudSettings(model=target, port=0), load) as cloud_running:
        device = DeviceSettings(**{"draft": DRAFT, "cloud": cloud_running.address, **options})

        async def serve() -> None:
            with bind(settings) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)  # so that it is felt who does not read
                async with AsyncClient(device) as client, distances_of(settings, device.cloud) as distances:
                    ring = KeyRing(Path(settings.keys)) if settings.keys else None
                    gateway = Gateway(settings, client, "the-table", ring, distances)
                    server = GatewayServer(gateway, lambda url: ready.put(Served(url, gateway, server, cloud_running)))
                    await server.serve(sockets=[sock])

        def work() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                ready.put(error)

        thread = threading.Thread(target=work)
        thread.start()
        found = ready.get(timeout=PATIENCE_S)
        try:
            if isinstance(found, BaseException):
                raise found
            yield found
        finally:
            if isinstance(found, Served):
                found.server.should_exit = True
            thread.join(PATIENCE_S)
        assert not thread.is_alive()


def prompt_of(text: str) -> Prompt:
    return Prompt((TokenSegment(load_tokenizer(TARGET, "target").encode(text, add_special=True)),))


def truth(text: str, **sampling: Any) -> str:
    """What the cloud alone writes after a text."""
    params = SamplingParams(**{"max_tokens": 40, "end_ids": (5,), **sampling})
    token_ids = cloud_only(load_table(TARGET, EngineLimits(1, 4096)), params, prompt_of(text))
    return load_tokenizer(TARGET, "target").decode(token_ids)
