"""Writes texts down for virtual time: `python -m bench.real.record`, in pieces; it takes up where it stopped.

Texts are kept one by one in `.cache/real` and packed into bench/real/recorded.npz when all are there.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import msgspec

from bench.network.model_cache import NUM_GUESSES, Path
from bench.real.pair import MAX_LENGTH, Pair, PairMissing, TextKey, find_pair, text_keys
from bench.real.recording import RECORDED, RecordedText, save_recording
from bench.replay import write_alone
from skydraft.core import Prompt, SamplingParams, TokenSegment, TreeShape
from skydraft.engines.base import Array, Engine, Extension
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.policies.confidence import Confidence
from skydraft.sampling.guesses import Guesses, best_guesses

NUM_EACH = 2
NUM_BRANCHES = 62  # of wrong guesses: a slot's tree has 64 at most, and the text is one
DEPTH = 4  # tokens of a wrong branch
LEAST_PROB = 0.02  # of a wrong branch, given the text before it
KEPT = FilePath(__file__).parents[2] / ".cache" / "real"


class KeptText(msgspec.Struct):
    """A text in a file of its own."""

    num_prompt_ids: int
    token_ids: Path
    guesses: list[tuple[Path, tuple[int, ...], tuple[float, ...]]]  # path, token ids, scores


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.real.record", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--each", type=int, default=NUM_EACH, help="texts of a kind and temperature; default %(default)s"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no text after this time")
    options = parser.parse_args()
    try:
        is_whole = record_missing(find_pair(), options.each, time.monotonic() + 60 * options.minutes)
    except PairMissing as error:
        print(error, file=sys.stderr)
        return 1
    if is_whole:
        save_recording([_load(key) for key in text_keys(options.each)])
        print(f"wrote {RECORDED}, {RECORDED.stat().st_size:,} bytes", file=sys.stderr)
    return 0


def record_missing(pair: Pair, num_each: int, until_s: float) -> bool:
    """Record what is not kept yet. Returns whether all is there."""
    missing = [key for key in text_keys(num_each) if not _place(key).is_file()]
    if not missing:
        return True
    KEPT.mkdir(parents=True, exist_ok=True)
    settings = EngineSettings(num_threads=1, max_length=MAX_LENGTH)
    target, draft = load_engine(pair.target, "target", settings), load_engine(pair.draft, "draft", settings)
    for key in missing:
        if time.monotonic() > until_s:
            return False
        began_s = time.monotonic()
        text = record(target, draft, pair, key)
        _keep(text)
        print(f"{key}: {len(text.guesses)} places, {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return True


def record(target: Engine, draft: Engine, pair: Pair, key: TextKey) -> RecordedText:
    """Have the target write a text, and the draft guess along it."""
    prompt, sampling = pair.prompt(key), key.sampling(pair.tokenizer.vocabulary.end_ids)
    token_ids = tuple(write_alone(target, prompt, sampling))
    guesses = guess_along(draft, prompt, token_ids, sampling)
    return RecordedText(key, _num_ids(prompt), token_ids, guesses)


def guess_along(draft: Engine, prompt: Prompt, token_ids: Path, sampling: SamplingParams) -> dict[Path, Guesses]:
    """What the draft guesses behind each beginning of a text, and behind the likeliest of its wrong guesses.

    The text and all wrong branches are one tree, read in few passes: a pass of many tokens takes much less than as
    many passes.
    """
    slot, row = draft.open(prompt)
    paths = [token_ids[:length] for length in range(1, len(token_ids))]
    found: dict[Path, Guesses] = {(): _guesses(row[None, :], [()], sampling)[0]}
    parents = tuple(range(len(paths)))
    if paths:
        (rows,) = draft.extend([Extension(slot, token_ids[:-1], TreeShape(parents))])
        found.update(zip(paths, _guesses(rows, paths, sampling), strict=True))
    row_of = {path: at for at, path in enumerate([(), *paths])}
    ends = _wrong_branches(found, token_ids)
    for _ in range(DEPTH):
        ends = {path: prob for path, prob in ends.items() if prob >= LEAST_PROB and len(path) < len(token_ids)}
        if not ends:
            break
        parents += tuple(row_of[path[:-1]] for path in ends)
        (rows,) = draft.extend([Extension(slot, [path[-1] for path in ends], TreeShape(parents))])
        row_of.update({path: len(row_of) + at for at, path in enumerate(ends)})
        found.update(zip(ends, _guesses(rows, list(ends), sampling), strict=True))
        ends = {(*path, found[path].token_ids[0]): prob * _probs(found[path])[0] for path, prob in ends.items()}
    draft.close(slot)
    return found


def _guesses(rows: Array, paths: Sequence[Path], sampling: SamplingParams) -> list[Guesses]:
    return best_guesses(rows, sampling, [len(path) for path in paths], NUM_GUESSES)


def _wrong_branches(found: Mapping[Path, Guesses], token_ids: Path) -> dict[Path, float]:
    """The likeliest first tokens that are not the text's, all over it, with their probabilities."""
    branches = {
        (*path, token_id): prob
        for path, guesses in found.items()
        for token_id, prob in zip(guesses.token_ids, _probs(guesses), strict=True)
        if token_id != token_ids[len(path)]
    }
    return dict(heapq.nlargest(NUM_BRANCHES, branches.items(), key=lambda item: item[1]))


def _probs(guesses: Guesses) -> list[float]:
    return list(map(math.exp, Confidence().log_probabilities(guesses.scores)))


def _num_ids(prompt: Prompt) -> int:
    return sum(len(segment.token_ids) for segment in prompt.segments if isinstance(segment, TokenSegment))


def _place(key: TextKey) -> FilePath:
    return KEPT / f"{key.kind}-{key.number}-{key.temperature:g}.json"


def _keep(text: RecordedText) -> None:
    rows = [(path, guesses.token_ids, guesses.scores) for path, guesses in text.guesses.items()]
    data = msgspec.json.encode(KeptText(text.num_prompt_ids, text.token_ids, rows))
    unfinished = _place(text.key).with_suffix(".part")
    unfinished.write_bytes(data)
    unfinished.rename(_place(text.key))


def _load(key: TextKey) -> RecordedText:
    kept = msgspec.json.decode(_place(key).read_bytes(), type=KeptText)
    guesses = {path: Guesses(token_ids, scores) for path, token_ids, scores in kept.guesses}
    return RecordedText(key, kept.num_prompt_ids, kept.token_ids, guesses)


if __name__ == "__main__":
    sys.exit(main())
