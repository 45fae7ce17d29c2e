"""How often the draft guesses what the target writes, by kind of text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from bench.claims import Claim
from bench.network.model_cache import NUM_GUESSES
from bench.real.pair import KINDS, MAX_LENGTH, TEMPERATURES, Pair, TextKey
from bench.real.row_file import RowFile
from skydraft.engines.base import Engine, Extension
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.sampling.guesses import best_guesses


class AgreementRow(msgspec.Struct, frozen=True):
    """One text. ranks: of each of its tokens among the draft's guesses; NUM_GUESSES: it was none of them."""

    kind: str
    number: int
    temperature: float
    ranks: list[int]

    @property
    def key(self) -> TextKey:
        return TextKey(self.kind, self.number, self.temperature)


def measure_agreement(
    pair: Pair, texts: Mapping[TextKey, tuple[int, ...]], file: RowFile[AgreementRow], until_s: float
) -> None:
    """Read with the draft what the target wrote, text by text, where the file lacks it.

    Args:
        until_s: of `time.monotonic`; no text begins later.
    """
    done = {row.key for row in file.rows}
    missing = [key for key in texts if key not in done]
    if not missing:
        return
    draft = load_engine(pair.draft, "draft", EngineSettings(num_threads=1, max_length=MAX_LENGTH))
    for key in missing:
        if time.monotonic() > until_s:
            return
        file.add(AgreementRow(*key, ranks=list(_ranks(draft, pair, key, texts[key]))))


def _ranks(draft: Engine, pair: Pair, key: TextKey, token_ids: tuple[int, ...]) -> Iterator[int]:
    sampling = key.sampling(pair.tokenizer.vocabulary.end_ids)
    slot, row = draft.open(pair.prompt(key))
    blocks = [(row[None, :], 0)]
    if len(token_ids) > 1:
        blocks.append((draft.extend([Extension.chain(slot, token_ids[:-1])])[0], 1))
    for rows, first in blocks:
        positions = range(first, first + len(rows))
        for position, guesses in zip(positions, best_guesses(rows, sampling, positions, NUM_GUESSES), strict=True):
            ids = guesses.token_ids
            yield ids.index(token_ids[position]) if token_ids[position] in ids else NUM_GUESSES
    draft.close(slot)


def agreement_claims(rows: Iterable[AgreementRow]) -> Iterator[Claim]:
    """agreement_KIND: of the first guess; then by temperature, and of the first guess, among two, among six."""
    rows = list(rows)
    for kind in KINDS:
        of_kind = [row for row in rows if row.kind == kind]
        if not of_kind:
            continue
        yield _claim(f"agreement_{kind}", of_kind, 1)
        for temperature in TEMPERATURES:
            warmth = "greedy" if temperature == 0 else f"at_{temperature:g}"
            some = [row for row in of_kind if row.temperature == temperature]
            for count in (1, 2, NUM_GUESSES) if some else ():
                yield _claim(f"agreement_{kind}_{warmth}_among_{count}", some, count)


def _claim(name: str, rows: list[AgreementRow], count: int) -> Claim:
    ranks = [rank for row in rows for rank in row.ranks]
    return Claim(name, sum(rank < count for rank in ranks) / len(ranks), "of tokens", len(ranks))
