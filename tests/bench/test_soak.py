from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import churn, soak
from bench.claims import Claim
from bench.observed import ObservedCloud, Sample, memory_growth
from skydraft.config import CloudSettings
from tests.cloud.running import running
from tests.linked import table


def samples(*sizes: int) -> list[Sample]:
    return [Sample(float(at_s), size, 0, 0) for at_s, size in enumerate(sizes)]


def test_growth_compares_halves_and_leaves_out_the_warm_up() -> None:
    assert memory_growth(samples(1, *[100] * 5, *[110] * 4)) == pytest.approx(0.1)
    assert memory_growth(samples(50, 100, 100, 900, 100, 100, 100, 900, 100, 100)) == 0
    assert memory_growth(samples(5)) == 0


def test_devices_that_come_and_go_leave_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "RESULTS", tmp_path)
    assert soak.main(["--minutes", "0.06", "--json"]) == 0
    claims = {claim["claim"]: claim["value"] for claim in map(json.loads, capsys.readouterr().out.splitlines())}
    assert claims["texts_done"] > 0
    assert claims["cuts"] > 0
    assert [claims[name] for name in ("texts_wrong", "failures", "sessions_left", "tracebacks")] == [0] * 4
    written = json.loads((tmp_path / "soak.json").read_text())
    assert {claim["claim"]: claim["value"] for claim in written["claims"]} == claims
    assert written["different"] == []
    assert len(written["samples"]) > 1


@pytest.mark.parametrize("flags", [[], ["--fuzz"]])
def test_a_cloud_that_dies_is_a_sentence(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = ObservedCloud.sample

    def sample_and_kill(cloud: ObservedCloud) -> Sample:
        if cloud.is_alive:
            cloud._process.kill()
            cloud._process.wait()
        return sample(cloud)

    monkeypatch.setattr(ObservedCloud, "sample", sample_and_kill)
    assert soak.main(["--quick", *flags]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("soak: ")
    assert errors.count("\n") == 1


async def test_a_wrong_text_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(churn, "write_alone", lambda *_: [0])
    with running(CloudSettings(port=0, num_slots=churn.SLOTS), lambda: table(churn.TARGET)) as cloud:
        crowd = churn.Churn(cloud.address, seed=1)
        await crowd.run(0.5)
    assert len(crowd.tally.different) == crowd.tally.num_done > 0


@pytest.mark.parametrize("name", ["texts_wrong", "fuzz_texts_wrong", "fuzz_failures", "tracebacks", "sessions_left"])
def test_what_must_never_be_is_in_the_exit_status(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for value in (0, 1):
        found = [Claim("texts_done", 5, "texts", 5), Claim(name, value, "", 5)]
        monkeypatch.setattr(soak, "_soak", lambda _, found=found: found)
        assert soak.main([]) == value


@pytest.mark.parametrize("flags", [["--minutes", "0"], ["--minutes", "nan"], ["--fuzz", "0"], ["--fuzz", "-5"]])
def test_an_impossible_amount_is_a_sentence(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        soak.main(flags)
    assert "can" in capsys.readouterr().err
