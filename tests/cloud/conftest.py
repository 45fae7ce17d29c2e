from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from skydraft.cloud.serve import bind, make_server
from skydraft.config import CloudSettings
from tests.linked import table

MODEL = "table:vocab=8,seed=5,order=2"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cloud on loopback, in a thread of this process."""
    settings = CloudSettings(port=0, max_frame_bytes=100_000)
    listener = bind(settings)
    announced: queue.SimpleQueue[str] = queue.SimpleQueue()
    server = make_server(table(MODEL), settings, announced.put)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield announced.get(timeout=20)
    server.should_exit = True
    thread.join(20)
