import json

from skydraft.cli.results import as_json, pieces_of, result_of_clip, result_of_text, to_line
from skydraft.core import Mode, ShareLevel, Token, TokenLogprobs
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.report import Unasked, unwritten
from skydraft.text.tokenizer import UNFINISHED
from tests.cli.made_up import (
    ACCEPTED,
    BYTES,
    CLOUD,
    CORRECTED,
    EDGE,
    TOKENIZER,
    features_record,
    pieces,
    record,
    report,
)


def test_token_texts_concatenate_to_the_text() -> None:
    result = result_of_text(report((1, 2, 3, 5), (EDGE, ACCEPTED, CORRECTED, CLOUD)))
    assert "".join(piece.text for piece in result.pieces) == result.text == TOKENIZER.decode((1, 2, 3, 5))
    assert [piece.origin for piece in result.pieces] == [EDGE, ACCEPTED, CORRECTED, CLOUD]


def test_a_character_of_several_tokens_belongs_to_its_last() -> None:
    parts = pieces_of(report(pieces=pieces(BYTES, [Token(byte, EDGE) for byte in "aé".encode()])))
    assert [piece.text for piece in parts] == ["a", "", "é"]


def test_an_unfinished_character_at_the_end_is_not_lost() -> None:
    parts = pieces_of(report(pieces=pieces(BYTES, [Token(byte, EDGE) for byte in "aé".encode()[:-1]])))
    assert [piece.text for piece in parts] == ["a", UNFINISHED]


def test_a_text_without_tokens_has_no_pieces() -> None:
    assert pieces_of(report(())) == []


def test_json_has_the_promised_keys_and_values() -> None:
    made = report((1, 5), (EDGE, ACCEPTED), reconnects=1)
    assert as_json({"file": "a.wav"}, result_of_text(made)) == {
        "file": "a.wav",
        "text": "be",
        "mode": "hybrid",
        "seed": None,
        "tokens": [{"id": 1, "text": "be", "origin": "edge"}, {"id": 5, "text": "", "origin": "accepted"}],
        "first_token_s": 0.25,
        "total_s": 1.5,
        "rounds": 2,
        "offered": 4,
        "accepted": 1,
        "reconnects": 1,
        "is_alone": False,
        "is_cloud_text": True,
        "near_ties": 0,
        "ended_early": None,
        "finish": "stop",
        "stop": None,
        "unasked": None,
        "undrafted": None,
        "bytes": {"up": {"prompt": 80, "drafts": 20}, "down": {"verdicts": 8}},
        "disclosure": {
            "share": "tokens",
            "has_evidence": False,
            "windows_with_evidence": 0,
            "contents": {"instruction text": 1, "drafts of the caption or text": 2},
        },
    }


def test_json_says_why_a_cloud_was_not_asked_about_any_window() -> None:
    def said(*unasked: Unasked | None) -> object:
        windows = [CaptionedWindow(0.0, 1.0, report(unasked=why)) for why in unasked]
        return as_json({}, result_of_clip(windows))["unasked"]

    assert said(Unasked.SURE, Unasked.SURE) == "sure"
    assert said(Unasked.DEAF) == "deaf"
    assert said(Unasked.SURE, None) is None


def test_json_tells_log_probabilities_that_were_asked_for() -> None:
    told = TokenLogprobs(-0.5, ((7, -0.25),))
    made = report(pieces=pieces(TOKENIZER, [Token(1, EDGE, told), Token(2, EDGE)]))
    first, second = json.loads(to_line(as_json({}, result_of_text(made))))["tokens"]
    assert (first["logprob"], first["top_logprobs"]) == (-0.5, [{"id": 7, "logprob": -0.25}])
    assert "logprob" not in second


def test_json_says_when_evidence_left() -> None:
    shown = json.loads(to_line(as_json({}, result_of_text(report(disclosure=features_record())))))
    assert shown["disclosure"]["has_evidence"] is True
    assert shown["disclosure"]["windows_with_evidence"] == 1
    assert shown["disclosure"]["share"] == "features"


def test_json_is_one_line_of_ascii_that_holds_any_file_name() -> None:
    line = to_line({"file": "caf\udcc3\n\x1b[31m.wav", "text": "日本"})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"file": "caf\udcc3\n\x1b[31m.wav", "text": "日本"}


def test_windows_are_the_clouds_own_together_and_their_near_ties_are_added() -> None:
    def joined(*facts: tuple[bool, int | None]) -> tuple[bool, int | None]:
        reports = [report(is_cloud_text=is_own, num_near_ties=count) for is_own, count in facts]
        result = result_of_clip([CaptionedWindow(0.0, 1.0, made) for made in reports])
        return result.is_cloud_text, result.num_near_ties

    assert joined((True, 0), (True, 0)) == (True, 0)
    assert joined((True, 0), (False, 2), (False, 1)) == (False, 3)
    assert joined((False, 2), (False, None)) == (False, None)


def test_windows_are_joined_into_one_result() -> None:
    windows = [
        CaptionedWindow(0.0, 29.5, report((1, 2), (EDGE,))),
        CaptionedWindow(29.5, 50.0, unwritten("No speech.", Mode.HYBRID, ShareLevel.TOKENS), has_speech=False),
        CaptionedWindow(50.0, 60.123456, report((3, 4), (CLOUD,), first_token_s=9.0, is_alone=True)),
    ]
    result = result_of_clip(windows)
    texts = [TOKENIZER.decode((1, 2)), "No speech.", TOKENIZER.decode((3, 4))]
    assert result.text == f"{texts[0]} {texts[2]}"
    assert "".join(piece.text for piece in result.pieces) == result.text
    assert [piece.token_id for piece in result.pieces] == [1, 2, 3, 4]
    assert (result.first_token_s, result.total_s, result.rounds, result.is_alone) == (0.25, 3.0, 4, True)
    assert (result.up, result.contents["drafts of the caption or text"]) == ({"prompt": 160, "drafts": 40}, 4)
    nobody_knows = {"emotion": None, "confidence": None, "is_sure": None}
    assert as_json({}, result)["windows"] == [
        {"start_s": 0.0, "end_s": 29.5, "text": texts[0], "speech": True, **nobody_knows},
        {"start_s": 29.5, "end_s": 50.0, "text": "No speech.", "speech": False, **nobody_knows},
        {"start_s": 50.0, "end_s": 60.123, "text": texts[2], "speech": True, **nobody_knows},
    ]


def test_the_counters_of_a_report_are_left_as_they_were() -> None:
    made = record()
    result_of_clip([CaptionedWindow(0, 1, report(disclosure=made))] * 2)
    assert made.up == {"prompt": 80, "drafts": 20}


def test_a_clip_of_one_window_has_no_windows() -> None:
    assert "windows" not in as_json({}, result_of_clip([CaptionedWindow(0, 3, report())]))


def test_a_clip_without_speech_says_so_and_nothing_left() -> None:
    silent = unwritten("No speech.", Mode.HYBRID, ShareLevel.FEATURES)
    windows = [CaptionedWindow(start_s, start_s + 8, silent, has_speech=False) for start_s in (0.0, 8.0)]
    shown = as_json({}, result_of_clip(windows))
    assert (shown["text"], shown["speech"], shown["emotion"], shown["tokens"]) == ("No speech.", False, None, [])
    assert (shown["summary"], shown["is_cloud_text"]) == ("no speech", False)
    assert shown["bytes"] == {"up": {}, "down": {}}


def test_json_names_the_emotion_of_each_window_and_of_the_whole() -> None:
    texts = ("A man sounds calm.", "He sounds furious.", "A man sounds relaxed.")
    windows = [CaptionedWindow(5.0 * n, 5.0 * n + 5, report(text=text)) for n, text in enumerate(texts)]
    shown = as_json({}, result_of_clip(windows))
    assert (shown["emotion"], shown["summary"]) == ("calm", "mostly calm, angry from 00:05 to 00:10")
    assert [window["emotion"] for window in shown["windows"]] == ["calm", "angry", "calm"]  # type: ignore[attr-defined]


def test_json_says_how_sure_the_device_is_of_each_window_and_of_all() -> None:
    measured = unwritten("Not sure of the emotion.", Mode.EDGE, ShareLevel.NONE)
    known = CaptionedWindow(0.0, 4.0, report(text="A man sounds sad."), is_sure=True, confidence=0.71234)
    shown = as_json({}, result_of_clip([known, CaptionedWindow(4.0, 6.0, measured, is_sure=False)]))
    assert shown["text"] == "A man sounds sad. Not sure of the emotion."
    assert (shown["emotion"], shown["confidence"], shown["is_sure"]) == ("sad", 0.712, False)
    windows = json.loads(to_line(shown))["windows"]
    assert [(each["confidence"], each["is_sure"]) for each in windows] == [(0.712, True), (None, False)]
    assert (
        shown["summary"]
        == "sad throughout; right about 7 times in 10; the voice is unlike those that the device knows 33% of the time"
    )
