"""`python -m bench.real`: skydraft with a real pair of models, in the folder that SKYDRAFT_MODELS names.

Parts, each with a file of rows in bench/results/real, which is added to: a run takes up where the last one stopped.
    virtual    how fast is it where the models have the pace of a phone's and a data centre's? Needs no models.
    exact      is the text the cloud's own, over real sockets and an emulated link, with cuts, kills, evictions?
    agreement  how often does the draft guess what the target writes?
    speed      does the default hurt, on two cores and on one?
    cost       what does it cost that the text is the cloud's own?
    overhead   what does skydraft itself take, beside the models?
    fields     is the text the cloud's own with stop strings, penalties, biases, cuts, log-probabilities, schemas?
Without the models only the first part is done.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console

from bench.claims import RESULTS, Claim, show
from bench.real.agreement import AgreementRow, agreement_claims, measure_agreement
from bench.real.cost import CostRow, cost_claims, measure_cost
from bench.real.exact import WAYS, Exactness, ExactRow, exact_claims, plans
from bench.real.fields import FieldRow, fields_claims, measure_fields
from bench.real.overhead import OverheadRow, measure_overhead, overhead_claims
from bench.real.pair import NUM_TOKENS, Pair, PairMissing, find_pair, text_keys
from bench.real.recording import RECORDED, load_recording
from bench.real.row_file import RowFile
from bench.real.site import CLOUD
from bench.real.speed import CORES, ROUND_TRIPS_MS, SpeedCase, SpeedRow, SpeedSize, measure_speed, speed_claims
from bench.real.tables import print_tables
from bench.real.virtual import CLAIMED_KINDS, CLAIMED_MS, PACES, VirtualRow, cases, simulate, virtual_claims
from bench.real.virtual import ROUND_TRIPS_MS as VIRTUAL_MS
from skydraft.errors import SkydraftError

ROWS = RESULTS / "real"
NUM_EACH = 10  # prompts of a kind, each at two temperatures and written twice: 200 texts
PARTS: dict[str, type[Any]] = {
    "virtual": VirtualRow,
    "exact": ExactRow,
    "agreement": AgreementRow,
    "speed": SpeedRow,
    "cost": CostRow,
    "overhead": OverheadRow,
    "fields": FieldRow,
}
QUICK_TOKENS = 32  # of a text
CLAIMS: dict[str, Callable[[list[Any]], Iterable[Claim]]] = {
    "virtual": virtual_claims,
    "exact": exact_claims,
    "agreement": agreement_claims,
    "speed": speed_claims,
    "cost": cost_claims,
    "overhead": overhead_claims,
    "fields": fields_claims,
}
# A part of a quick run begins nothing later than this; where the machine is slow, the last ones are left out.
QUICK_S = {"exact": 75.0, "agreement": 150.0, "speed": 165.0, "cost": 235.0, "overhead": 210.0, "fields": 200.0}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        pair = find_pair()
    except PairMissing as missing:
        _say(f"{missing}; only what needs no models is done")
        pair = None
    run, status = _Run(options, pair), 0
    for part in options.parts:
        try:
            if not options.report and (pair is not None or part == "virtual"):
                getattr(run, part)()
        except (SkydraftError, OSError) as error:
            _say(f"bench.real, part {part}: {error}")
            status = 1
        if options.json:  # part by part: what comes later may take long
            show(run.claims(part), as_json=True)
            sys.stdout.flush()
    if not options.json:
        print_tables(run.files["virtual"].rows, Console(width=140))
        show((claim for part in options.parts for claim in run.claims(part)), as_json=False)
    return status


class _Run:
    """One call of this bench: a method for each part."""

    def __init__(self, options: argparse.Namespace, pair: Pair | None) -> None:
        self._is_quick = options.quick
        self._began_s = time.monotonic()
        self._minutes: float = options.minutes
        self._pair = pair
        self.files: dict[str, RowFile[Any]] = {
            part: RowFile(None if options.quick else ROWS / f"{part}.jsonl", kind) for part, kind in PARTS.items()
        }

    def virtual(self) -> None:
        recording, file = load_recording(RECORDED), self.files["virtual"]
        done = {row.case for row in file.rows}
        todo = cases(("P-A", "P-B"), (CLAIMED_MS,), CLAIMED_KINDS) if self._is_quick else cases(PACES, VIRTUAL_MS)
        for case in todo:
            if case not in done:
                for row in simulate(recording, case):
                    file.add(row)

    def exact(self) -> None:
        todo = plans(1, 1) if self._is_quick else plans(NUM_EACH, 2)
        num_tokens = QUICK_TOKENS if self._is_quick else NUM_TOKENS
        Exactness(self._models, self.files["exact"], self._until_s("exact"), _say, num_tokens).run(todo)

    def agreement(self) -> None:
        own = {row.plan.key: row.token_ids for row in self.files["exact"].rows if row.way == CLOUD}
        measure_agreement(self._models, own, self.files["agreement"], self._until_s("agreement"))

    def speed(self) -> None:
        todo = [SpeedCase(cores, round_trip_ms) for round_trip_ms in ROUND_TRIPS_MS for cores in CORES]
        if self._is_quick:
            todo = [SpeedCase(CORES[0], 50.0)]
        size = SpeedSize(1, 2, QUICK_TOKENS) if self._is_quick else SpeedSize(3, 6, NUM_TOKENS)
        measure_speed(self._models, todo, size, self.files["speed"], self._until_s("speed"), _say)

    def cost(self) -> None:
        measure_cost(self._models, 5 if self._is_quick else 40, self.files["cost"], self._until_s("cost"))

    def overhead(self) -> None:
        keys = text_keys(1)[: 2 if self._is_quick else 10]
        measure_overhead(self._models, keys, WAYS, self.files["overhead"], self._until_s("overhead"))

    def fields(self) -> None:
        keys = text_keys(1)[::5] if self._is_quick else text_keys(NUM_EACH // 2)  # 50 texts of each field
        num_tokens = QUICK_TOKENS if self._is_quick else NUM_TOKENS
        measure_fields(self._models, keys, self.files["fields"], self._until_s("fields"), num_tokens)

    def claims(self, part: str) -> Iterable[Claim]:
        return CLAIMS[part](self.files[part].rows)

    @property
    def _models(self) -> Pair:
        assert self._pair is not None
        return self._pair

    def _until_s(self, part: str) -> float:
        most_s: float = QUICK_S[part] if self._is_quick else 60 * self._minutes
        return self._began_s + most_s


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts, within five minutes; no rows are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim, and no tables")
    parser.add_argument("--report", action="store_true", help="of the rows that there are; measure nothing")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="default: all")
    parser.add_argument(
        "--minutes", type=float, default=24 * 60.0, help="begin no text after this time; the next run goes on"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
