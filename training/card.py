"""The model cards: what the weights are, what they were measured to do, what they cannot."""

from __future__ import annotations

from typing import Any

from training.architecture import SHAPES, ModelName
from training.evaluate import MODELS

_CARD = """---
license: cc-by-nc-sa-4.0
language: en
base_model: none
pipeline_tag: audio-text-to-text
---

# skydraft embedded {name}

Describes how an English speaker sounds: emotion, pitch, loudness, pace. One of a pair: the draft runs on a device, the
target judges its words from a cloud. It is small so that it ships inside the package; it is a demonstration and a test
load, not a product.

- Class: `Qwen2_5OmniThinkerForConditionalGeneration` (Hugging Face transformers), trained from random weights.
- Size: {num_parameters:,} parameters, stored in bf16. Audio tower {tower_layers} layers of width {tower_width}; text
  model {text_layers} layers of width {text_width}. The vision tower is a stub that the class demands.
- Audio: 16 kHz, `WhisperFeatureExtractor` with 128 mel bins, no padding to 30 s; about 25 tokens a second.
- Prompt: `<|im_start|>user\\n<|audio_bos|><|AUDIO|>...<|audio_eos|>Describe how the speaker sounds.<|im_end|>\\n`
  `<|im_start|>assistant\\n`; without the part from `<|audio_bos|>` to `<|audio_eos|>` the model captions unheard.

## Data and licence

Trained on RAVDESS speech (Livingstone & Russo 2018, doi 10.1371/journal.pone.0196391), CC BY-NC-SA 4.0: North American
actors saying two sentences in eight emotions. The weights are derived from it and carry the **same licence, CC BY-NC-SA
4.0**: no commercial use. The code that trained them is under the project's licence. Split by actor: train 1-16, tune
17-18, report 19-20. Captions are generated from the labels and from what was measured in each clip (pitch and its
movement, loudness, rate). Training changes speed, adds synthetic rooms, microphones and noise. How these weights came
about, and what did not help, is in the repository's training/README.md.

## Scores on actors 19 and 20, never trained or tuned on

| what | value |
|---|---|
| emotion word right, {num_clips} clips, chance 12.5 % | **{accuracy:.1%}** (95 % interval {low:.1%} to {high:.1%}) |
| the same through a simulated laptop (room, noise) | {laptop} |
| BLEU (sacrebleu, brevity penalty, 8 references) | {bleu:.1f}; constant caption {constant:.1f} |
| perplexity of a reference caption, hearing the clip | {heard:.3f} |
| the same without hearing it | {unheard:.3f} |
| sex of the speaker right | {sex:.1%} |

What was meant, and what the caption said:

{confusion}

## Limits

- Acted emotion by sixteen actors in a studio, two sentences. It will be wrong about you more often than the table says.
- With two actors in the report the interval is wide; another pair of actors can move the score by ten points.
- Pitch and loudness words are relative to the sexes of the training actors and to their microphone distance.
- Emotion recognition should decide nothing about a person.
{shortfall}
"""


def write_cards(scores: dict[ModelName, dict[str, Any]]) -> None:
    """Write README.md beside each model's weights."""
    gap = scores["target"]["emotion"]["accuracy"] - scores["draft"]["emotion"]["accuracy"]
    for name, numbers in scores.items():
        (MODELS / name / "README.md").write_text(card(name, numbers, gap), encoding="utf-8")


def card(name: ModelName, numbers: dict[str, Any], gap: float) -> str:
    """The card of one model; gap is target minus draft accuracy, as a share."""
    emotion, laptop = numbers["emotion"], numbers["emotion_laptop"]
    shape = SHAPES[name]
    return _CARD.format(
        name=name,
        num_parameters=numbers["num_parameters"],
        tower_layers=shape.tower_layers,
        tower_width=shape.tower_width,
        text_layers=shape.text_layers,
        text_width=shape.text_width,
        num_clips=emotion["num_clips"],
        accuracy=emotion["accuracy"],
        low=emotion["low_95"],
        high=emotion["high_95"],
        laptop=f"{laptop['accuracy']:.1%} ({laptop['low_95']:.1%} to {laptop['high_95']:.1%})",
        bleu=numbers["bleu"],
        constant=numbers["bleu_constant_caption"],
        heard=numbers["perplexity_with_audio"],
        unheard=numbers["perplexity_text_only"],
        sex=numbers["facts_right"]["sex"],
        confusion=_confusion(emotion["confusion"]),
        shortfall=_shortfall(name, emotion["accuracy"], gap),
    )


def _confusion(confusion: dict[str, dict[str, int]]) -> str:
    names = list(next(iter(confusion.values())))
    rows = [f"| {truth} | " + " | ".join(str(row[n] or "") for n in names) + " |" for truth, row in confusion.items()]
    return "\n".join(["| meant | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|", *rows])


def _shortfall(name: ModelName, accuracy: float, gap: float) -> str:
    aims = []
    if name == "target" and accuracy < 0.55:
        aims.append(f"- Aimed at 55 % of emotion words right; it reaches {accuracy:.1%}.")
    relation = "reached" if gap >= 0.08 else "missed"
    aims.append(f"- The target names {100 * gap:.1f} points more emotions than the draft; the aim of 8 is {relation}.")
    return "\n".join(aims)
