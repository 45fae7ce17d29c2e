"""What choosing costs beside the logits that it reads: vocabularies of real size, one core.

Of 32 rows as a real model writes them, eight at a time: the time of the target's choices, and of a device's guesses (4
of each row), over that of numpy's `max` of the same rows, which reads them once. They take turns; a time is the sum of
the medians of all rows. The rows lie in the processor's cache, as they do after a forward pass: where they do not,
reading them takes longer and all ratios are smaller.

The rows are made from bench/logit_rows.json, which holds the logits of a real model at some ranks. Which token has
which rank is drawn.

    python -m bench.choices                      also into bench/results/choices.json
    CC=false XDG_CACHE_HOME=$(mktemp -d) python -m bench.choices --quick       without a C compiler

Claims, each the worst of two vocabularies and of four cuts (none, top_k 40, top_p 0.95, both), temperature 0.8:
    choices_over_scan: aim at most 6.
    guesses_over_scan: aim at most 10.
    choices_over_scan_flat: of normal logits with a standard deviation of 2.5, without a cut: hardly a token can be left
        out, and noise for all of them is what takes the time. No model writes such rows.
    guesses_over_scan_flat: of the same.
    choices_over_scan_shaped: of rows that something shapes, top_p 0.95: the worst of min_p, penalties (behind a text of
        500 tokens), bias (of 300 tokens) and a grammar's mask (of three tokens in ten).
    guesses_over_scan_shaped: of the same.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bench.claims import RESULTS, Claim, parse_arguments, pin, show, write_results
from skydraft.core import Grammar, SamplingParams
from skydraft.sampling.choice import target_choices
from skydraft.sampling.guesses import best_guesses
from skydraft.sampling.kernel import kernel
from skydraft.sampling.shaping import History, shape_logits
from skydraft.text.grammar_matcher import Mask

Rows: TypeAlias = npt.NDArray[np.float32]

LOGIT_ROWS = Path(__file__).parent / "logit_rows.json"
VOCABULARIES = (151_665, 262_144)
CUTS: dict[str, dict[str, Any]] = {
    "none": {},
    "top_k": {"top_k": 40},
    "top_p": {"top_p": 0.95},
    "both": {"top_k": 40, "top_p": 0.95},
}
SHAPES: dict[str, dict[str, Any]] = {
    "min_p": {"min_p": 0.05},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.2, "repetition_penalty": 1.1},
    "bias": {"logit_bias": tuple((7 * index, 1.0) for index in range(300))},
    "mask": {"grammar": Grammar("regex", "a")},  # the masks are made up
}
NUM_TEXT = 500  # tokens that stand before a row
ALLOWED_SHARE = 0.3
TEMPERATURE = 0.8
SEED = 1
NUM_ROWS = 8  # at a time
NUM_GUESSES = 4
FLAT_SPREAD = 2.5


class Case(NamedTuple):
    """Times of all rows, each the sum of medians."""

    num_rows: int
    vocab_size: int
    cut: str
    shape: str
    scan_ms: float
    choices_ms: float
    guesses_ms: float

    @property
    def choices_over_scan(self) -> float:
        return self.choices_ms / self.scan_ms

    @property
    def guesses_over_scan(self) -> float:
        return self.guesses_ms / self.scan_ms


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    pin(0)
    num_rounds = 5 if arguments.quick else 21
    cases, flat, shaped = list[Case](), list[Case](), list[Case]()
    for vocab_size in VOCABULARIES:
        batches = list(model_batches(vocab_size))
        cases += [measure(batches, cut, num_rounds) for cut in CUTS]
        flat.append(measure([flat_rows(vocab_size)], "none", num_rounds))
        shaped += [measure(batches, "top_p", num_rounds, shape) for shape in SHAPES]
    claims = claims_of(cases, flat, shaped, num_rounds)
    if not arguments.quick:
        content = {"is_compiled": kernel() is not None, "rows": [case._asdict() for case in cases]}
        content["shaped_rows"] = [case._asdict() for case in shaped]
        content |= {"flat_rows": [case._asdict() for case in flat], "claims": [claim._asdict() for claim in claims]}
        write_results(RESULTS / "choices.json", "bench.choices", content)
    show(claims, arguments.json)


def claims_of(cases: Sequence[Case], flat: Sequence[Case], shaped: Sequence[Case], n: int) -> list[Claim]:
    """The worst of each."""
    return [
        Claim("choices_over_scan", max(case.choices_over_scan for case in cases), "x", n),
        Claim("guesses_over_scan", max(case.guesses_over_scan for case in cases), "x", n),
        Claim("choices_over_scan_flat", max(case.choices_over_scan for case in flat), "x", n),
        Claim("guesses_over_scan_flat", max(case.guesses_over_scan for case in flat), "x", n),
        Claim("choices_over_scan_shaped", max(case.choices_over_scan for case in shaped), "x", n),
        Claim("guesses_over_scan_shaped", max(case.guesses_over_scan for case in shaped), "x", n),
    ]


def model_batches(vocab_size: int) -> Iterator[Rows]:
    """Rows of the recorded model, float32 [NUM_ROWS, vocab_size] at a time."""
    recorded = json.loads(LOGIT_ROWS.read_text())
    rng = np.random.default_rng(SEED)
    ranks = np.linspace(0, recorded["vocab_size"] - 1, vocab_size)
    rows = [-np.interp(np.log1p(ranks), np.log1p(recorded["ranks"]), gaps) for gaps in recorded["gaps"]]
    for first in range(0, len(rows), NUM_ROWS):
        yield rng.permuted(np.stack(rows[first : first + NUM_ROWS]), axis=-1).astype(np.float32)


def flat_rows(vocab_size: int) -> Rows:
    """Normal logits: float32 [NUM_ROWS, vocab_size]."""
    normal = np.random.default_rng(SEED).standard_normal((NUM_ROWS, vocab_size), dtype=np.float32)
    return normal * np.float32(FLAT_SPREAD)


def measure(batches: Sequence[Rows], cut: str, num_rounds: int, shape: str = "") -> Case:
    """Time scan, choices and guesses of all batches, in turns."""
    params = SamplingParams(temperature=TEMPERATURE, seed=SEED, **CUTS[cut], **SHAPES.get(shape, {}))
    total = np.zeros(3)
    for rows in batches:
        times_ms = [_round_ms(rows, params, number) for number in range(num_rounds + 1)]
        total += [statistics.median(times) for times in zip(*times_ms[1:], strict=True)]  # the first warms up
    return Case(sum(map(len, batches)), batches[0].shape[1], cut, shape, *total.tolist())


def _round_ms(rows: Rows, params: SamplingParams, number: int) -> tuple[float, float, float]:
    positions = range(number * NUM_ROWS, (number + 1) * NUM_ROWS)
    rng = np.random.default_rng(SEED)
    history = History(rng.integers(0, rows.shape[1], NUM_TEXT).tolist(), [range(row) for row in range(NUM_ROWS)])
    masks: list[Mask | None] | None = None
    if params.grammar is not None:
        is_allowed: npt.NDArray[np.bool_] = rng.random(rows.shape) < ALLOWED_SHARE
        masks = list(is_allowed)

    def shaped() -> Rows:
        of_rows: Rows = shape_logits(rows, params, history, masks)
        return of_rows

    return (
        _time_ms(lambda: rows.max(axis=-1)),
        _time_ms(lambda: target_choices(shaped(), params, positions)),
        _time_ms(lambda: best_guesses(shaped(), params, positions, NUM_GUESSES)),
    )


def _time_ms(call: Callable[[], object]) -> float:
    call()  # so that all find the rows in the cache
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1000


if __name__ == "__main__":
    main()
