"""Scores of the shipped pair on actors it has never heard: `python -m training.evaluate --speech ../shared/speech`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import sacrebleu
import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniThinkerForConditionalGeneration

from training import captioner, captions
from training.architecture import ModelName
from training.captioner import Writer
from training.clips import EMOTIONS, Split
from training.features import NUM_MEL_BINS, Entry
from training.material import LAPTOP, Material, gather

MODELS = Path(__file__).parents[1] / "src" / "skydraft" / "models"
RESULTS = Path(__file__).parents[1] / "bench" / "results" / "captions.json"
_NUM_REFERENCES = 8
_MAX_NEW_TOKENS = 64
_BATCH_SIZE = 24


def load(folder: Path) -> tuple[Qwen2_5OmniThinkerForConditionalGeneration, PreTrainedTokenizerFast]:
    """Open a shipped folder; weights are stored in bf16 and computed with in fp32."""
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


@torch.no_grad()
def write_captions(
    model: Qwen2_5OmniThinkerForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, mels: Sequence[torch.Tensor]
) -> list[str]:
    """Caption clips greedily with the plain Hugging Face `generate`.

    Args:
        mels: float32 [num_frames, 128] of each clip.
    """
    prompts = [Writer(tokenizer).prompt_ids(((len(mel) - 1) // 2 + 1 - 2) // 2 + 1) for mel in mels]
    length, pad = max(map(len, prompts)), tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
    num_frames = torch.tensor([len(mel) for mel in mels])
    features = torch.nn.utils.rnn.pad_sequence(list(mels), batch_first=True).transpose(1, 2)
    model.model.rope_deltas = None
    written = model.generate(  # type: ignore[misc]  # its self is a protocol that its own models do not meet
        input_ids=ids,
        attention_mask=torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
        input_features=features,
        feature_attention_mask=(torch.arange(features.shape[2]) < num_frames[:, None]).long(),
        max_new_tokens=_MAX_NEW_TOKENS,
        do_sample=False,
    )
    return tokenizer.batch_decode(written[:, length:], skip_special_tokens=True)


def score(name: ModelName, material: Material, split: Split = "report", folder: Path | None = None) -> dict[str, Any]:
    """Everything that is measured of one model, as plain numbers."""
    model, tokenizer = load(folder or MODELS / name)
    clean, laptop = material.entries(split), material.entries(split, LAPTOP)
    heard = _captions(model, tokenizer, material, clean)
    noisy = _captions(model, tokenizer, material, laptop)
    references = [captions.references(material.facts(e), _NUM_REFERENCES, seed=e.clip_index) for e in clean]
    return {
        "num_parameters": model.num_parameters(),
        "emotion": emotion_scores(heard, [material.facts(e).emotion for e in clean]),
        "emotion_laptop": emotion_scores(noisy, [material.facts(e).emotion for e in laptop]),
        "bleu": bleu(heard, references),
        "bleu_constant_caption": _constant_bleu(material, references),
        "perplexity_with_audio": perplexity(model, tokenizer, material, clean, is_heard=True),
        "perplexity_text_only": perplexity(model, tokenizer, material, clean, is_heard=False),
        "facts_right": _facts_right(heard, references),
        "captions": heard,
    }


def emotion_scores(written: Sequence[str], truths: Sequence[str]) -> dict[str, Any]:
    """Accuracy of the emotion word with its 95 % interval, and who was taken for whom."""
    named = [captions.emotion_of(text) for text in written]
    num_right = sum(name == truth for name, truth in zip(named, truths, strict=True))
    low, high = wilson(num_right, len(truths))
    confusion = {truth: dict.fromkeys((*EMOTIONS, "none"), 0) for truth in EMOTIONS}
    for name, truth in zip(named, truths, strict=True):
        confusion[truth][name or "none"] += 1
    return {
        "accuracy": num_right / len(truths),
        "num_clips": len(truths),
        "low_95": low,
        "high_95": high,
        "confusion": confusion,
    }


def wilson(num_right: int, num_all: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    z, share = 1.96, num_right / num_all
    centre = (share + z * z / (2 * num_all)) / (1 + z * z / num_all)
    half = z / (1 + z * z / num_all) * math.sqrt(share * (1 - share) / num_all + z * z / (4 * num_all**2))
    return centre - half, centre + half


def bleu(written: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU with brevity penalty; references[i] are all the references of clip i."""
    return sacrebleu.corpus_bleu(list(written), [list(row) for row in zip(*references, strict=True)]).score


@torch.no_grad()
def perplexity(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    material: Material,
    entries: Sequence[Entry],
    is_heard: bool,
) -> float:
    """Perplexity per token of one reference caption for each clip, with the clip or without."""
    writer, total, num_tokens = Writer(tokenizer), 0.0, 0
    for entry in entries:
        text = captions.references(material.facts(entry), 1, seed=entry.clip_index)
        mel = _mel(material, entry)
        tokens = model.model.audio_tower(mel.T, feature_lens=torch.tensor([len(mel)])).last_hidden_state
        written = writer.rows(text, [len(tokens) if is_heard else 0])
        log_probs, ids = captioner.token_log_probs(model, written, tokens if is_heard else None)
        total -= float(log_probs.gather(1, ids[:, None]).sum())
        num_tokens += len(ids)
    return math.exp(total / num_tokens)


def _captions(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    material: Material,
    entries: Sequence[Entry],
) -> list[str]:
    starts = range(0, len(entries), _BATCH_SIZE)
    batches = [[_mel(material, entry) for entry in entries[start : start + _BATCH_SIZE]] for start in starts]
    return [text for mels in batches for text in write_captions(model, tokenizer, mels)]


def _mel(material: Material, entry: Entry) -> torch.Tensor:
    return torch.from_numpy(material.store.channels(entry)[:, :NUM_MEL_BINS].astype("float32"))


def _constant_bleu(material: Material, references: Sequence[Sequence[str]]) -> float:
    """BLEU of the best single sentence: of 40 train captions, the one that scores highest on the train split."""
    train = material.entries("train")[::12]
    known = [captions.references(material.facts(e), _NUM_REFERENCES, seed=e.clip_index) for e in train]
    best = max({row[0] for row in known[:40]}, key=lambda text: bleu([text] * len(known), known))
    return bleu([best] * len(references), references)


def _facts_right(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of captions that state the right sex."""

    def sex(text: str) -> bool:
        return bool({"woman", "she", "her"} & set(text.lower().replace(".", " ").split()))

    return {"sex": sum(sex(a) == sex(b[0]) for a, b in zip(written, references, strict=True)) / len(written)}


def main() -> None:
    """Score both models, print a table or JSON, and write bench/results/captions.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"))
    parser.add_argument("--split", default="report", choices=get_args(Split))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    material = gather(options.speech, options.cache)
    scores = {name: score(name, material, options.split) for name in get_args(ModelName)}
    if options.split == "report":
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(scores, indent=2) if options.json else table(scores))


def table(scores: dict[str, dict[str, Any]]) -> str:
    """The scores as lines of text."""
    lines = []
    for name, numbers in scores.items():
        lines.append(f"{name}: {numbers['num_parameters'] / 1e6:.2f} million parameters")
        for key in ("emotion", "emotion_laptop"):
            e = numbers[key]
            interval = f"95 % interval {e['low_95']:.1%} to {e['high_95']:.1%}"
            lines.append(f"  {key} {e['accuracy']:.1%} of {e['num_clips']} clips, {interval}")
        lines.append(f"  BLEU {numbers['bleu']:.1f}, constant caption {numbers['bleu_constant_caption']:.1f}")
        heard, unheard = numbers["perplexity_with_audio"], numbers["perplexity_text_only"]
        lines.append(f"  perplexity with audio {heard:.3f}, text only {unheard:.3f}")
        lines.append(f"  sex right {numbers['facts_right']['sex']:.1%}")
        lines += [f"  {truth:>10}: {_row(row)}" for truth, row in numbers["emotion"]["confusion"].items()]
    return "\n".join(lines)


def _row(row: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(row.items(), key=lambda x: -x[1]) if count)


if __name__ == "__main__":
    main()
