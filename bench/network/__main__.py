"""`python -m bench.network`: skydraft against links, side by side with what others do.

Real texts, processes and sockets; the models have the pace of larger ones (`profiles`). What limits them is simulated.
Results go to bench/results/: a line for each text, tables, plots in network/, and claims, which name the aims missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench.claims import RESULTS
from bench.network import claims
from bench.network.device import MODES
from bench.network.profiles import DRAFTS, PROFILES, TEXT
from bench.network.rows import CLOUD, EDGE, NAIVE, Row, TextsDiffer, load_rows
from bench.network.runner import LATE_SHARE, Selection, WorkerFailed, run_selection
from bench.network.tables import Results, print_tables
from skydraft.errors import SkydraftError
from skydraft.policies.way import parse_way


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if not (TEXT / "target" / "config.json").is_file():
        print(f"bench.network needs the text pair in {TEXT} and there is none: nothing was measured")
        return 0
    try:
        with TemporaryDirectory() as folder:
            options.out = options.out or (Path(folder) / "quick.jsonl" if options.quick else RESULTS / "network.jsonl")
            _run(options)
    except (SkydraftError, TextsDiffer, WorkerFailed) as error:
        print(f"bench.network: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    selection = _selection(options)
    limits_out = options.out.with_name(f"{options.out.stem}_virtual.jsonl")
    if options.report:
        rows, limits = load_rows(options.out), load_rows(limits_out)
    else:
        from bench.network.grid import simulate  # torch

        rows = [] if options.virtual else run_selection(selection, options.out, options.workers, _say)
        limits = simulate(selection, limits_out, _say)
    _report(rows, limits, options)


def _report(rows: Sequence[Row], limits: Sequence[Row], options: argparse.Namespace) -> None:
    from bench.network.plots import draw_all  # the dev extra

    measured, simulated = Results(rows), Results(limits)
    if not options.json:
        print_tables(simulated if options.virtual else measured, simulated, Console(width=140))
    for path in draw_all(measured, simulated, options.out.with_suffix("")):
        _say(f"wrote {path}")
    num_late = sum(row.late_share > LATE_SHARE for row in rows)
    _say(f"{num_late} of {len(rows)} texts had passes that were late by more than {LATE_SHARE:.0%} of the time")
    claims.show(list(claims.claims(measured, simulated)), options.json)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run, in about a minute; kept only with --out")
    parser.add_argument("--virtual", action="store_true", help="in virtual time only: exact pace, no sockets")
    parser.add_argument("--report", action="store_true", help="of what was measured before; measure nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim, and no tables")
    _add_list(parser, "--profiles", str, list(PROFILES), choices=PROFILES, help="P-C has a link of its own")
    _add_list(parser, "--drafts", str, ["q4"], choices=DRAFTS)
    _add_list(parser, "--temperatures", float, [0.0, 0.8])
    _add_list(parser, "--round-trips", float, [0, 10, 20, 50, 100, 200, 300], help="ms")
    _add_list(parser, "--rates", float, [10], help="Mbit/s, in each direction")
    _add_list(parser, "--modes", str, list(MODES), help="also wait:N, pipelined:N, prepared:N")
    parser.add_argument("--runs", type=int, default=5, help="texts of a cell and mode; default %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="of a text; default %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="that measure at once; one has a core for each side")
    parser.add_argument("--out", type=Path, help="file of rows, which is added to (default: network.jsonl in results)")
    return parser


def _add_list(
    parser: argparse.ArgumentParser,
    name: str,
    kind: type,
    default: Sequence[object],
    choices: Iterable[str] | None = None,
    help: str = "any of them",
) -> None:
    parser.add_argument(
        name, type=kind, nargs="+", default=default, choices=choices, help=f"{help}; default %(default)s"
    )


def _selection(options: argparse.Namespace) -> Selection:
    """Raises: ConfigError: there is no such mode."""
    if options.quick:
        return Selection(["P-A"], ["q4"], [0.0], [50], [10], ["cloud", "wait:4", "tree", "auto", "naive"], 1, 32)
    for mode in options.modes:
        if mode not in (CLOUD, EDGE, NAIVE):
            parse_way(mode)
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
