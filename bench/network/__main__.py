"""`python -m bench.network`: skydraft against links, side by side with what others do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.network.device import MODES
from bench.network.profiles import DRAFTS, PROFILES, TEXT
from bench.network.rows import TextsDiffer
from bench.network.runner import Selection, WorkerFailed, run_selection
from skydraft.errors import SkydraftError

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if not (TEXT / "target" / "config.json").is_file():
        print(f"bench.network needs the text pair in {TEXT} and there is none: nothing was measured")
        return 0
    try:
        run_selection(_selection(options), options.out, options.workers, lambda line: print(line, file=sys.stderr))
    except (SkydraftError, TextsDiffer, WorkerFailed) as error:
        print(f"bench.network: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run, in about a minute")
    _add_list(parser, "--profiles", str, list(PROFILES), choices=PROFILES)
    _add_list(parser, "--drafts", str, ["q4"], choices=DRAFTS)
    _add_list(parser, "--temperatures", float, [0.0, 0.8])
    _add_list(parser, "--round-trips", float, [0, 10, 20, 50, 100, 200, 300], help="ms; P-C has its own")
    _add_list(parser, "--rates", float, [10], help="Mbit/s, in each direction")
    _add_list(parser, "--modes", str, list(MODES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "network.jsonl")
    return parser


def _add_list(parser: argparse.ArgumentParser, name: str, kind: type, default: list[object], **more: object) -> None:
    parser.add_argument(name, type=kind, nargs="+", default=default, **more)


def _selection(options: argparse.Namespace) -> Selection:
    if options.quick:
        return Selection(["P-A"], ["q4"], [0.0], [50], [10], ["cloud", "wait:4", "tree", "auto", "naive"], 1, 32)
    return Selection(
        profiles=options.profiles,
        drafts=options.drafts,
        temperatures=options.temperatures,
        round_trips_ms=options.round_trips,
        rates_mbps=options.rates,
        modes=options.modes,
        num_runs=options.runs,
        num_tokens=options.tokens,
    )


if __name__ == "__main__":
    sys.exit(main())
