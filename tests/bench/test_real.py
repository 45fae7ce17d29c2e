"""The real pair's bench, with tables in place of its models; and what is recorded of the pair, in virtual time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from bench.claims import Claim
from bench.network.model_cache import NUM_GUESSES
from bench.real import __main__ as bench_real
from bench.real.agreement import AgreementRow, agreement_claims, measure_agreement
from bench.real.cost import BLOCKS, CostRow, cost_claims, measure_cost
from bench.real.cost import PROMPT as PROMPT_BLOCK
from bench.real.exact import CUT, KILL, TROUBLES, WAYS, Exactness, ExactRow, Plan, exact_claims, plans, processor_name
from bench.real.fields import FieldRow, fields, fields_claims, measure_fields
from bench.real.overhead import OverheadRow, measure_overhead, overhead_claims
from bench.real.pair import FOLDER_VARIABLE, KINDS, TEMPERATURES, Pair, TextKey, text_keys, words
from bench.real.record import guess_along
from bench.real.recording import RECORDED, RecordedText, Recording, load_recording, save_recording
from bench.real.row_file import RowFile
from bench.real.site import CLOUD
from bench.real.speed import Comparison, SpeedCase, SpeedRow, compare_speeds, speed_claims
from bench.real.virtual import Case, VirtualRow, simulate, virtual_claims
from bench.replay import write_alone
from skydraft.core import Prompt, TokenSegment
from skydraft.engines.load import load_engine
from skydraft.sampling.guesses import best_guesses

TARGET = "table:vocab=64,seed=3,order=2,sharpness=3"
DRAFT = f"{TARGET},noise=1"
PROMPT = Prompt((TokenSegment((1, 2, 3)),))
FOREVER_S = 1e9


class TablePair(Pair):
    """Tables know no words."""

    def prompt(self, key: TextKey) -> Prompt:
        return Prompt((TokenSegment((1, 2, 3 + key.number)),))


PAIR = TablePair(DRAFT, f"paced:step_ms=5:{TARGET}")  # so that a text takes long enough to be cut off


def recorded(key: TextKey, num_tokens: int = 40) -> RecordedText:
    sampling = key.sampling((), num_tokens)
    token_ids = tuple(write_alone(load_engine(TARGET, "target"), PROMPT, sampling))
    return RecordedText(key, 3, token_ids, guess_along(load_engine(DRAFT, "draft"), PROMPT, token_ids, sampling))


def exact_row(plan: Plan, differs_at: int | None = None) -> ExactRow:
    return ExactRow(
        *plan.key, way=plan.way, trouble=plan.trouble, tokens=60, seconds=1.0, first_token_s=0.1, rounds=20,
        positions=90, reconnects=0, up=120, down=60, differs_at=differs_at,
    )  # fmt: skip


# Prompts and plans


def test_there_are_forty_prompts_of_each_kind_and_no_two_are_the_same() -> None:
    prompts = {words(TextKey(kind, number, 0.0)) for kind in KINDS for number in range(40)}
    assert len(prompts) == 200


def test_two_hundred_texts_meet_every_way_and_every_trouble_at_both_temperatures() -> None:
    found = plans(10, 2)
    assert len(set(found)) == 200
    assert len({(plan.way, plan.trouble) for plan in found}) == len(WAYS) * len(set(TROUBLES))
    assert len({(plan.key.kind, plan.way, plan.key.temperature) for plan in found}) == 5 * len(WAYS) * len(TEMPERATURES)


def test_a_quick_run_has_a_crowd_a_cut_and_a_killed_cloud() -> None:
    assert {plan.trouble for plan in plans(1, 1)} == set(TROUBLES)


# Recording


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_draft_guesses_along_a_text_as_it_would_token_by_token(temperature: float) -> None:
    text = recorded(TextKey("chat", 0, temperature))
    draft, sampling = load_engine(DRAFT, "draft"), text.key.sampling((), 40)
    for path, guesses in text.guesses.items():
        slot, row = draft.open(Prompt((TokenSegment((1, 2, 3, *path)),)))
        draft.close(slot)
        (alone,) = best_guesses(row[None, :], sampling, [len(path)], NUM_GUESSES)
        assert guesses.token_ids == alone.token_ids
    assert {text.token_ids[:length] for length in range(40)} < set(text.guesses)


def test_what_is_recorded_comes_back_from_its_file(tmp_path: Path) -> None:
    texts = [recorded(TextKey(kind, 0, temperature)) for kind in ("chat", "code") for temperature in TEMPERATURES]
    save_recording(texts, tmp_path / "texts.npz")
    recording = load_recording(tmp_path / "texts.npz")
    ids = recording.token_ids
    for text, loaded in zip(texts, recording.texts, strict=True):
        assert loaded.key == text.key
        assert loaded.num_prompt_ids == 3
        assert tuple(ids[number] for number in loaded.token_ids) == text.token_ids
        paths = {tuple(ids[number] for number in path): guesses for path, guesses in loaded.guesses.items()}
        assert paths.keys() == text.guesses.keys()
        for path, guesses in paths.items():
            assert tuple(ids[number] for number in guesses.token_ids) == text.guesses[path].token_ids
            assert guesses.scores == pytest.approx(text.guesses[path].scores, abs=1e-3)


def test_what_was_not_recorded_is_counted_and_writes_no_token() -> None:
    text = recorded(TextKey("chat", 0, 0.0))
    minds = Recording([text], range(64)).minds(text)
    wrong = next(path for path in text.guesses if path != text.token_ids[: len(path)])
    stranger = (*wrong, 63, 63, 63, 63, 63, 63)
    assert minds.guesses(stranger, 2).token_ids == text.guesses[wrong].token_ids[:2]
    assert (minds.num_asked, minds.num_unrecorded) == (1, 1)
    assert minds.choice(text.token_ids[:5]) == text.token_ids[5]


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_pair_writes_its_text_in_every_way_and_auto_gains(kind: str) -> None:
    recording = load_recording()
    one_text = next(text for text in recording.texts if text.key.kind == kind)
    case = Case("P-A", 50.0, kind, one_text.key.temperature)
    rows = {row.mode: row for row in simulate(Recording([one_text], recording.token_ids), case)}
    assert rows["cloud"].over_cloud == 1.0
    assert rows["auto"].over_cloud > max(1.0, rows["wait:4"].over_cloud)


def test_the_recorded_pair_is_small_enough_to_ship_and_knows_every_place_of_its_texts() -> None:
    recording = load_recording()
    assert RECORDED.stat().st_size < 2_000_000
    assert {(text.key.kind, text.key.temperature) for text in recording.texts} == {
        (kind, temperature) for kind in KINDS for temperature in TEMPERATURES
    }
    for text in recording.texts:
        assert all(text.token_ids[:length] in text.guesses for length in range(len(text.token_ids)))


# Real processes and sockets


def test_texts_are_the_clouds_own_with_crowds_cuts_and_a_killed_cloud_and_one_that_is_not_is_noted() -> None:
    file, said = RowFile(None, ExactRow), list[str]()
    plain, *todo = plans(1, 1)
    assert plain.trouble == "none"
    own_ids = write_alone(load_engine(TARGET, "target"), PAIR.prompt(plain.key), plain.key.sampling((), 64))
    wrong_ids = (*own_ids[:9], (own_ids[9] + 1) % 64, *own_ids[10:])
    own_row = exact_row(Plan(plain.key, CLOUD, "none"))
    file.add(msgspec.structs.replace(own_row, token_ids=wrong_ids, processor=processor_name()))
    file.add(msgspec.structs.replace(own_row, token_ids=(1, 2), processor="another, which has other bits"))
    file.add(exact_row(todo[0]))  # written by an earlier run
    Exactness(PAIR, file, time.monotonic() + FOREVER_S, said.append).run([plain, *todo])

    assert said[0] == "9 texts to write, 1 are there"
    hybrid = {row.plan: row for row in file.rows if row.way != CLOUD}
    assert hybrid.keys() == {plain, *todo}
    assert [plan for plan, row in hybrid.items() if row.differs_at is not None] == [plain]
    assert hybrid[plain].differs_at == 9
    assert (hybrid[plain].gap or 0) > 0
    troubled = {plan.trouble for plan, row in hybrid.items() if row.reconnects}
    assert troubled
    assert troubled <= {CUT, KILL}
    claims = {claim.claim: claim for claim in exact_claims(file.rows)}
    assert (claims["exact_share"].value, claims["exact_share"].n) == (0.9, 10)


def test_ranks_of_a_text_are_read_in_one_block_and_not_twice() -> None:
    key, file = TextKey("chat", 0, 0.8), RowFile(None, AgreementRow)
    own_ids = tuple(write_alone(load_engine(TARGET, "target"), PAIR.prompt(key), key.sampling((), 40)))
    for _ in range(2):
        measure_agreement(PAIR, {key: own_ids}, file, time.monotonic() + FOREVER_S)
    (row,) = file.rows
    text = recorded(key)
    assert text.token_ids == own_ids
    for length, (token_id, rank) in enumerate(zip(own_ids, row.ranks, strict=True)):
        guessed = text.guesses[own_ids[:length]].token_ids
        assert rank == (guessed.index(token_id) if token_id in guessed else NUM_GUESSES)


def test_a_file_of_rows_loses_no_more_than_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [exact_row(Plan(TextKey("code", number, 0.0), "tree", CUT)) for number in range(2)]
    RowFile(path, ExactRow).add(rows[0])
    path.write_bytes(path.read_bytes() + b'{"kind": "chat", "num')
    RowFile(path, ExactRow).add(rows[1])
    assert RowFile(path, ExactRow).rows == rows


def test_texts_of_all_fields_are_compared_with_the_clouds_own() -> None:
    letters = "table:vocab=97,letters=1,seed=3,order=2,end=96"
    pair, file = TablePair(f"{letters},noise=1", letters), RowFile(None, FieldRow)
    keys = text_keys(1)[:1]
    measure_fields(pair, keys, file, time.monotonic() + FOREVER_S, num_tokens=20)
    assert {row.field for row in file.rows} == set(fields(pair.tokenizer))
    assert {row.way for row in file.rows if row.drafted} == {"wait:4", "tree"}
    assert all(row.is_same for row in file.rows)
    measure_fields(pair, keys, file, time.monotonic() + FOREVER_S)  # nothing is left to do
    assert len(file.rows) == 2 * len(fields(pair.tokenizer))


def test_a_field_whose_texts_differ_is_told() -> None:
    row = FieldRow("chat", 0, 0.0, "stop", "tree", 9, 5, is_same=True)
    other = FieldRow("chat", 0, 0.8, "stop", "tree", 9, 5, is_same=False)
    assert list(fields_claims([row, other])) == [Claim("fields_same_stop", 0.5, "share", 2)]


def test_overhead_leaves_the_draft_models_passes_out() -> None:
    file = RowFile(None, OverheadRow)
    measure_overhead(PAIR, text_keys(1)[:1], ("wait:4",), file, time.monotonic() + FOREVER_S)
    (row,) = file.rows
    assert row.tokens == 64
    assert row.device_ms > 0
    busy = msgspec.structs.replace(row, device_ms=2.0, cloud_ms=None)
    quiet = msgspec.structs.replace(row, device_ms=4.0, cloud_ms=1.5)
    values = {claim.claim: (claim.value, claim.n) for claim in overhead_claims([busy, quiet])}
    assert values == {"overhead_device_ms_wait_4": (3.0, 2), "overhead_cloud_ms_wait_4": (1.5, 1)}


def test_the_cost_of_the_promise_is_measured_turn_by_turn_and_goes_on_where_it_stopped() -> None:
    file = RowFile(None, CostRow)
    for _ in range(2):
        measure_cost(PAIR, 2, file, time.monotonic() + FOREVER_S)
    assert len(file.rows) == 2 * len((PROMPT_BLOCK, *BLOCKS))
    assert all(row.invariant_ms > 0 and row.fast_ms > 0 for row in file.rows)
    rows = [CostRow(1, 11.0, 10.0), CostRow(1, 30.0, 20.0), CostRow(1, 12.0, 10.0), CostRow(PROMPT_BLOCK, 2.0, 4.0)]
    values = {claim.claim: claim.value for claim in cost_claims(rows)}
    assert values == {"invariant_cost": 1.2, "invariant_cost_prompt": 0.5, "token_ms": 12.0}


# Claims


def test_agreement_counts_tokens_of_both_temperatures_and_names_each() -> None:
    rows = [AgreementRow("code", 0, 0.0, [0, 0, 1, NUM_GUESSES]), AgreementRow("code", 0, 0.8, [0, 0, 0, 0])]
    values = {claim.claim: (claim.value, claim.n) for claim in agreement_claims(rows)}
    assert values["agreement_code"] == (0.75, 8)
    assert values["agreement_code_greedy_among_1"] == (0.5, 4)
    assert values["agreement_code_greedy_among_2"] == (0.75, 4)
    assert values["agreement_code_greedy_among_6"] == (0.75, 4)
    assert values["agreement_code_at_0.8_among_1"] == (1.0, 4)


def speed_row(case: SpeedCase, way: str, nth: int, tokens_per_s: float, first_token_s: float) -> SpeedRow:
    return SpeedRow(
        *case, way=way, nth=nth, kind="chat", number=nth, temperature=0.0, tokens=64, drafted=0,
        tokens_per_s=tokens_per_s, first_token_s=first_token_s,
    )  # fmt: skip


def test_auto_is_held_against_the_best_other_way_of_the_worst_case() -> None:
    good, bad = SpeedCase("one each", 0.0), SpeedCase("one for both", 50.0)
    rows = [
        speed_row(case, way, nth, speed, first_s)
        for case, ways in (
            (good, {"cloud": (10, 1.0), "tree": (20, 2.0), "auto": (22, 1.0)}),
            (bad, {"cloud": (10, 1.0), "tree": (5, 2.0), "auto": (8, 1.2)}),
        )
        for way, (speed, first_s) in ways.items()
        for nth in (1, 2)
    ]
    values = {claim.claim: claim.value for claim in speed_claims(rows)}
    assert values["auto_over_best_min"] == values["auto_over_best_one_for_both_50"] == pytest.approx(0.8)
    assert values["first_token_over_best_max"] == values["first_token_over_best_one_for_both_50"] == pytest.approx(1.2)


def test_texts_are_compared_one_by_one_and_ways_that_wrote_few_of_them_not_at_all() -> None:
    case = SpeedCase("one each", 0.0)
    rows = [
        *(speed_row(case, "cloud", nth, speed, 1.0) for nth, speed in ((1, 10), (2, 20), (3, 40))),
        *(speed_row(case, "auto", nth, speed, 1.0) for nth, speed in ((1, 9), (2, 20), (3, 44))),
        speed_row(case, "tree", 1, 100, 0.1),
    ]
    assert compare_speeds(rows) == [Comparison("cloud", 1.0, 0.9, 1.1, 3)]


def test_a_virtual_claim_is_the_lesser_of_both_temperatures() -> None:
    rows = [
        VirtualRow("P-A", 50.0, "code", temperature, "auto", 3, 50.0, over, 0.2, 1.5, 20.0, 3.0, 0.1)
        for temperature, over in ((0.0, 2.5), (0.8, 1.9))
    ]
    (claim,) = virtual_claims(rows)
    assert (claim.claim, claim.value) == ("virtual_pa_50_code", 1.9)


# The command


def test_without_models_it_says_so_and_measures_in_virtual_time_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert bench_real.main(["--quick", "--json", "--parts", "exact", "agreement", "speed"]) == 0
    out, err = capsys.readouterr()
    assert FOLDER_VARIABLE in err
    assert "Traceback" not in err
    assert out == ""


def test_a_report_needs_nothing_but_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_real, "ROWS", tmp_path)
    RowFile(tmp_path / "exact.jsonl", ExactRow).add(exact_row(Plan(TextKey("chat", 0, 0.0), "tree", "cut")))
    assert bench_real.main(["--report", "--json"]) == 0
    claims = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"claim": "exact_share", "value": 1.0, "unit": "of texts", "n": 1} in claims
