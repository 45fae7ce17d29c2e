"""Apps that flood a gateway, each in one way, beside an honest one: `bench.floods` for what apps can do.

Each runs in a process of its own against `skydraft serve` in another, for 10 s. The honest app has a key of its own and
asks for one text after the other, each over a new connection.

Claims:
    slowdown_NAME: median time of the honest app's texts under the flood NAME, over that without.
    honest_slowdown_max: the largest of these. Aim: at most 2.
    honest_texts_failed: that came to no end, or to another than the cloud's own. Must be 0.
    flooded_memory_mb: the most that a gateway had taken at the end of a flood.
    tracebacks: in the logs of all gateways. Must be 0.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from bench import floods
from bench.claims import RESULTS, Claim, parse_arguments, show, write_results
from bench.flooded import MAX_S, SHARE_QUIET, SHARE_START, Flooded, claims, is_good
from bench.floods import BYTES_PER_S, NUM_PARALLEL, NUM_SILENT, PIECE_BYTES, Target
from bench.honest import PATIENCE_S
from bench.observed import observed_gateway
from bench.replay import write_alone
from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.errors import SkydraftError
from skydraft.gateway.requests import MAX_VALUES

MODEL = floods.MODEL
FLOOD_S, QUICK_S = 10.0, 1.0
NUM_TOKENS = 40
NUM_HALF, HALF_BYTES = 40, 2**23
LONG_PROMPT = "ba " * 100_000
SLOW_S = 0.5  # from byte to byte
STRANGER = KeyGrant(max_sessions=32)


def _request(body: bytes, key: str | None, path: str = "/v1/completions", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body) if length is None else length}"]
    lines += [] if key is None else [f"Authorization: Bearer {key}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _asking(**more: object) -> bytes:
    return json.dumps({"prompt": "ba", "max_tokens": 4000, "stream": True, **more}).encode()


async def _parallel(make: Callable[[], Awaitable[None]], count: int = NUM_PARALLEL) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(make())  # type: ignore[arg-type]  # all are coroutines


# Without a key


async def _healths(target: Target) -> None:
    await floods.drip(target, b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


async def _newcomers(target: Target) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    await _parallel(lambda: floods.come_and_go(target, request, 0.0))


async def _wrong_keys(target: Target) -> None:
    request = _request(_asking(), f"{target.key}x")
    await _parallel(lambda: floods.come_and_go(target, request, 0.0))


async def _keyless_chunks(target: Target) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    await floods.drip(target, head, b"1\r\nx\r\n")


async def _heads(target: Target) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a:\r\n" * 4000 + b"\r\n"
    await floods.come_and_go(target, head, PIECE_BYTES / BYTES_PER_S)


async def _slow_heads(target: Target) -> None:
    await _parallel(lambda: _slowly(target, b"", b"POST /v1/completions HTTP/1.1\r\nHost: " + b"x" * 2**14), NUM_SILENT)


# With a key


async def _slow_bodies(target: Target) -> None:
    await _parallel(lambda: _slowly(target, _request(b"{", target.key, length=2**20), b" " * 2**14), NUM_SILENT)


async def _slowly(target: Target, first: bytes, rest: bytes) -> None:
    """Send the rest byte by byte."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(floods.ADDRESS, 0))
            writer.write(first)
            reading = asyncio.create_task(floods.read_all(reader))
            try:
                for byte in rest:
                    if reading.done():
                        break
                    writer.write(bytes([byte]))
                    await asyncio.sleep(SLOW_S)
            finally:
                reading.cancel()
                writer.transport.abort()
        await asyncio.sleep(SLOW_S)


async def _half_bodies(target: Target) -> None:
    """Bodies of which the last byte never comes: 320 MiB together."""
    request = _request(b" " * (HALF_BYTES - 1), target.key, length=HALF_BYTES)
    await _parallel(lambda: _send_and_read(target, request), NUM_HALF)


async def _send_and_read(target: Target, request: bytes) -> None:
    while True:
        await _send(target, request, floods.read_all)
        await asyncio.sleep(1.0)


async def _send(target: Target, request: bytes, then: Callable[[asyncio.StreamReader], Awaitable[object]]) -> None:
    with suppress(OSError, EOFError):
        reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(floods.ADDRESS, 0))
        try:
            writer.write(request)
            await writer.drain()
            await then(reader)
        finally:
            writer.transport.abort()


async def _bodies(target: Target, body: bytes, path: str = "/v1/completions") -> None:
    """A request that is refused, again and again over each of many connections."""
    await _parallel(lambda: floods.drip(target, b"", _request(body, target.key, path)))


async def _small(target: Target) -> None:
    await _bodies(target, b"{}")


async def _deep(target: Target) -> None:
    await _bodies(target, b'{"prompt":' + b"[" * MAX_VALUES)


async def _values(target: Target) -> None:
    """As much to unpack as is taken."""
    await _bodies(target, b'{"prompt": 7, "x": [' + b"[]," * (MAX_VALUES // 2 - 8) + b"1]}")


async def _no_unicode(target: Target) -> None:
    await _bodies(target, b'{"prompt": "' + b"\xff" * 2**16 + b'"}')


async def _prompts(target: Target) -> None:
    """As long as are made into tokens; no model here has room for them."""
    await _bodies(target, json.dumps({"prompt": LONG_PROMPT}).encode())


async def _cancels(target: Target) -> None:
    """Begin a text and hang up."""
    request = _request(_asking(), target.key)

    async def begin() -> None:
        while True:
            await _send(target, request, lambda reader: reader.readuntil(b"data"))

    await _parallel(begin)


async def _deaf(target: Target) -> None:
    """Begin texts and read nothing."""
    request = _request(_asking(n=8, temperature=1.0, seed=1), target.key)

    async def begin() -> None:
        while True:
            await _send(target, request, lambda _: asyncio.sleep(PATIENCE_S))

    await _parallel(begin)


async def _schemas(target: Target) -> None:
    """Grammars, each another one, that take long to compile."""
    numbers = itertools.count()

    async def begin() -> None:
        while True:
            pattern = f"^(a|b{next(numbers)}){{1,400}}(c?){{400}}$"
            schema = {
                "type": "object",
                "properties": {f"p{i}": {"type": "string", "pattern": pattern} for i in range(40)},
            }
            body = {"response_format": {"type": "json_schema", "schema": schema}, "max_tokens": 4}
            messages = [{"role": "user", "content": "ba"}]
            request = _request(json.dumps({**body, "messages": messages}).encode(), target.key, "/v1/chat/completions")
            await _send(target, request, lambda reader: reader.readuntil(b"}"))

    await _parallel(begin)


FLOODS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "silent": floods.silent,
    "healths": _healths,
    "newcomers": _newcomers,
    "wrong_keys": _wrong_keys,
    "keyless_chunks": _keyless_chunks,
    "heads": _heads,
    "slow_heads": _slow_heads,
    "slow_bodies": _slow_bodies,
    "half_bodies": _half_bodies,
    "small": _small,
    "deep": _deep,
    "values": _values,
    "no_unicode": _no_unicode,
    "prompts": _prompts,
    "cancels": _cancels,
    "deaf": _deaf,
    "schemas": _schemas,
}


def run_flood(name: str, target: Target, seconds: float) -> None:
    """Flood for a while."""
    asyncio.run(floods.for_a_while(FLOODS[name](target), seconds))


class _App:
    """The honest one."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._headers = f"{url}/completions", {"Authorization": f"Bearer {key}"}
        self._engine, self._tokenizer = load_engine(MODEL, "target"), load_tokenizer(MODEL, "target")
        self._seeds = itertools.count()

    def write(self, seconds: float, times_s: list[float], errors: list[str]) -> None:
        """Texts for a while, two at least."""
        until_s = time.monotonic() + seconds
        while True:
            times_s += [self._time_text(errors) for _ in range(2)]
            if time.monotonic() > until_s:
                break

    def _time_text(self, errors: list[str]) -> float:
        sampling = {"temperature": 1.0, "seed": next(self._seeds), "max_tokens": NUM_TOKENS}
        began_s = time.monotonic()
        try:
            body = {"prompt": "ba de", **sampling}
            answer = httpx.post(self._url, json=body, headers=self._headers, timeout=PATIENCE_S)
            text = answer.json()["choices"][0]["text"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            errors.append(repr(error))
            return PATIENCE_S
        took_s = time.monotonic() - began_s
        if text != self._truth(sampling):
            errors.append(f"the text with seed {sampling['seed']} is not the cloud's own")
        return took_s

    def _truth(self, sampling: dict[str, float]) -> str:
        prompt = Prompt((TokenSegment(self._tokenizer.encode("ba de", add_special=True)),))
        return self._tokenizer.decode(write_alone(self._engine, prompt, SamplingParams(**sampling)))  # type: ignore[arg-type]


def flood(name: str, flooder: str, honest: str, flags: Sequence[str], seconds: float) -> tuple[Flooded, int]:
    """Send one flood to a gateway of its own; what it did, and the tracebacks in the gateway's log.

    Args:
        flooder, honest: keys.
        flags: that make a gateway know them.
        seconds: of the flood.
    Raises:
        SkydraftError: the gateway does not start.
    """
    quiet_s, flooded_s, errors = list[float](), list[float](), list[str]()
    with observed_gateway(MODEL, *flags) as gateway:
        app, parts = _App(gateway.url, honest), urlsplit(gateway.url)
        app.write(SHARE_QUIET * seconds, quiet_s, errors)
        target = Target(str(parts.hostname), int(parts.port or 0), flooder)
        # In a process of its own, so that the two do not take each other's time.
        attack = get_context("spawn").Process(target=run_flood, args=(name, target, MAX_S), daemon=True)
        attack.start()
        try:
            time.sleep(SHARE_START * seconds)
            app.write(seconds, flooded_s, errors)
            rss_bytes = gateway.rss_bytes
        finally:
            attack.kill()
            attack.join()
        time.sleep(SHARE_START * seconds)
        app.write(SHARE_QUIET * seconds, quiet_s, errors)
        return Flooded(name, quiet_s, flooded_s, errors, rss_bytes), gateway.num_tracebacks


def main() -> int:
    """Flood; 1 where the honest app was held up for too long, or lost a text."""
    options = parse_arguments(__doc__.splitlines()[0])
    seconds = QUICK_S if options.quick else FLOOD_S
    results, num_tracebacks = list[Flooded](), 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            keys = Path(folder, "keys.toml")
            flooder, honest = add_key(keys, "stranger", STRANGER), add_key(keys, "honest", KeyGrant())
            for name in FLOODS:
                flooded, num = flood(name, flooder, honest, ("--keys", str(keys)), seconds)
                results.append(flooded)
                num_tracebacks += num
    except SkydraftError as error:
        print(f"gateway_floods: {error}", file=sys.stderr)
        return 1
    made = [*claims(results), Claim("tracebacks", num_tracebacks, "tracebacks", len(results))]
    show(made, options.json)
    if not options.quick:
        content = {"claims": [claim._asdict() for claim in made], "floods": [each._asdict() for each in results]}
        write_results(RESULTS / "gateway_floods.json", "bench.gateway_floods", content)
    return int(not is_good(results) or num_tracebacks > 0)


if __name__ == "__main__":
    sys.exit(main())
