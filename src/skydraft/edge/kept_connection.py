"""The connection of a conversation: the next text goes on over the one of the last.

Connecting takes two round trips before the first message leaves, and with TLS three; then the texts of a conversation
have them behind them.

    state      event                                             next
    -----      -----                                             ----
    without    a text has ended and gives its connection         kept
    kept       a text begins, with the same cloud: takes it      without
    kept       a text begins with another cloud, or it was lost  without, and the text connects
"""

from __future__ import annotations

from skydraft.edge.cloud_address import CloudAddress
from skydraft.transport.websocket import Connection


class KeptConnection:
    """Of texts that may follow each other; each is a session with a number of its own."""

    def __init__(self) -> None:
        self._kept: tuple[CloudAddress, Connection] | None = None
        self._num_texts = 0

    def next_number(self) -> int:
        """For the session of a text."""
        self._num_texts += 1
        return self._num_texts - 1

    def take(self, address: CloudAddress) -> Connection | None:
        """The connection, where there is one to this cloud that was not lost; it is then the caller's."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        if kept[0] == address and kept[1].is_open:
            return kept[1]
        kept[1].abort()
        return None

    def give(self, address: CloudAddress, connection: Connection) -> None:
        """Keep a connection whose session has ended."""
        self.close()
        self._kept = address, connection

    def close(self) -> None:
        """Let go of it."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].abort()
