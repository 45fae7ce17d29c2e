"""A user's own texts: kept where the user says so, readable, and bounded."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from skydraft.edge import kept_texts
from skydraft.edge.kept_texts import KeptText, KeptTexts
from skydraft.edge.own_texts import OwnTexts
from skydraft.errors import ConfigError


def test_texts_are_kept_as_lines_that_a_person_can_read_and_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    kept = KeptTexts(path)
    kept.add("Why?", "Because.\n")
    kept.add("Wie?", "Schön so.")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"prompt": "Why?", "text": "Because.\n"},
        {"prompt": "Wie?", "text": "Schön so."},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeptTexts(path).texts == kept.texts
    path.unlink()
    assert KeptTexts(path).texts == []


def test_the_same_question_has_the_last_answer_whatever_its_case_and_spaces(tmp_path: Path) -> None:
    kept = KeptTexts(tmp_path / "texts.jsonl")
    kept.add("What is  a Fjord?", "old")
    kept.add("what is a fjord?\n", "new")
    assert kept.answer(" WHAT IS A ﬁord?".replace("ﬁ", "fj")) == "new"
    assert kept.answer("What is a fjord") is None


def test_of_too_many_texts_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "texts.jsonl"
    kept = KeptTexts(path)
    for number in range(100):
        kept.add(f"question {number}", "x" * 20)
    num_bytes = path.stat().st_size
    monkeypatch.setattr(kept_texts, "MOST_BYTES", num_bytes - 1)
    again = KeptTexts(path)
    assert 40 < len(again.texts) < 60
    assert again.texts == kept.texts[-len(again.texts) :]
    assert path.stat().st_size <= num_bytes // 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_bound_holds_while_texts_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "texts.jsonl"
    monkeypatch.setattr(kept_texts, "MOST_BYTES", 1000)
    kept = KeptTexts(path)
    for number in range(200):
        kept.add(f"question {number}", "x" * 20)
        assert path.stat().st_size <= 1000
        assert kept.texts[-1].prompt == f"question {number}"
    assert 9 <= len(kept.texts) <= 20
    assert KeptTexts(path).texts == kept.texts
    path.unlink()  # its owner wants it forgotten
    kept.add("question", "answer")
    assert len(path.read_text().splitlines()) == 1


def test_a_text_that_would_push_out_all_others_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "texts.jsonl"
    monkeypatch.setattr(kept_texts, "MOST_BYTES", 1000)
    history = OwnTexts(path, lambda kept: list(map(ord, kept.prompt)))
    history.add("ab", "short")
    history.add("xy", "x" * 600)
    assert [kept.prompt for kept in KeptTexts(path).texts] == ["ab"]
    assert history.index.find([ord("x"), ord("y")], 1) == []


def test_a_file_that_is_none_is_refused_by_name_and_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"prompt": "a", "text": "b"}\nnot json\n')
    with pytest.raises(ConfigError, match=f"line 2 of the file of texts {path} is none"):
        KeptTexts(path)
    with pytest.raises(ConfigError, match="cannot be used: Is a directory"):
        KeptTexts(tmp_path)
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        KeptTexts(tmp_path / "none" / "texts").add("a", "b")


def test_an_index_has_the_texts_of_before_and_those_that_came_since(tmp_path: Path) -> None:
    def to_ids(kept: KeptText) -> list[int]:
        return [*map(ord, kept.prompt), *map(ord, kept.text)]

    OwnTexts(tmp_path / "texts", to_ids).add("ab", "cd")
    history = OwnTexts(tmp_path / "texts", to_ids)
    (match,) = history.index.find([ord("a"), ord("b")], 1)
    assert history.index.following(match.place, 9) == [ord("c"), ord("d")]
    history.add("xy", "z")
    assert history.index.find([ord("x"), ord("y")], 1)
    assert history.answer("XY") == "z"
