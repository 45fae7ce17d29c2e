import json
from dataclasses import replace

import pytest

from skydraft.cli import run
from skydraft.cli.doctor import as_json, show
from skydraft.cli.results import to_line
from skydraft.cli.screen import Screen
from skydraft.core import Mode
from skydraft.edge import machine
from skydraft.edge.cloud_http import CloudFacts
from skydraft.edge.doctor import measure
from skydraft.edge.doctor.checkup import Checkup
from skydraft.edge.doctor.measure import DraftSpeed, LinkSpeed, Rounds
from skydraft.edge.machine import Machine, Speed, drafting_capacity
from skydraft.engines.accelerator import Accelerator
from skydraft.policies.known_models import propose_known_draft
from skydraft.policies.strategy import Decision
from skydraft.policies.tiers import propose
from tests.cli.made_up import console, printed
from tests.system.processes import free_port, running_cloud

MODEL = "table:vocab=64,seed=3,order=2"
GPU = Accelerator("Some GPU", "cuda", 8 * 10**9, 7 * 10**9)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOOK_S", 0.01)
    monkeypatch.setattr(machine, "MEASURE_S", 0.01)
    monkeypatch.setattr(measure, "MEASURE_S", 0.1)


def made_up(
    accelerator: Accelerator | None = None, battery_share: float | None = None, bytes_per_s: float = 20e9
) -> Checkup:
    machine = Machine("Linux x86_64", 4, 0.0, 16 * 2**30, 8 * 2**30, battery_share, battery_share is None, accelerator)
    speed = Speed(bytes_per_s, 0.02, 300e9 if accelerator else None)
    checkup = Checkup(machine, speed, propose(drafting_capacity(machine, speed)))
    checkup.draft = DraftSpeed(0.01, 0.03)
    checkup.link = LinkSpeed(0.04, 0.001, 20)
    checkup.cloud = CloudFacts(version="0.1.0", model="large")
    checkup.note("draft", "quick")
    checkup.note("link", "slow", "move")
    checkup.fail("vocabulary", "id 0 is 'a\x1b[31m' here and 'b' there")
    checkup.decision = Decision(Mode.EDGE, "it is so")
    return checkup


def shown(checkup: Checkup, width: int = 80, is_terminal: bool = False) -> str:
    stream = console(is_terminal, width, "truecolor")
    show(checkup, Screen(stream, stream))
    return printed(stream)


def test_each_check_has_its_state_its_name_and_its_sentence() -> None:
    lines = [" ".join(line.split()) for line in shown(made_up()).splitlines()]
    assert "ok draft quick" in lines
    assert "weak link slow: move" in lines
    assert "failed vocabulary id 0 is 'a [31m' here and 'b' there" in lines
    assert "mode --mode edge: it is so" in lines


def test_a_known_draft_for_the_clouds_model_is_proposed_and_what_requantizing_gains() -> None:
    checkup = made_up()
    checkup.known_draft = propose_known_draft("Qwen2.5-7B", drafting_capacity(checkup.machine, checkup.speed))
    text = " ".join(shown(checkup, width=500).split())
    assert "draft --draft Qwen/Qwen2.5-1.5B-Instruct-GGUF/qwen2.5-1.5b-instruct-q4_k_m.gguf (1.5 billion" in text
    assert "requantized to Q4_0 it drafts in two thirds of the time" in text
    line = json.loads(to_line(as_json(checkup)))
    assert line["known_draft"]["pair"]["draft"]["name"] == "Qwen2.5-1.5B"
    assert line["known_draft"]["pair"]["is_tested"] is False


def test_the_machine_is_described_with_what_to_draft_with() -> None:
    text = " ".join(shown(made_up()).split())
    assert "Linux x86_64, 4 cores, no accelerator" in text
    assert "16.0 GiB, 8.0 GiB free" in text
    assert "reads 20.0 GB/s, multiplies 107 GFLOP/s (float32)" in text
    assert "tier phone: memory read at 20.0 GB/s gives Qwen2.5-0.5B in 8 bits about 21 tokens/s" in text
    assert "a model like Qwen2.5-0.5B, 494 million parameters (--quantize)" in text


def test_whether_guesses_are_compiled_is_said() -> None:
    assert "guesses compiled" in " ".join(shown(made_up()).split())
    checkup = made_up()
    checkup.machine = replace(checkup.machine, has_kernel=False)
    assert "with a C compiler here (cc, gcc, clang)" in " ".join(shown(checkup, width=200).split())


def test_battery_and_accelerator_are_named_where_they_are() -> None:
    text = " ".join(shown(made_up(GPU, battery_share=0.42)).split())
    assert "Some GPU (--device cuda)" in text
    assert "battery 42%, not plugged in" in text
    assert "its accelerator reads 300 GB/s" in text


def test_a_machine_that_should_not_draft_is_told_so() -> None:
    assert "draft with nothing" in " ".join(shown(made_up(bytes_per_s=1e8)).split())


def test_states_have_colours_on_a_terminal_only() -> None:
    assert "\x1b[" in shown(made_up(), is_terminal=True)
    assert "\x1b[" not in shown(made_up())


def test_no_line_is_wider_than_the_terminal() -> None:
    assert max(len(line) for line in shown(made_up(), width=60).splitlines()) <= 60


def test_json_has_every_number_under_its_name() -> None:
    facts = json.loads(to_line(as_json(made_up(GPU))))
    assert facts["is_well"] is False
    assert facts["machine"]["accelerator"]["device"] == "cuda"
    assert facts["proposal"]["size"]["example"] == "Qwen2.5-1.5B"
    assert facts["draft"]["batch_step_s"] == 0.03
    assert facts["link"]["round_trip_s"] == 0.04
    assert facts["findings"][1] == {"check": "link", "state": "weak", "sentence": "slow: move"}
    assert facts["decision"] == {"mode": "edge", "reason": "it is so", "is_for_speed": False}
    assert facts["rounds"] is None


def test_an_address_that_is_none_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--cloud", "ftp://host"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: unknown form of a cloud's address 'ftp://host'")


def test_a_cloud_in_order_is_status_0_and_one_line_for_a_program(
    capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    with running_cloud(MODEL) as (_, address):
        assert run(["doctor", "--cloud", address, "--draft", MODEL, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    facts = json.loads(out)
    assert facts["is_well"] is True
    assert facts["cloud"]["model"] == MODEL
    assert facts["rounds"]["num_accepted"] == facts["rounds"]["num_drafted"] > 0


def test_a_cloud_out_of_reach_is_status_1_and_one_clear_sentence(
    capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    port = free_port()
    assert run(["doctor", "--cloud", f"ws://127.0.0.1:{port}", "--draft", MODEL]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert f"failed cloud no cloud could be reached at ws://127.0.0.1:{port}/v1/session: nothing listens there" in (
        " ".join(out.split())
    )


def test_advice_from_a_trial_says_what_it_holds_for() -> None:
    checkup = made_up()
    assert "where the cloud sees all" not in shown(checkup)
    checkup.rounds = Rounds(0.01, 0.02, 0.03, 10, 5, 40.0)
    assert "--mode edge, where the cloud sees all that the device does: it is so" in " ".join(shown(checkup).split())


def test_without_anything_to_advise_there_is_no_such_section() -> None:
    checkup = made_up()
    checkup.decision = None
    assert "Advice" not in shown(checkup)
