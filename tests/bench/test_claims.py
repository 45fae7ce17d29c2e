from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from bench.network.claims import claims, show
from bench.network.rows import Cell, Row, Wire
from bench.network.tables import BEST_FIXED, Results
from tests.bench.network_rows import PA_50, row

RUNS = range(5)
WARM = replace(PA_50, temperature=0.8)
PB_50 = replace(PA_50, profile="P-B")


def _rows(cell: Cell, seconds: dict[str, float], **more: object) -> list[Row]:
    """Five runs, of which one is a bad minute for all; the first token comes after a tenth of the time."""
    rows = []
    for run in RUNS:
        for mode, base in seconds.items():
            whole_s = base * (3.0 if run == 2 else 1.0)
            rows.append(row(mode, run, whole_s, cell, **({"first_token_s": whole_s / 10} | more)))
    return rows


def _claims(rows: Sequence[Row], limits: Sequence[Row] = ()) -> dict[str, float]:
    return {claim.claim: claim.value for claim in claims(Results(rows), Results(limits))}


def test_wins_are_ratios_within_a_run_and_the_claim_is_the_smaller_of_the_temperatures() -> None:
    found = _claims([*_rows(PA_50, {"cloud": 2.0, "auto": 1.0}), *_rows(WARM, {"cloud": 2.0, "auto": 1.25})])
    assert found["pa_50"] == pytest.approx(1.6)
    assert found["pa_50_greedy"] == pytest.approx(2.0)
    assert found["pa_50_at_0.8"] == found["pa_50_whole"] == pytest.approx(1.6)


def test_never_loses_is_the_worst_cell_against_the_best_of_the_others() -> None:
    rows = [
        *_rows(PA_50, {"cloud": 2.0, "wait:4": 1.6, "tree": 1.2, "free": 1.1, "auto": 1.0, "naive": 0.1, "edge": 0.1}),
        *_rows(PB_50, {"cloud": 2.0, "wait:4": 1.8, "tree": 0.9, "free": 1.1, "auto": 1.0}),
    ]
    found = _claims(rows)
    assert found["never_loses_min"] == pytest.approx(0.9)
    assert found["first_token_max"] == pytest.approx(1 / 0.9)


def test_a_cell_without_the_strongest_modes_says_nothing_of_never_losing() -> None:
    assert "never_loses_min" not in _claims(_rows(PA_50, {"cloud": 2.0, "wait:4": 0.1, "auto": 1.0}))


def test_cells_with_few_runs_claim_nothing() -> None:
    rows = [item for item in _rows(PA_50, {"cloud": 2.0, "tree": 2.0, "auto": 1.0}) if item.run < 4]
    assert _claims(rows) == {}


def test_bytes_of_chains_leave_out_the_prompt_and_those_of_the_wire_leave_out_nothing() -> None:
    found = _claims(_rows(PA_50, {"wait:5": 2.0}))
    assert found["payload_up_per_token"] == pytest.approx(3.0)
    assert found["payload_down_per_token"] == pytest.approx(1.0)
    assert found["wire_bytes_per_token"] == pytest.approx(100.0)
    assert found["wire_steady_per_token"] == pytest.approx(20.0)


def test_where_the_wire_could_not_be_seen_nothing_is_claimed_of_it() -> None:
    found = _claims(_rows(PA_50, {"wait:5": 2.0}, wire=None))
    assert "payload_up_per_token" in found
    assert not any(name.startswith("wire") for name in found)
    assert Wire(1, 1, 1, 1) != Wire(1, 1, 1, 2)


def test_the_oracle_and_the_policy_come_from_virtual_time() -> None:
    limits = [
        *_rows(PA_50, {"oracle auto": 0.8}),
        *_rows(PA_50, {"auto": 0.9}, policy_us=80.0),
        *_rows(PA_50, {"cost": 1.0}, positions=96),
    ]
    found = _claims(_rows(PA_50, {"cloud": 2.0, "auto": 1.0}), limits)
    assert found["oracle_fraction_pa_50"] == pytest.approx(0.8)
    assert found["policy_us"] == 80.0
    assert found["cost_waste_pa_50"] == pytest.approx(0.5)


def test_the_best_fixed_length_is_that_with_the_best_median() -> None:
    results = Results(_rows(PA_50, {"wait:1": 2.0, "wait:2": 1.0, "wait:4": 1.5}))
    assert results.best_fixed(PA_50) == "wait:2"
    assert results.runs(PA_50, BEST_FIXED) == results.runs(PA_50, "wait:2")


def test_missed_aims_are_said_to_be_missed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*_rows(PA_50, {"cloud": 2.0, "auto": 1.8}), *_rows(PB_50, {"cloud": 2.0, "auto": 0.9})]
    show(list(claims(Results(rows), Results([]))), as_json=False)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["pa_50"].endswith("MISSED: at least 1.3")
    assert lines["pb_50"].endswith("met: at least 2")
