"""An emulated link: a TCP proxy with delay, jitter, a rate, cuts and freezes. For tests and benches.

In a process it is an async context manager; on its own, `python -m skydraft.transport.link.link --upstream HOST:PORT`.
Connecting costs a round trip, as TCP's handshake does: the first bytes of a connection wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple, Self

import msgspec

from skydraft.core import read_float, read_int
from skydraft.errors import ConfigError, SkydraftError, TransportError
from skydraft.transport.link.pipe import KERNEL_BYTES, Address, BrokenOff, Direction, Pair, Passage
from skydraft.transport.link.shaping import LinkSettings, PathSettings, Shaper

ANY_PORT = Address("127.0.0.1", 0)


class Carried(NamedTuple):
    """What has passed since the link began.

    up_bytes, down_bytes: that came out, of TCP's payload.
    """

    up_bytes: int
    down_bytes: int
    num_connections: int


class Link:
    """A link between whoever connects to `address` and an upstream address.

    Args:
        listen: where to listen; port 0 takes a free one.
    """

    def __init__(self, upstream: Address, settings: LinkSettings | None = None, listen: Address = ANY_PORT) -> None:
        self.settings = settings or LinkSettings()
        self.upstream = upstream
        self.address = listen
        up = Shaper(self.settings.up, 2 * self.settings.seed)
        down = Shaper(self.settings.down, 2 * self.settings.seed + 1)
        self._passage = Passage(Direction(up), Direction(down), self._cut_full)
        self._refused_until = float("-inf")
        self._num_connections = 0
        self._pairs: set[Pair] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        listener = _listener(self.address)
        self.address = Address(*listener.getsockname()[:2])
        self._server = await self._loop.create_server(self._accept, sock=listener)
        self.apply(self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel_timers()
        assert self._server is not None
        self._server.close()
        self._break_off()
        await self._server.wait_closed()

    @property
    def carried(self) -> Carried:
        return Carried(self._passage.up.num_bytes, self._passage.down.num_bytes, self._num_connections)

    def apply(self, settings: LinkSettings) -> None:
        """Change the link while it runs; what is inside comes out as it would have, and the jitter goes on."""
        self._cancel_timers()
        self.settings = settings
        self._passage.up.shaper.settings = settings.up
        self._passage.down.shaper.settings = settings.down
        self._passage.cut_at_bytes = float("inf")
        if settings.cut_after_bytes is not None:
            self._passage.cut_at_bytes = self._passage.num_bytes + settings.cut_after_bytes
        if settings.cut_after_s is not None:
            self._timers.append(self._loop.call_later(settings.cut_after_s, self.cut, settings.refuse_s))
        if settings.freeze_after_s is not None:
            self._timers.append(self._loop.call_later(settings.freeze_after_s, self.freeze, settings.freeze_s))

    def cut(self, refuse_s: float = 0.0) -> None:
        """Break all connections off, and new ones for so long. What is inside is lost."""
        self._refused_until = self._loop.time() + refuse_s
        self._break_off()

    def freeze(self, duration_s: float) -> None:
        """Let nothing pass for so long; then what is due comes out at once."""
        self._passage.frozen_until = max(self._passage.frozen_until, self._loop.time() + duration_s)

    def _cut_full(self) -> None:
        self._passage.cut_at_bytes = float("inf")
        self.cut(self.settings.refuse_s)

    def _accept(self) -> asyncio.Protocol:
        if self._loop.time() < self._refused_until:
            return BrokenOff()
        self._num_connections += 1
        pair = Pair(self._passage, self.upstream, self._pairs.discard)
        self._pairs.add(pair)
        return pair.client

    def _break_off(self) -> None:
        for pair in list(self._pairs):
            pair.break_off()

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _listener(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
        listener.bind(tuple(address))
    except OSError as error:
        listener.close()
        raise TransportError(f"the link cannot listen on {address}: {error.strerror}") from error
    return listener


# On its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a link until SIGINT or SIGTERM; says on standard output where it listens, and at the end what it carried."""
    try:
        options = _parser().parse_args(arguments)
        link = Link(Address.parse(options.upstream), _settings(options), Address.parse(options.listen))
        asyncio.run(_run(link, options.control))
    except SkydraftError as error:
        print(f"link: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m skydraft.transport.link.link", description="An emulated link.")
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT", help="where connections go")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 takes a free one")
    for name, what in (("delay-ms", "one way"), ("jitter-ms", "of the delay"), ("rate-mbps", "megabits per second")):
        parser.add_argument(f"--{name}", type=read_float, help=f"{what}; up-{name} and down-{name} set one direction")
        for side in ("up", "down"):
            parser.add_argument(f"--{side}-{name}", type=read_float, help=argparse.SUPPRESS)
    parser.add_argument("--queue-bytes", type=read_int, help="of a connection and a direction that wait in the link")
    parser.add_argument("--burst-bytes", type=read_int, help="that pass at once after a pause")
    parser.add_argument("--seed", type=read_int, default=0, help="of the jitter")
    parser.add_argument("--cut-after-s", type=read_float, help="break all connections off at this time")
    parser.add_argument("--cut-after-bytes", type=read_int, help="or when so many bytes have passed")
    parser.add_argument("--refuse-s", type=read_float, default=0.0, help="break new ones off for so long after a cut")
    parser.add_argument("--freeze-after-s", type=read_float, help="let nothing pass from this time on")
    parser.add_argument("--freeze-s", type=read_float, default=0.0, help="for so long")
    parser.add_argument("--control", action="store_true", help="apply each line of standard input: settings as JSON")
    return parser


def _settings(options: argparse.Namespace) -> LinkSettings:
    given = {name: value for name, value in vars(options).items() if name in LinkSettings.__struct_fields__}
    return LinkSettings(**given, up=_path_settings(options, "up"), down=_path_settings(options, "down"))


def _path_settings(options: argparse.Namespace, side: str) -> PathSettings:
    given = {}
    for name in PathSettings.__struct_fields__:
        for option in (name, f"{side}_{name}"):  # what is said of one direction counts for it
            if (value := getattr(options, option, None)) is not None:
                given[name] = value
    return PathSettings(**given)


async def _run(link: Link, is_controlled: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with link:
        control = loop.create_task(_obey(link, await _standard_input())) if is_controlled else None
        print(f"link listens on {link.address}", flush=True)
        await stopped.wait()
        if control is not None:
            control.cancel()
    carried = link.carried
    print(f"link carried {carried.up_bytes} bytes up, {carried.down_bytes} down, {carried.num_connections} connections")


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except ValueError as error:
        raise ConfigError("--control needs a pipe or a terminal as standard input") from error
    return reader


async def _obey(link: Link, control: asyncio.StreamReader) -> None:
    while line := await control.readline():
        try:
            link.apply(msgspec.json.decode(line, type=LinkSettings))
        except (msgspec.DecodeError, ConfigError) as error:
            print(f"link: these settings are none and change nothing: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
