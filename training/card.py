"""The model cards: what the weights are, what they were measured to do, what they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from training.architecture import SHAPES, ModelName
from training.conditions import PLAIN
from training.evaluate import interval

_CARD = """---
license: cc-by-nc-sa-4.0
language: en
base_model: {base}
pipeline_tag: audio-text-to-text
---

# skydraft embedded {name}

Describes how an English speaker sounds: emotion, pitch, loudness, pace. One of a pair: the draft runs on a device, the
target judges its words from a cloud. It is small so that it ships inside the package; it is a demonstration and a test
load, not a product.

- Class: `Qwen2_5OmniThinkerForConditionalGeneration` (Hugging Face transformers),
  {origin}.
- Size: {num_parameters:,} parameters, stored in bf16. Audio tower {tower_layers} layers of width {tower_width}; text
  model {text_layers} layers of width {text_width}. The vision tower is a stub that the class demands.
- Audio: 16 kHz, `WhisperFeatureExtractor` with 80 mel bins, no padding to 30 s; about 25 tokens a second. The log-mel
  is then **levelled** and rounded, so that the distance of the microphone does not matter;
  `preprocessor_config.json` has the two numbers. In plain Hugging Face code:

      log_mel = extractor(samples, sampling_rate=16000, padding="do_not_pad", return_tensors="np").input_features
      log_mel = log_mel + 1 - numpy.percentile(log_mel.max(axis=1), extractor.level_percentile)
      input_features = numpy.rint(log_mel * extractor.steps_per_unit).clip(-127, 127) / extractor.steps_per_unit

- Prompt: `<|im_start|>user\\n<|audio_bos|><|AUDIO|>...<|audio_eos|>Describe how the speaker sounds.<|im_end|>\\n`
  `<|im_start|>assistant\\n`; without the part from `<|audio_bos|>` to `<|audio_eos|>` the model captions unheard.

## Data and licences

Trained on RAVDESS speech (Livingstone & Russo 2018, doi 10.1371/journal.pone.0196391), CC BY-NC-SA 4.0: North American
actors saying two sentences in eight emotions. The weights are derived from it and carry the **same licence, CC BY-NC-SA
4.0**: no commercial use.
{whisper}The code that trained them is under the project's
licence. Split by actor: train 1-16, choices on 17-18, report 17-20. Captions are generated from the labels and from
what was measured in each clip (pitch and its movement, loudness, rate). Training changes speed and level, adds rooms,
microphones, noise, telephones and codecs. How these weights came about, and what did not help, is in the repository's
training/README.md.

## Scores on actors 17 to 20, never trained on

Intervals resample speakers and clips. Choices were made on 17 and 18.

| what | value |
|---|---|
| emotion word right, {num_clips} clips, chance 12.5 % | **{accuracy}** |
| by speaker | {by_speaker} |
| other seeds of the same recipe | {seeds} |
| {other}, on the same clips | {other_accuracy} |
| target less draft, paired | {gap} |
| the best constant caption; captions of other clips | {constant:.1%}; {shuffled:.1%} |
| right of what else captions state | {facts} |

| recorded otherwise | emotion word right |
|---|---|
{conditions}

What was meant, and what the caption said:

{confusion}

## Limits

- Acted emotion by sixteen actors in a studio, two sentences. It will be wrong about you more often than the table says.
- With four actors in the report the interval is wide; others can move the score by ten points.
- Pitch words are relative to the sexes of the training actors. Loudness words are of the effort of the voice: what the
  models hear has been brought to one level.
- Emotion recognition should decide nothing about a person.
"""

_ORIGIN = {
    "draft": "trained from random weights, its tower by what Whisper's layers hear as well",
    "target": "its audio tower the convolutions and first two layers of Whisper base, frozen,\n  the rest trained from "
    "random weights",
}
_WHISPER = (
    "The tower's convolutions and layers are of Whisper base (OpenAI, MIT licence: `LICENSE.whisper`; recordings such\n"
    "as these may have been in its training data, their labels were not).\n"
)


def write_cards(scores: Mapping[int, Mapping[str, Any]], models: Path) -> None:
    """Write README.md beside each model's weights, from the scores of each seed's pair; the first ships."""
    for name in get_args(ModelName):
        (models / name / "README.md").write_text(card(name, scores), encoding="utf-8")


def card(name: ModelName, scores: Mapping[int, Mapping[str, Any]]) -> str:
    """The card of one model."""
    shipped, *others = scores.values()
    numbers, shape = shipped[name], SHAPES[name]
    other: ModelName = "draft" if name == "target" else "target"
    return _CARD.format(
        name=name,
        base="openai/whisper-base" if name == "target" else "none",
        origin=_ORIGIN[name],
        whisper=_WHISPER if name == "target" else "",
        num_parameters=numbers["num_parameters"],
        tower_layers=shape.tower_layers,
        tower_width=shape.tower_width,
        text_layers=shape.text_layers,
        text_width=shape.text_width,
        num_clips=shipped["num_clips"],
        accuracy=interval(numbers["emotion"]),
        by_speaker=", ".join(f"{actor}: {share:.1%}" for actor, share in numbers["by_speaker"].items()),
        seeds=", ".join(interval(seed[name]["emotion"]) for seed in others if name in seed) or "not trained yet",
        other=f"the {other}",
        other_accuracy=interval(shipped[other]["emotion"]),
        gap=interval(shipped["gap"][PLAIN]),
        constant=numbers["constant_caption"],
        shuffled=numbers["shuffled_captions"],
        facts=", ".join(f"{_FACTS[fact]} {part:.1%}" for fact, part in numbers["facts_right"].items()),
        conditions="\n".join(
            f"| {condition} | {interval(share)} |"
            for condition, share in numbers["by_condition"].items()
            if condition != PLAIN
        ),
        confusion=_confusion(numbers["confusion"]),
    )


_FACTS = {
    "grammar": "grammar",
    "is_female": "sex",
    "pitch_level": "pitch",
    "movement": "its movement",
    "loudness_level": "loudness",
    "pace_level": "pace",
}


def _confusion(confusion: Mapping[str, Mapping[str, int]]) -> str:
    names = list(next(iter(confusion.values())))
    rows = [f"| {truth} | " + " | ".join(str(row[n] or "") for n in names) + " |" for truth, row in confusion.items()]
    return "\n".join(["| meant | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|", *rows])
