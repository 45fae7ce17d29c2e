from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bench.network.capture import Capture, Crossed
from tests.waiting import wait_until

SYN, BARE = 60, 52  # IP and TCP headers with their usual options


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def capture(listener: socket.socket) -> Iterator[Capture]:
    try:
        made = Capture(listener.getsockname()[1])
    except OSError as error:
        pytest.skip(f"packet sockets are not to be had here: {error}")
    yield made
    made.close()


def _crossed(capture: Capture, expected: Crossed) -> Crossed:
    """What has crossed, once it is as much as is expected."""
    wait_until(lambda: capture.crossed.up >= expected.up and capture.crossed.down >= expected.down)
    return capture.crossed


def test_every_packet_counts_once_with_its_headers(capture: Capture, listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
        begun = Crossed(SYN + BARE, SYN)
        assert _crossed(capture, begun) == begun
        client.sendall(b"x" * 100)
        server.recv(100)
        sent = Crossed(begun.up + BARE + 100, begun.down + BARE)
        assert _crossed(capture, sent) == sent


def test_other_ports_do_not_count(capture: Capture, listener: socket.socket) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(other.getsockname()),
        other.accept()[0],
    ):
        pass
    with socket.create_connection(listener.getsockname()), listener.accept()[0]:  # packets are seen in their order
        begun = Crossed(SYN + BARE, SYN)
        assert _crossed(capture, begun) == begun
