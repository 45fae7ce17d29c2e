"""What a device notices of a flood beside it."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import statistics
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

import trustme

from bench import floods
from bench.claims import Claim
from bench.honest import PATIENCE_S, HonestText
from bench.observed import observed_cloud
from bench.replay import write_alone
from skydraft.core import Exact, Prompt, SamplingParams, TokenSegment
from skydraft.decoding.edge_session import EdgeSession
from skydraft.engines.load import load_engine
from skydraft.errors import SkydraftError
from skydraft.transport.websocket import connect

SHARE_QUIET, SHARE_START = 0.3, 0.2  # of a flood's time: before it and after it, and until it counts
MAX_S = 60.0  # of a flood, whatever happens to who started it
MAX_SLOWDOWN = 2.0


class Flooded(NamedTuple):
    """What a flood did to a device beside it.

    quiet_s: of each of its texts before and after, from connecting to the end; flooded_s: of those meanwhile; a text
        that failed counts as PATIENCE_S.
    errors: of those that failed, and of those that were not the cloud's own.
    rss_bytes: memory that the cloud had in the end.
    """

    name: str
    quiet_s: list[float]
    flooded_s: list[float]
    errors: list[str]
    rss_bytes: int

    @property
    def slowdown(self) -> float:
        """Median of the texts under the flood, over that of the others."""
        return statistics.median(self.flooded_s) / statistics.median(self.quiet_s)


def measure(folder: Path, flooder: str, honest: str, flags: Sequence[str], seconds: float) -> list[Flooded]:
    """Send every flood to a cloud of its own, and those that TLS changes to one with TLS too.

    Args:
        folder: for a certificate.
        flooder, honest: keys.
        flags: that make a cloud know them.
        seconds: of each flood.
    Raises:
        SkydraftError: a cloud does not start.
    """
    certificate = _Certificate(folder)
    plain = [_flood(name, None, flooder, honest, flags, seconds) for name in floods.FLOODS]
    return plain + [_flood(name, certificate, flooder, honest, flags, seconds) for name in floods.TLS_FLOODS]


def claims(results: Sequence[Flooded]) -> list[Claim]:
    """As `bench.fuzz` has them."""
    num_texts = sum(len(flooded.flooded_s) for flooded in results)
    num_failed = sum(len(flooded.errors) for flooded in results)
    return [
        *(Claim(f"slowdown_{each.name}", each.slowdown, "x", len(each.flooded_s)) for each in results),
        Claim("honest_slowdown_max", max(each.slowdown for each in results), "x", num_texts),
        Claim("honest_texts_failed", num_failed, "texts", num_texts),
        Claim("flooded_memory_mb", max(each.rss_bytes for each in results) / 1e6, "MB", len(results)),
    ]


def is_good(results: Sequence[Flooded]) -> bool:
    """Whether the device was served under every flood as it should be."""
    return all(each.slowdown <= MAX_SLOWDOWN and not each.errors for each in results)


class _Certificate:
    """Of an authority that nobody else knows."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(self.key)
        issued.cert_chain_pems[0].write_to_path(self.cert)
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)

    @property
    def flags(self) -> tuple[str, ...]:
        return "--tls-cert", str(self.cert), "--tls-key", str(self.key)


def _flood(
    name: str, certificate: _Certificate | None, flooder: str, honest: str, flags: Sequence[str], seconds: float
) -> Flooded:
    tls_flags, tls = (certificate.flags, certificate.trust) if certificate else ((), None)
    quiet_s: list[float] = []
    flooded_s: list[float] = []
    errors: list[str] = []
    with observed_cloud(floods.MODEL, *flags, *tls_flags) as cloud:
        device = _Device(cloud.url, honest, tls)
        asyncio.run(device.write(SHARE_QUIET * seconds, quiet_s, errors))
        parts = urlsplit(cloud.url)
        target = floods.Target(str(parts.hostname), int(parts.port or 0), flooder)
        # In a process of its own, so that the two do not take each other's time.
        flood = get_context("spawn").Process(target=floods.run_flood, args=(name, target, MAX_S), daemon=True)
        flood.start()
        try:
            time.sleep(SHARE_START * seconds)
            asyncio.run(device.write(seconds, flooded_s, errors))
            rss_bytes = cloud.rss_bytes
        finally:
            flood.kill()
            flood.join()
        time.sleep(SHARE_START * seconds)
        asyncio.run(device.write(SHARE_QUIET * seconds, quiet_s, errors))
    return Flooded(f"{name}_tls" if certificate else name, quiet_s, flooded_s, errors, rss_bytes)


class _Device:
    """The honest one, which connects for each text anew."""

    def __init__(self, url: str, key: str, tls: ssl.SSLContext | None) -> None:
        self._url, self._key, self._tls = url, key, tls
        self._engine, self._rng = load_engine(floods.MODEL, "target"), Random(0)
        self._seeds = itertools.count()

    async def write(self, seconds: float, times_s: list[float], errors: list[str]) -> None:
        """Texts for a while, two at least, by offers and by credit in turn."""
        until_s = time.monotonic() + seconds
        while True:
            times_s += [await self._time_text(errors) for _ in range(2)]
            if time.monotonic() > until_s:
                break

    async def _time_text(self, errors: list[str]) -> float:
        seed = next(self._seeds)
        prompt = Prompt((TokenSegment(tuple(self._rng.randrange(64) for _ in range(12))),))
        sampling = SamplingParams(temperature=1.0, seed=seed, max_tokens=40)
        session = EdgeSession(self._engine.vocabulary, prompt, sampling, Exact())
        truth = write_alone(self._engine, prompt, sampling)
        began_s = time.monotonic()
        try:
            connection = await connect(self._url, token=self._key, tls=self._tls, timeout_s=PATIENCE_S)
            try:
                await HonestText(connection, session, truth, self._rng).write(drafts=bool(seed % 2))
            finally:
                took_s = time.monotonic() - began_s
                await connection.close()
        except SkydraftError as error:
            errors.append(str(error))
            return PATIENCE_S
        if list(session.token_ids) != truth:
            errors.append(f"the text with seed {seed} is not the cloud's own")
        return took_s
