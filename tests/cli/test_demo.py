from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from skydraft.cli.demo import NEXT, program
from skydraft.cli.demo_privacy import what_left
from skydraft.cli.demo_speed import Runner, verdict
from skydraft.cli.results import Result, result_of_text
from skydraft.core import Finish, ShareLevel
from skydraft.edge.border import DisclosureRecord
from skydraft.policies.undrafted import Undrafted
from tests.cli.made_up import ACCEPTED, CLOUD, CORRECTED, EDGE, END_ID, TOKENIZER, features_record, pieces, report

SLOW = report((1, 2, 3), (CLOUD,), total_s=3.0)


@pytest.mark.parametrize(
    ("total_s", "facts", "said"),
    [
        (1.3, {}, "2.3 x as fast, the same text."),
        (2.9, {}, "As fast (2.9 s), the same text."),
        (
            3.0,
            {"undrafted": Undrafted.SLOW_DRAFT},
            "As fast (3.0 s), the same text: drafting would not have helped, for the cloud writes a token before the "
            "device drafts one.",
        ),
        (3.5, {}, "Slower (3.5 s), the same text."),
    ],
)
def test_the_verdict_is_what_was_measured(total_s: float, facts: dict[str, object], said: str) -> None:
    assert verdict(SLOW, report((1, 2, 3), (ACCEPTED,), total_s=total_s, **facts)) == said


def test_the_verdict_does_not_hide_another_text() -> None:
    assert verdict(SLOW, report((1, 2, 4), (ACCEPTED,), total_s=1.0)) == "3.0 x as fast, NOT the same text."


def test_a_column_counts_while_the_text_comes_and_tells_the_pace_when_it_has_ended() -> None:
    runner = Runner("skydraft")
    for piece in pieces(TOKENIZER, report((1, 2), (ACCEPTED, CORRECTED)).tokens):
        runner.add([piece])
    assert runner.heading.plain == "skydraft  2 tokens"
    assert runner.text.plain == "be bi"
    assert len({str(span.style) for span in runner.text.spans}) == 2
    assert runner.end == ""
    runner.report = SLOW
    assert runner.end == ""
    runner.report = report((1, 2, 3), (CLOUD,), total_s=3.0, finish=Finish.LENGTH)
    assert runner.end == " ..."
    assert runner.heading.plain == "skydraft  3.0 s, 1 tokens/s"


def result(token_ids: tuple[int, ...], origins: tuple[object, ...], **facts: object) -> Result:
    return result_of_text(report((*token_ids, END_ID), (*origins, CLOUD), **facts))  # type: ignore[arg-type]


UNAIDED = result((1, 2, 3), (EDGE, EDGE, EDGE))


def test_nothing_left_where_the_device_was_sure() -> None:
    sure = result((1, 2, 3), (EDGE, EDGE, EDGE), disclosure=DisclosureRecord(ShareLevel.FEATURES))
    assert what_left(sure, UNAIDED) == "The device was sure. 0 bytes left; the voice did not."


def test_what_left_is_said_truly_with_the_word_that_was_corrected() -> None:
    heard = {"disclosure": features_record()}
    corrected = result((1, 4, 3), (ACCEPTED, CORRECTED, ACCEPTED), **heard)
    assert what_left(corrected, UNAIDED) == (
        'Unsure of "bi"; the cloud: "bu". 76,880 bytes left: features of the voice.'
    )
    for other in (result((1, 2, 3), (ACCEPTED,) * 3, **heard), result((4, 2), (CLOUD,) * 2, **heard)):
        assert what_left(other, UNAIDED).startswith("Unsure, and ")
    text = result((1, 2, 3), (ACCEPTED,) * 3)
    assert what_left(text, UNAIDED) == "100 bytes left; the voice did not."


def test_commands_to_try_next_are_those_of_this_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "skydraft"
    script.parent.mkdir()
    script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(shutil, "which", lambda name: str(script))
    assert program() == "skydraft"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert program() == "bin/skydraft"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/skydraft")
    assert program() == "bin/skydraft"
    monkeypatch.chdir("/usr")
    assert program() == str(script)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "skydraft" / "__main__.py")])
    assert program() == f"{sys.executable} -m skydraft"
    assert len(NEXT) == 3
