from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from skydraft.core import Prompt, SegmentKind, TensorSegment, TokenSegment
from skydraft.engines.base import Extension
from skydraft.engines.huggingface import omni
from skydraft.engines.huggingface.slot_engine import SlotEngine
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.log_mel import load_log_mel
from skydraft.errors import CacheOverflow, ModelLoadError, PromptRejected
from skydraft.text.checkpoint import Role, find_checkpoint
from tests.engines import contract
from tests.engines.folders import AUDIO_BOS_ID, AUDIO_EOS_ID, AUDIO_ID, NUM_MEL_BINS
from tests.engines.hugging_face import thinker
from tests.engines.operations import RandomOperations, text_prompt

Start = Callable[..., SlotEngine]


@pytest.fixture(scope="module")
def model(saved: Callable[[str], Path]) -> Qwen2_5OmniThinkerForConditionalGeneration:
    return thinker(saved("omni"))


@pytest.mark.parametrize("role", ["draft", "target"])
def test_the_embedded_pair_hears_as_hugging_face_does(role: Role) -> None:
    checkpoint = find_checkpoint("embedded", role)
    if not (checkpoint.folder / "model.safetensors").is_file():
        pytest.skip(f"the embedded {role} has no weights yet")
    tokenizer = load_tokenizer("embedded", role)
    samples = np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * np.float32(0.1)
    sound = load_log_mel(find_checkpoint("embedded", role))(samples)
    bos, eos = (tokenizer.token_id(token) for token in ("<|audio_bos|>", "<|audio_eos|>"))
    assert bos is not None
    assert eos is not None
    prompt = Prompt((TokenSegment((bos,)), sound, TokenSegment((eos, 20, 21))))
    expected = from_scratch(thinker(checkpoint.folder), prompt, [])[-1]
    logits = load_engine("embedded", role).open(prompt).logits
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def log_mel(num_frames: int, seed: int = 0, dtype: str = "float16") -> TensorSegment:
    features = np.random.default_rng(seed).uniform(-1.5, 1.5, (NUM_MEL_BINS, num_frames)).astype(dtype)
    return TensorSegment("log_mel", dtype, features.shape, features.tobytes())


def heard(sound: TensorSegment, instruction: tuple[int, ...] = (20, 21), before: tuple[int, ...] = (9,)) -> Prompt:
    return Prompt(
        (
            TokenSegment((*before, AUDIO_BOS_ID)),
            sound,
            TokenSegment((AUDIO_EOS_ID,), SegmentKind.EVIDENCE),
            TokenSegment(instruction),
        )
    )


def hugging_face_inputs(prompt: Prompt, audio_id: int = AUDIO_ID) -> dict[str, Any]:
    """What Qwen2_5OmniProcessor would give: placeholder ids, features padded to the longest, and their mask."""
    ids: list[int] = []
    features = []
    for segment in prompt.segments:
        if isinstance(segment, TokenSegment):
            ids += segment.token_ids
        else:
            frames = np.frombuffer(segment.data, segment.dtype).reshape(segment.shape).astype(np.float32)
            frames /= 64 if segment.name == "levelled_log_mel" else 1
            features.append(torch.from_numpy(frames))
            ids += [audio_id] * (((frames.shape[1] - 1) // 2 + 1 - 2) // 2 + 1)
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if features:
        longest = max(frames.shape[1] for frames in features)
        pad = [torch.nn.functional.pad(frames, (0, longest - frames.shape[1])) for frames in features]
        lengths = torch.tensor([frames.shape[1] for frames in features])
        inputs["input_features"] = torch.stack(pad)
        inputs["feature_attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
    return inputs


def from_scratch(model: Qwen2_5OmniThinkerForConditionalGeneration, prompt: Prompt, token_ids: list[int]) -> np.ndarray:
    inputs = hugging_face_inputs(prompt, model.config.audio_token_id)
    prompt_length = inputs["input_ids"].shape[1]
    model.model.rope_deltas = None  # state of the last call
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([token_ids], dtype=torch.long)], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        rows: np.ndarray = model(**inputs).logits[0, prompt_length - 1 :].numpy()
    return rows


# Around the tower's chunk of 40 frames, and around the roundings of its two strides.
@pytest.mark.parametrize("num_frames", [3, 4, 5, 6, 7, 39, 40, 41, 42, 43, 81, 130])
def test_logits_for_sound_equal_hugging_face(
    start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration, num_frames: int
) -> None:
    prompt = heard(log_mel(num_frames))
    logits = start("omni", prefill_chunk=7).open(prompt).logits
    np.testing.assert_allclose(logits, from_scratch(model, prompt, [])[-1], atol=1e-5)


def test_float32_features_are_taken_too(start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    prompt = heard(log_mel(30, dtype="float32"))
    logits = start("omni").open(prompt).logits
    np.testing.assert_allclose(logits, from_scratch(model, prompt, [])[-1], atol=1e-5)


def test_levelled_features_travel_as_steps_and_are_heard_as_values(start: Start) -> None:
    steps = np.random.default_rng(0).integers(-96, 96, (NUM_MEL_BINS, 30)).astype(np.int8)
    values = (steps / 64).astype(np.float32)
    levelled = heard(TensorSegment("levelled_log_mel", "int8", steps.shape, steps.tobytes()))
    plain = heard(TensorSegment("log_mel", "float32", values.shape, values.tobytes()))
    assert torch.equal(start("levelled_omni").open(levelled).logits, start("omni").open(plain).logits)


def test_a_model_takes_the_features_that_it_was_trained_on_and_no_others(start: Start) -> None:
    steps = TensorSegment("levelled_log_mel", "int8", (NUM_MEL_BINS, 30), bytes(NUM_MEL_BINS * 30))
    with pytest.raises(PromptRejected, match=r"hears log_mel .* in float16 or float32, .* levelled_log_mel .* in int8"):
        start("omni").open(heard(steps))
    with pytest.raises(PromptRejected, match=r"hears levelled_log_mel .* in int8, .* has log_mel .* in float16"):
        start("levelled_omni").open(heard(log_mel(30)))


def test_two_sounds_in_a_prompt(start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    prompt = Prompt(heard(log_mel(30)).segments + heard(log_mel(50, seed=1)).segments)
    logits = start("omni").open(prompt).logits
    np.testing.assert_allclose(logits, from_scratch(model, prompt, [])[-1], atol=1e-5)


def test_what_is_heard_matters(start: Start) -> None:
    engine = start("omni", num_slots=2)
    one, other = (engine.open(heard(log_mel(30, seed))).logits for seed in (0, 1))
    assert float((one - other).abs().max()) > 0.1


@pytest.mark.parametrize(("seed", "fast_math"), [(1, False), (2, True)])
def test_texts_with_and_without_sound_through_random_operations(
    start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration, seed: int, fast_math: bool
) -> None:
    def make_prompt(random: np.random.Generator) -> Prompt:
        instruction = tuple(int(i) for i in random.integers(8, 64, random.integers(1, 6)))
        if random.random() < 0.3:
            return text_prompt(*instruction)
        return heard(log_mel(int(random.integers(3, 90)), int(random.integers(99))), instruction)

    RandomOperations(
        start("omni", num_slots=4, fast_math=fast_math),
        lambda prompt, token_ids: from_scratch(model, prompt, token_ids),
        seed,
        vocab_size=64,
        make_prompt=make_prompt,
    ).run(30)


def test_a_prompt_begins_with_what_another_slot_has_heard(start: Start) -> None:
    engine, sound = start("omni", num_slots=2), log_mel(30)
    prompts = heard(sound, (9, 10)), heard(sound, (9, 10, 11, 12))
    for num_reused in (5, engine.measure(prompts[0]) - 1):
        contract.check_that_a_prompt_begins_with_what_another_slot_has_read(engine, *prompts, num_reused)


def test_greedy_text_equals_generate(start: Start, model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    prompt = heard(log_mel(57))
    engine = start("omni")
    slot, logits = engine.open(prompt)
    written = [int(logits.argmax())]
    while len(written) < 20:
        written.append(int(engine.extend([Extension.chain(slot, written[-1:])])[0][0].argmax()))
    inputs = hugging_face_inputs(prompt)
    model.model.rope_deltas = None
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20, "eos_token_id": None, "pad_token_id": 0}
    texts = model.generate(**inputs, **options)  # type: ignore[misc]  # its self is a protocol that it does not meet
    assert written == texts[0, inputs["input_ids"].shape[1] :].tolist()


def test_the_state_on_the_model_object_does_not_matter(start: Start) -> None:
    engine = start("omni", num_slots=2)
    before = engine.open(heard(log_mel(30))).logits
    engine._model.model.model.rope_deltas = torch.tensor([[17]])
    assert torch.equal(engine.open(heard(log_mel(30))).logits, before)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt((log_mel(30),)), "must stand between"),
        (Prompt((TokenSegment((AUDIO_BOS_ID,)), log_mel(30))), "and nothing"),
        (Prompt((TokenSegment((9,)), log_mel(30), TokenSegment((AUDIO_EOS_ID,)))), r"stands between \[9\]"),
        (text_prompt(9, AUDIO_ID), "stands for sound"),
        (heard(log_mel(2)), "at least 3 frames"),
        (heard(TensorSegment("log_mel", "float16", (8, 30), bytes(480))), r"has log_mel \[8, 30\]"),
        (heard(TensorSegment("log_mel", "float16", (NUM_MEL_BINS,), bytes(2 * NUM_MEL_BINS))), r"has log_mel \[16\]"),
        (heard(TensorSegment("pixels", "float16", (NUM_MEL_BINS, 30), bytes(960))), "has pixels"),
        (heard(TensorSegment("log_mel", "float16", (NUM_MEL_BINS, 30), b"\xff\x7f" * 480)), "no numbers"),
        (heard(TensorSegment("log_mel", "float16", (NUM_MEL_BINS, 30), b"\x00\x7c" * 480)), "no numbers"),
        (heard(TensorSegment("log_mel", "float16", (NUM_MEL_BINS, 30), b"\x00\x60" * 480)), "beyond 8"),
        (Prompt(()), "no token"),
    ],
)
def test_prompts_that_the_model_cannot_take_are_rejected_and_take_no_slot(
    start: Start, prompt: Prompt, reason: str
) -> None:
    engine = start("omni", num_slots=1)
    with pytest.raises(PromptRejected, match=reason):
        engine.open(prompt)
    engine.open(text_prompt(9))


def test_a_sound_that_does_not_fit_is_refused_before_it_is_listened_to(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start("omni")
    monkeypatch.setattr(engine._model, "_listen", lambda _: pytest.fail("was listened to"))
    with pytest.raises(CacheOverflow, match="prompt has 105 tokens"):
        engine.open(heard(log_mel(400)))


def test_an_older_transformers_is_refused_with_what_it_takes(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omni, "load_weights", lambda *_: SimpleNamespace(model=SimpleNamespace()))
    with pytest.raises(ModelLoadError, match="omni0 needs transformers 5.21 or newer and 5.* is installed"):
        start("omni")
