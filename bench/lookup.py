"""`python -m bench.lookup`: drafts that are looked up, without a model, against the cloud alone.

The texts quote, correct or rewrite what is in their prompts (bench/real/quoting.jsonl). The real target of
`bench.real` wrote them once (`--record`, with SKYDRAFT_MODELS); they are written again in virtual time, with the pace
of a larger target and over links (`bench.network.virtual`), so a run needs no models. One device writes all of them,
one after the other: what it learnt in one serves the next.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import NamedTuple

import msgspec

from bench.claims import RESULTS, Claim, show, write_results
from bench.network.model_cache import Opening, Path
from bench.network.profiles import PROFILES, Sides
from bench.network.virtual import Virtual, VirtualLink, VirtualText
from bench.real.pair import TEMPERATURES, TextKey, find_pair
from bench.real.recording import RecordedMinds, RecordedText
from bench.replay import write_alone
from skydraft.core import SamplingParams, ShareLevel
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.policies.planner import Planner
from skydraft.tasks.chat import chat_prompts

PROMPTS, QUOTED = (FilePath(__file__).with_name("real") / name for name in ("quoting.jsonl", "quoted.json"))
NUM_TOKENS, MAX_LENGTH = 160, 512
RATE_MBPS = 10
ROUND_TRIPS_MS = (0, 20, 50, 100, 200)
SEED = 7000


class QuotedText(msgspec.Struct, frozen=True):
    """A text of the target. number: of its prompt."""

    number: int
    temperature: float
    prompt_ids: Path
    token_ids: Path


class LookupRow(NamedTuple):
    """All texts with one cloud over one link.

    over_cloud: tokens a second behind the first token, over the cloud's alone; of all texts together.
    least_over_cloud: of a single text. positions_per_token: that the cloud computed.
    """

    profile: str
    round_trip_ms: float
    temperature: float
    over_cloud: float
    least_over_cloud: float
    positions_per_token: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.lookup", description=__doc__)
    parser.add_argument("--record", action="store_true", help="have the real target write the texts first")
    parser.add_argument("--quick", action="store_true", help="the claim alone, and keep nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim")
    options = parser.parse_args()
    if options.record:
        QUOTED.write_bytes(msgspec.json.encode(list(record())))
    texts = msgspec.json.decode(QUOTED.read_bytes(), type=list[QuotedText])
    rows = list(measure(texts, ["P-A"], [50]) if options.quick else measure(texts, ["P-A", "P-B"], ROUND_TRIPS_MS))
    if not options.json:
        for row in rows:
            print(" ".join(f"{name} {value}" for name, value in row._asdict().items()))
    if not options.quick:
        write_results(RESULTS / "lookup.json", "bench.lookup", {"rows": [row._asdict() for row in rows]})
    show(claims(rows, len(texts)), options.json)
    return 0


def record() -> Iterator[QuotedText]:
    """Have the target of the real pair write the texts. Raises: PairMissing."""
    pair = find_pair()
    target = load_engine(pair.target, "target", EngineSettings(num_threads=1, max_length=MAX_LENGTH))
    for number, line in enumerate(PROMPTS.read_text().splitlines()):
        prompt = chat_prompts(pair.tokenizer, json.loads(line)["prompt"], ShareLevel.TOKENS, pair.render).edge
        for temperature in TEMPERATURES:
            sampling = SamplingParams(
                temperature=temperature,
                seed=SEED + number,
                max_tokens=NUM_TOKENS,
                end_ids=tuple(pair.tokenizer.vocabulary.end_ids),
            )
            text = QuotedText(number, temperature, prompt.token_ids, tuple(write_alone(target, prompt, sampling)))
            print(f"{number} {temperature:g}: {len(text.token_ids)} tokens", file=sys.stderr, flush=True)
            yield text


def measure(
    texts: Sequence[QuotedText], profiles: Sequence[str], round_trips_ms: Sequence[float]
) -> Iterator[LookupRow]:
    for profile in profiles:
        for round_trip_ms in round_trips_ms:
            for temperature in TEMPERATURES:
                of_this = [text for text in texts if text.temperature == temperature]
                looked_up, alone = (
                    write_all(of_this, PROFILES[profile].sides, round_trip_ms, way) for way in (True, False)
                )
                yield LookupRow(
                    profile,
                    round_trip_ms,
                    temperature,
                    round(speed(looked_up) / speed(alone), 3),
                    round(min(speed([a]) / speed([b]) for a, b in zip(looked_up, alone, strict=True)), 3),
                    round(statistics.mean(text.num_positions / len(text.token_ids) for text in looked_up), 2),
                )


def write_all(texts: Sequence[QuotedText], sides: Sides, round_trip_ms: float, looks_up: bool) -> list[Virtual]:
    """Write them with one device."""
    planner, link = Planner(has_draft=False), VirtualLink(round_trip_ms / 1000, RATE_MBPS)
    ids = sorted({token_id for text in texts for token_id in (*text.prompt_ids, *text.token_ids)})
    number = {token_id: index for index, token_id in enumerate(ids)}  # as of a recording: rows are short then
    written = []
    for text in texts:
        prompt_ids, token_ids = (tuple(number[i] for i in each) for each in (text.prompt_ids, text.token_ids))
        key = TextKey("quoting", text.number, text.temperature)
        minds = RecordedMinds(RecordedText(key, len(prompt_ids), token_ids), len(ids))
        minds.opening = Opening(prompt_ids, minds.opening.sampling)
        virtual = VirtualText(minds, sides, link, planner, is_drafted=looks_up, looks_up=looks_up)
        written.append(virtual.run())
        assert written[-1].token_ids == token_ids, "looking up changed a text"
    return written


def speed(texts: Sequence[Virtual]) -> float:
    """Tokens a second behind those that came first."""
    num_later = sum(len(text.token_ids) - text.counts[0] for text in texts)
    return num_later / sum(text.times_s[-1] - text.times_s[0] for text in texts)


def claims(rows: Sequence[LookupRow], num_texts: int) -> Iterator[Claim]:
    """The lesser of the temperatures."""
    at_50 = [row.over_cloud for row in rows if (row.profile, row.round_trip_ms) == ("P-A", 50)]
    yield Claim("lookup_pa_50", min(at_50), "x cloud", num_texts // len(TEMPERATURES))


if __name__ == "__main__":
    sys.exit(main())
