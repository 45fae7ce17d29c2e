from __future__ import annotations

import pytest

from skydraft.core import Prompt, SegmentKind, ShareLevel, TokenSegment
from skydraft.errors import ConfigError
from skydraft.tasks.chat import chat_prompts, context_prompt, text_prompt

DIARY = "Tuesday: saw the doctor."
ASKED = "What did I do on Tuesday?"


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def chatml(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def layout(prompt: Prompt) -> list[tuple[str, SegmentKind]]:
    parts = []
    for segment in prompt.segments:
        assert isinstance(segment, TokenSegment)
        parts.append(("".join(map(chr, segment.token_ids)), segment.kind))
    return parts


def test_a_base_model_gets_the_text_as_it_stands() -> None:
    assert layout(text_prompt(encode, " Once upon\n")) == [(" Once upon\n", SegmentKind.INSTRUCTION)]


def test_a_chat_format_is_encoded_as_a_whole() -> None:
    assert layout(text_prompt(encode, ASKED, chatml)) == [(chatml(ASKED), SegmentKind.INSTRUCTION)]


def test_the_context_stands_in_the_users_turn_before_the_request_as_evidence() -> None:
    assert layout(context_prompt(encode, ASKED, DIARY, chatml)) == [
        ("<|im_start|>user\n", SegmentKind.INSTRUCTION),
        (DIARY + "\n\n", SegmentKind.EVIDENCE),
        (ASKED + "<|im_end|>\n<|im_start|>assistant\n", SegmentKind.INSTRUCTION),
    ]


def test_the_context_of_a_base_model_is_the_first_segment() -> None:
    parts = layout(context_prompt(encode, ASKED, DIARY))
    assert parts == [(DIARY + "\n\n", SegmentKind.EVIDENCE), (ASKED, SegmentKind.INSTRUCTION)]


def test_a_request_that_repeats_words_of_the_format_is_still_placed_rightly() -> None:
    parts = layout(context_prompt(encode, "user", DIARY, chatml))
    assert parts[0][0] == "<|im_start|>user\n"
    assert parts[2][0] == "user<|im_end|>\n<|im_start|>assistant\n"


def test_share_tokens_keeps_the_context_from_the_cloud() -> None:
    edge, cloud = chat_prompts(encode, ASKED, ShareLevel.TOKENS, chatml, DIARY)
    assert edge == context_prompt(encode, ASKED, DIARY, chatml)
    assert cloud == text_prompt(encode, ASKED, chatml)
    assert edge.has_evidence
    assert not cloud.has_evidence
    assert not any("doctor" in part for part, _ in layout(cloud))


def test_share_features_gives_the_cloud_the_context() -> None:
    edge, cloud = chat_prompts(encode, ASKED, ShareLevel.FEATURES, chatml, DIARY)
    assert cloud == edge == context_prompt(encode, ASKED, DIARY, chatml)


@pytest.mark.parametrize("context", [None, "", DIARY])
def test_share_none_gives_the_cloud_nothing(context: str | None) -> None:
    assert chat_prompts(encode, ASKED, ShareLevel.NONE, chatml, context).cloud is None


@pytest.mark.parametrize("context", [None, ""])
@pytest.mark.parametrize("share", [ShareLevel.TOKENS, ShareLevel.FEATURES])
def test_without_a_context_both_sides_get_the_same(share: ShareLevel, context: str | None) -> None:
    edge, cloud = chat_prompts(encode, ASKED, share, chatml, context)
    assert edge == cloud == text_prompt(encode, ASKED, chatml)


@pytest.mark.parametrize("text", ["", " \n\t"])
@pytest.mark.parametrize("context", [None, DIARY])
def test_a_blank_prompt_is_refused(text: str, context: str | None) -> None:
    with pytest.raises(ConfigError, match="the prompt is blank"):
        chat_prompts(encode, text, ShareLevel.TOKENS, context=context)


@pytest.mark.parametrize(("render", "times"), [(lambda text: "constant", 0), (lambda text: text + text, 2)])
def test_a_format_that_does_not_hold_the_words_once_takes_no_context(render, times) -> None:
    with pytest.raises(ConfigError, match=f"repeats the user's words {times} times"):
        chat_prompts(encode, ASKED, ShareLevel.TOKENS, render, DIARY)
