"""Prompts of Qwen2.5-Omni thinkers: where sound stands in them, and what of it the audio tower hears."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skydraft.core import Prompt, TensorSegment, TokenSegment
from skydraft.engines.log_mel import LEVELLED_NAME, MAX_VALUE, MIN_FRAMES, NAME, Level
from skydraft.errors import ModelLoadError, PromptRejected
from skydraft.text.checkpoint import Checkpoint

THINKER_TYPES = ("qwen2_5_omni", "qwen2_5_omni_thinker")
_NUMPY_DTYPES = {"float16": "<f2", "float32": "<f4", "int8": "i1"}


class AudioIds(NamedTuple):
    """Token ids. placeholder: of an entry of sound. start, end: between which sound stands."""

    placeholder: int
    start: int
    end: int


class Sound(NamedTuple):
    """What a prompt's entries from `start` on stand for. features: [num_mel_bins, num_frames], as the tower hears."""

    start: int
    num_tokens: int
    features: npt.NDArray[np.float32]


class OmniPrompts:
    """Reads the prompts of a thinker.

    In a prompt, a tensor "log_mel" or, of a model with a level, "levelled_log_mel", [num_mel_bins, num_frames] stands
    between the tokens <|audio_bos|> and <|audio_eos|>; its entries, one for about four frames, are inserted here.

    Args:
        name: of the model, for error messages.
        level: of a model that was trained on levelled log-mel.
    """

    def __init__(self, name: str, ids: AudioIds, num_mel_bins: int, level: Level | None) -> None:
        self._name = name
        self._ids = ids
        self._num_mel_bins = num_mel_bins
        self._level = level

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The prompt as entries of a slot: one id each, placeholders for sound.

        Raises:
            PromptRejected: it has a tensor that the model does not hear, or sound out of its place.
        """
        token_ids: list[int] = []
        for segment in prompt.segments:
            match segment:
                case TokenSegment():
                    token_ids += segment.token_ids
                case TensorSegment():
                    token_ids += [self._ids.placeholder] * self._num_audio_tokens(segment)
                    _require_log_mel(self._features(segment))
        self._require_framed(prompt, token_ids)
        return token_ids

    def sounds(self, prompt: Prompt) -> list[Sound]:
        """The sounds of a prompt that `token_ids` has taken."""
        return [
            Sound(start, self._num_audio_tokens(segment), self._features(segment))
            for start, segment in self._tensors(prompt)
        ]

    def _tensors(self, prompt: Prompt) -> list[tuple[int, TensorSegment]]:
        """Each with the index of its first entry."""
        found, start = [], 0
        for segment in prompt.segments:
            if isinstance(segment, TensorSegment):
                found.append((start, segment))
                start += self._num_audio_tokens(segment)
            else:
                start += len(segment.token_ids)
        return found

    def _features(self, segment: TensorSegment) -> npt.NDArray[np.float32]:
        stored = np.frombuffer(segment.data, _NUMPY_DTYPES[segment.dtype]).reshape(segment.shape)
        return stored.astype(np.float32) if self._level is None else self._level.values(stored)

    def _num_audio_tokens(self, segment: TensorSegment) -> int:
        name, dtypes = (NAME, ("float16", "float32")) if self._level is None else (LEVELLED_NAME, ("int8",))
        is_heard = segment.name == name and segment.dtype in dtypes
        has_shape = len(segment.shape) == 2 and segment.shape[0] == self._num_mel_bins
        if not is_heard or not has_shape or segment.shape[1] < MIN_FRAMES:
            raise PromptRejected(
                f"{self._name} hears {name} [{self._num_mel_bins}, at least {MIN_FRAMES} frames] in "
                f"{' or '.join(dtypes)}, and the prompt has {segment.name} {list(segment.shape)} in {segment.dtype}"
            )
        return ((segment.shape[1] - 1) // 2 + 1 - 2) // 2 + 1  # two strides of 2: a convolution and a pooling

    def _require_framed(self, prompt: Prompt, token_ids: list[int]) -> None:
        num_entries = 0
        for start, segment in self._tensors(prompt):
            num_tokens = self._num_audio_tokens(segment)
            before, after = token_ids[:start][-1:], token_ids[start + num_tokens :][:1]
            if before != [self._ids.start] or after != [self._ids.end]:
                raise PromptRejected(
                    f"sound must stand between the tokens {self._ids.start} and {self._ids.end} and stands between "
                    f"{before or 'nothing'} and {after or 'nothing'}"
                )
            num_entries += num_tokens
        if token_ids.count(self._ids.placeholder) != num_entries:
            raise PromptRejected(
                f"the prompt has the token {self._ids.placeholder}, which stands for sound: give features in its place"
            )


def require_thinker(checkpoint: Checkpoint) -> None:
    """Refuse other parts of Qwen2.5-Omni.

    Raises:
        ModelLoadError: naming the kind of model.
    """
    model_type = checkpoint.config.get("model_type")
    if model_type not in THINKER_TYPES:
        raise ModelLoadError(
            f"{checkpoint.name} is a {model_type}; of Qwen2.5-Omni skydraft runs the thinker, "
            f"{' or '.join(THINKER_TYPES)}"
        )


def _require_log_mel(features: npt.NDArray[np.float32]) -> None:
    """Refuse values that no sound has.

    Raises:
        PromptRejected: one is no number, or too large.
    """
    if not max(features.max(), -features.min()) <= MAX_VALUE:  # in this form, for a NaN fails every comparison
        raise PromptRejected(f"log_mel has values that are no numbers or beyond {MAX_VALUE:g}: it is not log-mel")
