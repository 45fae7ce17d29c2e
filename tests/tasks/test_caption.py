from __future__ import annotations

import pytest

from skydraft.core import Prompt, SegmentKind, ShareLevel, TensorSegment, TokenSegment
from skydraft.tasks import caption

LOG_MEL = TensorSegment("log_mel", "float16", (2, 3), bytes(range(12)))


def encode(text: str) -> list[int]:
    """One id a character: the text can be read back."""
    return [ord(character) for character in text]


def text_of(segment: TokenSegment) -> str:
    return "".join(chr(token_id) for token_id in segment.token_ids)


def layout(prompt: Prompt) -> list[str | TensorSegment]:
    return [text_of(segment) if isinstance(segment, TokenSegment) else segment for segment in prompt.segments]


def test_the_strings_are_those_that_the_embedded_pair_was_trained_on() -> None:
    assert caption.BEFORE_AUDIO == "<|im_start|>user\n<|audio_bos|>"
    assert caption.AFTER_AUDIO == ("<|audio_eos|>Describe how the speaker sounds.<|im_end|>\n<|im_start|>assistant\n")
    assert caption.TEXT_ONLY == "<|im_start|>user\nDescribe how the speaker sounds.<|im_end|>\n<|im_start|>assistant\n"


def test_the_audio_stands_between_its_marks() -> None:
    assert layout(caption.audio_prompt(encode, LOG_MEL)) == [caption.BEFORE_AUDIO, LOG_MEL, caption.AFTER_AUDIO]


def test_features_are_evidence_whatever_they_were_marked_as() -> None:
    marked = TensorSegment("log_mel", "float16", (2, 3), bytes(12), SegmentKind.INSTRUCTION)
    kinds = [segment.kind for segment in caption.audio_prompt(encode, marked).segments]
    assert kinds == [SegmentKind.INSTRUCTION, SegmentKind.EVIDENCE, SegmentKind.INSTRUCTION]


def test_share_none_gives_the_cloud_no_prompt() -> None:
    pair = caption.caption_prompts(encode, LOG_MEL, ShareLevel.NONE)
    assert pair == (caption.audio_prompt(encode, LOG_MEL), None)


def test_share_tokens_gives_the_cloud_the_instruction_without_evidence() -> None:
    edge, cloud = caption.caption_prompts(encode, LOG_MEL, ShareLevel.TOKENS)
    assert edge == caption.audio_prompt(encode, LOG_MEL)
    assert cloud is not None
    assert layout(cloud) == [caption.TEXT_ONLY]
    assert not cloud.has_evidence


def test_share_features_gives_both_sides_the_same() -> None:
    edge, cloud = caption.caption_prompts(encode, LOG_MEL, ShareLevel.FEATURES)
    assert edge == cloud == caption.audio_prompt(encode, LOG_MEL)


@pytest.mark.parametrize("share", ShareLevel)
def test_the_device_hears_at_every_share_level(share: ShareLevel) -> None:
    assert caption.caption_prompts(encode, LOG_MEL, share).edge.has_evidence


def test_a_word_for_an_emotion_is_known_by_its_first_token_within_a_sentence() -> None:
    def words(text: str) -> list[int]:
        return [hash(text), 0]

    ids = caption.emotion_tokens(words)
    assert ids[hash(" happy")] == ids[hash(" cheerful")] == "happy"
    assert hash("happy") not in ids
    assert 0 not in ids
    assert len(ids) == 15


def test_another_instruction_stands_in_the_place_of_the_usual_one() -> None:
    prompts = caption.caption_prompts(encode, LOG_MEL, ShareLevel.TOKENS, "Who speaks?")
    assert prompts.cloud is not None
    assert layout(prompts.cloud) == [caption.TEXT_ONLY.replace(caption.INSTRUCTION, "Who speaks?")]
    assert layout(prompts.edge)[-1] == caption.AFTER_AUDIO.replace(caption.INSTRUCTION, "Who speaks?")
