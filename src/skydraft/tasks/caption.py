"""Captioning: the prompts that ask how the speaker sounds.

The strings are part of the embedded pair: it was trained on exactly these tokens, so a change here needs new weights.
"""

from __future__ import annotations

from msgspec.structs import replace

from skydraft.core import Prompt, SegmentKind, ShareLevel, TensorSegment, TokenSegment
from skydraft.tasks.base import Encode, PromptPair, prompt_pair
from skydraft.tasks.emotions import EMOTION_WORDS

NO_SPEECH = "No speech."  # the caption of a sound without any, which no model is asked about
INSTRUCTION = "Describe how the speaker sounds."
USER_BEGIN = "<|im_start|>user\n"
USER_END = "<|im_end|>\n<|im_start|>assistant\n"
AUDIO_BEGIN = "<|audio_bos|>"
AUDIO_END = "<|audio_eos|>"

BEFORE_AUDIO = f"{USER_BEGIN}{AUDIO_BEGIN}"
AFTER_AUDIO = f"{AUDIO_END}{INSTRUCTION}{USER_END}"
TEXT_ONLY = f"{USER_BEGIN}{INSTRUCTION}{USER_END}"


def audio_prompt(encode: Encode, features: TensorSegment, instruction: str = INSTRUCTION) -> Prompt:
    """The prompt of a model that hears the clip.

    Args:
        encode: text -> token ids; the special tokens above are one id each.
        features: log_mel [num_mel_bins, num_frames]; marked as evidence here, whatever it was marked before.
    """
    evidence = replace(features, kind=SegmentKind.EVIDENCE)
    texts = BEFORE_AUDIO, AFTER_AUDIO.replace(INSTRUCTION, instruction)
    before, after = (TokenSegment(tuple(encode(text))) for text in texts)
    return Prompt((before, evidence, after))


def caption_prompts(
    encode: Encode, features: TensorSegment, share: ShareLevel, instruction: str = INSTRUCTION
) -> PromptPair:
    """Build both sides' prompts for one clip.

    Args:
        encode: text -> token ids, the same for both sides: draft and target share a vocabulary.
        features: log_mel [num_mel_bins, num_frames] of at most 30 s.
        share: `none`: the cloud gets no prompt; `tokens`: the instruction alone; `features`: the same as the edge.
        instruction: what is to be said of it.
    """
    text_only = Prompt((TokenSegment(tuple(encode(TEXT_ONLY.replace(INSTRUCTION, instruction)))),))
    return prompt_pair(audio_prompt(encode, features, instruction), text_only, share)


def emotion_tokens(encode: Encode) -> dict[int, str]:
    """The tokens with which a word for an emotion begins within a caption, and the emotion of each."""
    return {encode(f" {word}")[0]: emotion for emotion, words in EMOTION_WORDS.items() for word in words}
