from collections.abc import Sequence

import pytest
from rich.console import Console, RenderableType

from skydraft.cli.results import Result, result_of_clip, result_of_text
from skydraft.cli.summaries import (
    MEANINGS,
    STYLES,
    disclosure,
    legend,
    sent_so_far,
    summary,
    turn_summary,
)
from skydraft.core import Finish, Mode, Origin, ShareLevel
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.report import Unasked
from skydraft.policies.undrafted import Undrafted
from tests.cli.made_up import (
    ACCEPTED,
    CLOUD,
    EDGE,
    END_ID,
    console,
    features_record,
    printed,
    record,
    report,
)


def drawn(renderable: RenderableType, width: int = 80) -> str:
    stream = console(width=width)
    stream.print(renderable)
    return printed(stream)


def result(
    token_ids: Sequence[int] = (1, 2, 3, END_ID), origins: Sequence[Origin] = (ACCEPTED,), **facts: object
) -> Result:
    return result_of_text(report(token_ids, origins, **facts))


def luminance(triplet: Sequence[int]) -> float:
    channels = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in triplet]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


@pytest.mark.parametrize("origin", Origin)
def test_colours_can_be_read_on_black_and_on_white(origin: Origin) -> None:
    colour = Console().get_style(STYLES[origin]).color
    assert colour is not None
    light = luminance(colour.get_truecolor())
    assert (light + 0.05) / 0.05 > 3.7
    assert 1.05 / (light + 0.05) > 3.7


def test_each_origin_has_its_own_colour_and_meaning() -> None:
    assert len(set(STYLES.values())) == len(set(MEANINGS.values())) == len(Origin)


def test_the_legend_fits_and_names_every_origin() -> None:
    line = drawn(legend(), width=76)
    assert line.count("\n") == 1
    assert all(meaning in line for meaning in MEANINGS.values())


def test_the_summary_counts_what_there_is() -> None:
    made = report((1, 2, 3), (EDGE, ACCEPTED), reconnects=1)
    assert summary(result_of_text(made)) == (
        "3 tokens (1 edge, 2 accepted); first after 0.25 s, all in 1.50 s (2.0 tokens/s); 2 rounds, 100 bytes up, "
        "8 down; 2 of 4 offered tokens accepted (50 %); the cloud's own text; 1 reconnect"
    )


def test_the_summary_does_not_count_an_end_token_that_nobody_sees() -> None:
    assert summary(result((1, 2, END_ID), (EDGE, EDGE, CLOUD))).startswith("2 tokens (2 edge); ")
    assert summary(result((1, 2, 3), (EDGE, EDGE, CLOUD))).startswith("3 tokens (2 edge, 1 cloud); ")
    assert summary(result((END_ID,), (CLOUD,))).startswith("0 tokens; first after 0.25 s, all in 1.50 s; ")
    windows = [CaptionedWindow(0.0, 8.0, report((1, END_ID))), CaptionedWindow(8.0, 16.0, report((2, END_ID)))]
    assert summary(result_of_clip(windows)).startswith("2 tokens (2 accepted); ")


def test_the_pace_of_a_fast_text_has_no_fraction() -> None:
    assert "all in 0.10 s (30 tokens/s); " in summary(result((1, 2, 3), (CLOUD,), total_s=0.1))


def test_the_summary_has_no_share_of_offers_where_there_were_none() -> None:
    assert "offered" not in summary(result((1,), (CLOUD,), num_drafted=0))


def test_the_summary_says_that_a_text_is_the_clouds_own_only_where_it_is() -> None:
    def said(is_own: bool, num_near_ties: int | None) -> str:
        return summary(result_of_text(report(is_cloud_text=is_own, num_near_ties=num_near_ties, num_drafted=0)))

    assert said(True, 0).endswith("; the cloud's own text")
    assert said(True, 2).endswith("; the cloud's own text")  # it wrote alone
    assert said(False, 2).endswith("; 2 near ties")
    assert said(False, None).endswith("8 down")


def test_the_summary_of_a_device_alone_has_no_traffic() -> None:
    assert "bytes" not in summary(result((1,), (EDGE,), mode=Mode.EDGE, disclosure=record(drafts=0)))


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (Unasked.DEAF, "; the cloud was not asked, for it could not hear: --share features lets it"),
        (Unasked.SURE, "; the cloud was not asked, for the device was sure"),
    ],
)
def test_the_summary_says_why_a_cloud_was_not_asked(why: Unasked, words: str) -> None:
    silent = DisclosureRecord(ShareLevel.TOKENS)
    assert summary(result((1,), (EDGE,), disclosure=silent, unasked=why)).endswith(words)


def test_the_summary_says_how_often_such_an_emotion_is_right() -> None:
    windows = [CaptionedWindow(0.0, 3.0, report((1,), (EDGE,), text="A man sounds sad."), confidence=0.71)]
    assert "; sad, right about 7 times in 10" in summary(result_of_clip(windows))
    assert "right about" not in summary(result_of_clip([windows[0]._replace(confidence=None)]))


@pytest.mark.parametrize("why", Undrafted)
def test_the_summary_explains_a_text_without_rounds(why: Undrafted) -> None:
    said = summary(result((1,), (CLOUD,), rounds=0, num_drafted=0, undrafted=why))
    assert "; 0 rounds, 100 bytes up, 8 down; drafting would not have helped" in said


def test_windows_are_undrafted_together() -> None:
    undrafted = report(rounds=0, undrafted=Undrafted.FAR)
    windows = [CaptionedWindow(0.0, 8.0, undrafted), CaptionedWindow(8.0, 16.0, undrafted)]
    assert result_of_clip(windows).undrafted is Undrafted.FAR
    windows.append(CaptionedWindow(16.0, 20.0, report()))
    assert result_of_clip(windows).undrafted is None


def test_the_disclosure_names_what_left() -> None:
    assert disclosure(result()) == (
        "Left the device: the instruction and the words of 2 drafts, 100 bytes. The sound and its features stayed."
    )
    assert disclosure(result(disclosure=features_record())) == (
        "Left the device: log_mel [128, 300] float16, from which speech can be reconstructed; in all 76,880 bytes."
    )
    windows = [
        CaptionedWindow(0.0, 8.0, report(disclosure=record)) for record in (features_record(), features_record())
    ]
    windows.append(CaptionedWindow(8.0, 16.0, report(disclosure=DisclosureRecord(ShareLevel.FEATURES))))
    assert disclosure(result_of_clip(windows)).startswith("Left the device: the evidence of 2 of 3 windows, ")
    nothing = record()
    nothing.up.clear()
    assert disclosure(result(disclosure=nothing)) == "Nothing left the device."


def test_an_answer_of_a_chat_is_summed_up_by_who_wrote_it() -> None:
    told = turn_summary(result((1, 2, 3, 4), (ACCEPTED, ACCEPTED, ACCEPTED, CLOUD), total_s=0.1), 128)
    assert told == "40 tokens/s; 25 % by the cloud, 75 % drafted here; 100 bytes left"
    alone = result((1, 2), (EDGE,), disclosure=DisclosureRecord(ShareLevel.NONE), finish=Finish.LENGTH)
    assert turn_summary(alone, 2) == (
        "1.3 tokens/s; 100 % by this device alone; nothing left this device; ended at --max-tokens 2"
    )
    cut = result((1,), (EDGE,), finish=Finish.LENGTH, ended_early="full")
    assert "ended at" not in turn_summary(cut, 128)
    assert turn_summary(result((END_ID,)), 128) == "100 bytes left"


def test_what_left_so_far_is_said_by_kind() -> None:
    assert sent_so_far(DisclosureRecord(ShareLevel.TOKENS)) == "Nothing has left this device."
    assert sent_so_far(record()) == (
        "100 bytes have left this device, in messages: 1 of instruction text, 2 of drafts of the caption or text."
    )
