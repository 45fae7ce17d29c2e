"""Scores of the shipped pair on speakers that it never learned from: `python -m training.evaluate`.

Choices are made on speakers 17 and 18; 17 to 20 are reported, by speaker and together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5OmniThinkerForConditionalGeneration

from skydraft.audio.voice import measure
from skydraft.engines.log_mel import load_level, load_log_mel
from skydraft.text.checkpoint import Checkpoint
from training import captions, judging
from training.architecture import ModelName
from training.captioner import Writer
from training.captions import Traits
from training.clips import EMOTIONS, Clip, read_clips, split_of
from training.conditions import CONDITIONS, GAINS_DB, PLAIN, TELEPHONE

MODELS = Path(__file__).parents[1] / "src" / "skydraft" / "models"
RESULTS = Path(__file__).parents[1] / "bench" / "results" / "captions.json"
REPORTED = range(17, 21)
_MAX_NEW_TOKENS = 64
_BATCH_SIZE = 24

Pair = Mapping[ModelName, Path]
Features = dict[str, list[torch.Tensor]]  # by condition: float32 [num_frames, 80] of each clip


def hear(clips: Sequence[Clip], folder: Path, conditions: Iterable[str]) -> Features:
    """What models hear of the clips, with the features that ship."""
    checkpoint = Checkpoint.open(folder)
    log_mel, level = load_log_mel(checkpoint), load_level(checkpoint)
    assert level is not None

    def heard(clip: Clip, index: int, condition: str) -> torch.Tensor:
        sound = log_mel(CONDITIONS[condition](clip.samples(), np.random.default_rng([1, index])))
        return torch.from_numpy(level.values(np.frombuffer(sound.data, np.int8).reshape(sound.shape)).T.copy())

    return {name: [heard(clip, index, name) for index, clip in enumerate(clips)] for name in conditions}


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
        mels: float32 [num_frames, 80] of each clip.
    """
    return [
        text
        for start in range(0, len(mels), _BATCH_SIZE)
        for text in _write_batch(model, tokenizer, mels[start : start + _BATCH_SIZE])
    ]


def _write_batch(
    model: Qwen2_5OmniThinkerForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, mels: Sequence[torch.Tensor]
) -> list[str]:
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


class Judge:
    """Scores captions of some clips."""

    def __init__(self, clips: Sequence[Clip], limits: captions.Thresholds) -> None:
        self.actors = np.array([clip.actor for clip in clips])
        self._truths = [clip.emotion for clip in clips]
        self._facts: list[Traits] = [captions.traits(clip, measure(clip.samples()), limits) for clip in clips]

    def right(self, written: Sequence[str]) -> np.ndarray:
        """Whether each caption names the emotion that was meant: bool [num_clips]."""
        return np.array([captions.emotion_of(text) == truth for text, truth in zip(written, self._truths, strict=True)])

    def score(self, written: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Everything that is measured of one model, from its captions by condition."""
        right = {name: self.right(texts) for name, texts in written.items()}
        named = [captions.emotion_of(text) for text in written[PLAIN]]
        plain = right[PLAIN]
        return {
            "emotion": self._share(plain),
            "by_speaker": {int(a): float(plain[self.actors == a].mean()) for a in np.unique(self.actors)},
            "by_condition": {name: self._share(values) for name, values in right.items()},
            "points_lost": {
                name: self._share(plain.astype(float) - values) for name, values in right.items() if name != PLAIN
            },
            "constant_caption": max(self._truths.count(emotion) for emotion in EMOTIONS) / len(self._truths),
            "shuffled_captions": judging.shuffled_right(named, self._truths),
            "facts_right": judging.facts_right(written[PLAIN], self._facts),
            "confusion": judging.confusion(named, self._truths),
            "captions": list(written[PLAIN]),
        }

    def gap(self, target: Mapping[str, Sequence[str]], draft: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """By condition: the share of clips that the target names and the draft does not, less the reverse."""
        return {name: self._share(self.right(target[name]).astype(float) - self.right(draft[name])) for name in target}

    def _share(self, values: np.ndarray) -> dict[str, float]:
        return judging.share(values, self.actors)._asdict()


def score_pair(pair: Pair, speech: Path, actors: Iterable[int], conditions: Sequence[str]) -> dict[str, Any]:
    """Both models' scores and the gap between them, as plain numbers."""
    everyone = read_clips(speech)
    clips = [clip for clip in everyone if clip.actor in actors]
    judge = Judge(clips, _limits(everyone))
    heard = hear(clips, pair["draft"], conditions)
    written: dict[str, dict[str, list[str]]] = {}
    scores: dict[str, Any] = {}
    for name, folder in pair.items():
        model, tokenizer = load(folder)
        written[name] = {condition: write_captions(model, tokenizer, mels) for condition, mels in heard.items()}
        scores[name] = {"num_parameters": model.num_parameters(), **judge.score(written[name])}
    return {**scores, "gap": judge.gap(written["target"], written["draft"]), "num_clips": len(clips)}


def over_seeds(scores: Sequence[Mapping[str, Any]], speech: Path) -> dict[str, judging.Share]:
    """What pairs that differ in their seeds alone reach on average, as recorded: target, draft, and the gap.

    Args:
        scores: of `score_pair`, on speakers that are reported.
    """
    clips = [clip for clip in read_clips(speech) if clip.actor in REPORTED]
    actors, truths = np.array([clip.actor for clip in clips]), [clip.emotion for clip in clips]
    right: dict[str, np.ndarray] = {}
    for name in ("target", "draft"):
        named = [[captions.emotion_of(text) for text in each[name]["captions"]] for each in scores]
        right[name] = np.mean([np.array(of_seed) == np.array(truths) for of_seed in named], axis=0)
    right["gap"] = right["target"] - right["draft"]
    return {name: judging.share(values, actors) for name, values in right.items()}


def _limits(clips: Sequence[Clip]) -> captions.Thresholds:
    train = [clip for clip in clips if split_of(clip.actor) == "train"]
    return captions.thresholds(train, [measure(clip.samples()) for clip in train])


def claims(scores: Mapping[str, Any]) -> dict[str, float]:
    """The numbers by which the pair is judged."""
    found = {
        "target_right": scores["target"]["emotion"]["value"],
        "draft_right": scores["draft"]["emotion"]["value"],
        "gap": scores["gap"][PLAIN]["value"],
        "gap_low": scores["gap"][PLAIN]["low"],
    }
    lost = [scores[name]["points_lost"] for name in get_args(ModelName)]
    if TELEPHONE in scores["gap"]:  # all conditions were measured
        gains = [f"{gain_db:+d} dB" for gain_db in GAINS_DB]
        found["gain_loss_max"] = max(100 * of_model[gain]["value"] for of_model in lost for gain in gains)
        found["telephone_loss"] = max(100 * of_model[TELEPHONE]["value"] for of_model in lost)
    return found


def main() -> None:
    """Score a pair and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--models", type=Path, default=MODELS, help="a folder with `draft` and `target`")
    parser.add_argument("--tune", action="store_true", help="speakers 17 and 18 alone: what choices are made on")
    parser.add_argument(
        "--kept", type=Path, help="scores that `python -m training` kept: what all seeds reach on average"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.kept is not None:
        scores_of_seeds = json.loads(options.kept.read_text(encoding="utf-8"))["seeds"].values()
        for name, share in over_seeds(list(scores_of_seeds), options.speech).items():
            print(f"{name} over {len(scores_of_seeds)} seeds: {interval(share._asdict())}")
        return
    pair: Pair = {name: options.models / name for name in get_args(ModelName)}
    scores = score_pair(pair, options.speech, range(17, 19) if options.tune else REPORTED, list(CONDITIONS))
    print(json.dumps(scores, indent=1) if options.json else table(scores))


def write_results(scores: Mapping[int, Mapping[str, Any]], path: Path = RESULTS) -> None:
    """Keep the scores of every seed's pair; the first ships."""
    kept = {
        str(seed): {"claims": claims(numbers) if "gap" in numbers else {}, **numbers}
        for seed, numbers in scores.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seeds": kept}, indent=1) + "\n", encoding="utf-8")


def table(scores: Mapping[str, Any]) -> str:
    """The scores as lines of text."""
    lines = [f"{name} {value:.3f}" for name, value in claims(scores).items()]
    for name in get_args(ModelName):
        numbers = scores[name]
        lines.append(f"{name}: {numbers['num_parameters'] / 1e6:.2f} million parameters")
        lines.append("  by speaker " + ", ".join(f"{a} {share:.1%}" for a, share in numbers["by_speaker"].items()))
        lines += [f"  {condition}: {interval(share)}" for condition, share in numbers["by_condition"].items()]
        constant, shuffled = numbers["constant_caption"], numbers["shuffled_captions"]
        lines.append(f"  constant caption {constant:.1%}, shuffled captions {shuffled:.1%}")
        lines.append("  right " + ", ".join(f"{fact} {part:.1%}" for fact, part in numbers["facts_right"].items()))
        lines += [f"  {truth:>10}: {_row(row)}" for truth, row in numbers["confusion"].items()]
    lines += [f"gap, {condition}: {interval(share)}" for condition, share in scores["gap"].items()]
    return "\n".join(lines)


def interval(share: Mapping[str, float]) -> str:
    """A share with its interval, in words."""
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _row(row: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(row.items(), key=lambda x: -x[1]) if count)


if __name__ == "__main__":
    main()
