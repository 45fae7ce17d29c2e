"""Does a cloud stay as it is? Hours in minutes: devices that come, write, are cut off, come back or vanish.

A table engine with the pace of a quick model, in a cloud of its own with fewer slots than devices, over real sockets.
Half of the texts are drafted on the device, half are the cloud's alone; of all, some are cut off once or more and taken
up again, and some devices vanish in the middle of a text. Every finished text is compared with what the target writes
alone. With --fuzz, strangers (`bench.fuzz`) take the place of the devices.

Claims:
    memory_growth: the cloud's memory (median) in the second half of the time against the first; a tenth is let pass
        before. Aim: within 5 %.
    memory_mb: at the end.
    texts_wrong: of those that were finished, how many are not the cloud's own. texts_done, cuts, vanished: how many.
    sessions_left: when all devices have gone and the grace time is over.
    tracebacks: in the cloud's log.
Claims of --fuzz:
    fuzz_frames, fuzz_refused: that were sent; of these, that had to close their connection, and did.
    fuzz_failures: connections closed or left open that should not be, closed without a reason, or hung.
    fuzz_memory_growth: as memory_growth.
    fuzz_texts, fuzz_texts_wrong, fuzz_longest_wait_ms: of an honest device beside the strangers.
    fuzz_sessions_left, fuzz_tracebacks: as above.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import fuzz as fuzzing
from bench.churn import DEVICES, MODEL, SLOTS, Churn, cloud_flags
from bench.claims import RESULTS, Claim, show, write_results
from bench.observed import ObservedCloud, Sample, memory_growth, observed_cloud
from skydraft.errors import SkydraftError

QUICK_MINUTES, QUICK_FRAMES = 0.4, 10_000
PERIODS = 240  # samples, at least 1 s apart and at most 5
MAX_WRITTEN = 300  # samples in a file
MUST_BE_0 = ("texts_wrong", "failures", "tracebacks", "sessions_left")


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak or fuzz; 1 where something is wrong that must never be."""
    options = _parser().parse_args(arguments)
    try:
        claims = _fuzz(options) if options.fuzz is not None else _soak(options)
    except SkydraftError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    show(claims, options.json)
    return int(any(claim.value for claim in claims if claim.claim.endswith(MUST_BE_0)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=_positive, default=20.0, help="of churn [default: 20]")
    parser.add_argument(
        "--fuzz", type=_count, nargs="?", const=100_000, metavar="N", help="send N frames [100000] instead"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that happens")
    parser.add_argument("--quick", action="store_true", help="within a minute; nothing is written to bench/results")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} frames cannot be sent: a whole number above 0 can")
    return int(text)


def _positive(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < 1e5:
        raise argparse.ArgumentTypeError(f"{text} minutes cannot be measured: more than 0 can")
    return minutes


# Churn


def _soak(options: argparse.Namespace) -> list[Claim]:
    minutes = min(options.minutes, QUICK_MINUTES) if options.quick else options.minutes
    with observed_cloud(MODEL, *cloud_flags()) as cloud:
        churn = Churn(cloud.url, options.seed)
        samples = asyncio.run(_churn_and_watch(churn, cloud, 60 * minutes))
        faults = cloud.faults()
        claims = _soak_claims(churn, samples, cloud.num_tracebacks)
    if not options.quick:
        counts = {"errors": dict(churn.tally.errors), "different": churn.tally.different, "faults": faults}
        about = {"minutes": minutes, "model": MODEL, "devices": DEVICES, "slots": SLOTS, "seed": options.seed}
        _write("soak", about, claims, counts | {"samples": _thinned(samples)})
    return claims


async def _churn_and_watch(churn: Churn, cloud: ObservedCloud, seconds: float) -> list[Sample]:
    """Samples while devices come and go; the last one when all have gone."""
    period_s = min(5.0, max(1.0, seconds / PERIODS))
    churning = asyncio.create_task(churn.run(seconds))
    samples = []
    try:
        while not churning.done():
            samples.append(await asyncio.to_thread(cloud.sample))
            await asyncio.wait((churning,), timeout=period_s)
    finally:
        churning.cancel()  # of what is done it changes nothing
        await asyncio.wait((churning,))  # devices end their texts before their engines end
    churning.result()
    return [*samples, await fuzzing.settled(cloud)]


def _soak_claims(churn: Churn, samples: Sequence[Sample], num_tracebacks: int) -> list[Claim]:
    tally = churn.tally
    return [
        Claim("memory_growth", 100 * memory_growth(samples[:-1]), "%", len(samples)),
        Claim("memory_mb", samples[-1].rss_bytes / 1e6, "MB", 1),
        Claim("texts_done", tally.num_done, "texts", tally.num_done),
        Claim("texts_wrong", len(tally.different), "texts", tally.num_done),
        Claim("cuts", tally.num_cuts, "cuts", tally.num_done),
        Claim("vanished", tally.num_vanished, "devices", tally.num_vanished),
        Claim("failures", sum(tally.errors.values()), "texts", tally.num_done),
        Claim("sessions_left", samples[-1].num_sessions, "sessions", 1),
        Claim("tracebacks", num_tracebacks, "", 1),
    ]


# Strangers


def _fuzz(options: argparse.Namespace) -> list[Claim]:
    num_frames = min(options.fuzz, QUICK_FRAMES) if options.quick else options.fuzz
    with tempfile.TemporaryDirectory() as folder:
        keys = fuzzing.make_keys(Path(folder))
        with observed_cloud(fuzzing.MODEL, *fuzzing.cloud_flags(keys)) as cloud:
            result = asyncio.run(fuzzing.fuzz(cloud, keys, num_frames, options.seed))
            faults, num_tracebacks = cloud.faults(), cloud.num_tracebacks
    claims = _fuzz_claims(result, num_tracebacks)
    if not options.quick:
        about = {"frames": num_frames, "seed": options.seed, "strangers": fuzzing.NUM_STRANGERS}
        _write(
            "fuzz",
            about,
            claims,
            {
                "failures": result.failures,
                "faults": faults,
                "seconds": result.seconds,
                "samples": _thinned(result.samples),
            },
        )
    return claims


def _fuzz_claims(result: fuzzing.FuzzResult, num_tracebacks: int) -> list[Claim]:
    assert result.after is not None
    num_frames, num_texts = result.num_frames, result.num_texts
    return [
        Claim("fuzz_frames", num_frames, "frames", result.num_connections),
        Claim("fuzz_refused", result.num_refused, "frames", num_frames),
        Claim("fuzz_failures", result.num_failures, "connections", result.num_connections),
        Claim("fuzz_memory_growth", 100 * memory_growth(result.samples), "%", len(result.samples)),
        Claim("fuzz_texts", num_texts, "texts", num_texts),
        Claim("fuzz_texts_wrong", result.num_wrong, "texts", num_texts),
        Claim("fuzz_longest_wait_ms", 1000 * result.longest_wait_s, "ms", num_texts),
        Claim("fuzz_sessions_left", result.after.num_sessions, "sessions", 1),
        Claim("fuzz_tracebacks", num_tracebacks, "", 1),
    ]


def _thinned(samples: Sequence[Sample]) -> list[dict[str, float]]:
    return [sample._asdict() for sample in samples[:: 1 + len(samples) // MAX_WRITTEN]]


def _write(name: str, about: dict[str, Any], claims: Sequence[Claim], more: dict[str, Any]) -> None:
    content = {**about, "claims": [claim._asdict() for claim in claims], **more}
    write_results(RESULTS / f"{name}.json", "bench.soak", content)


if __name__ == "__main__":
    sys.exit(main())
