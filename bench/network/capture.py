"""Counts the bytes that really cross: the IP packets of one TCP port on the loopback device, with all headers."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from typing import NamedTuple

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
HEAD_BYTES = 64  # of a packet; its length is in them


class Crossed(NamedTuple):
    """Bytes of IP packets towards a port, and from it."""

    up: int = 0
    down: int = 0


NOTHING = Crossed()


class Capture:
    """Counts until it is closed.

    Args:
        port: where the server of the connections listens.
    Raises:
        OSError: the system has no packet sockets, or does not let this user have one.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._counted = NOTHING
        if not hasattr(socket, "AF_PACKET"):
            raise OSError("this system has no packet sockets")
        # A datagram socket: packets begin with the header of IP. One of a single protocol sees what comes in, and not
        # what goes out: of the two times that a packet passes the loopback device, one.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        _attach_filter(self._socket, port)
        self._socket.bind(("lo", ETH_P_IP))
        self._socket.settimeout(0.2)
        self._is_open = True
        self._thread = threading.Thread(target=self._count, daemon=True, name="bench-capture")
        self._thread.start()

    @property
    def crossed(self) -> Crossed:
        """So far."""
        return self._counted

    def close(self) -> None:
        self._is_open = False
        self._thread.join()
        self._socket.close()

    def _count(self) -> None:
        while self._is_open:
            try:
                head = self._socket.recv(HEAD_BYTES)
            except TimeoutError:
                continue
            self._counted = _add(self._counted, head, self._port)


def _add(counted: Crossed, head: bytes, port: int) -> Crossed:
    num_bytes = int.from_bytes(head[2:4])
    tcp = 4 * (head[0] & 15)
    is_up = int.from_bytes(head[tcp + 2 : tcp + 4]) == port
    return Crossed(counted.up + num_bytes, counted.down) if is_up else Crossed(counted.up, counted.down + num_bytes)


def _attach_filter(sock: socket.socket, port: int) -> None:
    """Let the kernel drop what is not TCP of this port (classic BPF; offsets from the IP header)."""
    program = [
        (0x30, 0, 0, 9),  # A = protocol
        (0x15, 0, 6, socket.IPPROTO_TCP),  # else drop
        (0xB1, 0, 0, 0),  # X = length of the IP header
        (0x48, 0, 0, 0),  # A = source port
        (0x15, 2, 0, port),  # keep
        (0x48, 0, 0, 2),  # A = destination port
        (0x15, 0, 1, port),  # else drop
        (0x06, 0, 0, 0xFFFF),  # keep
        (0x06, 0, 0, 0),  # drop
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = struct.pack("HL", len(program), ctypes.addressof(code))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
