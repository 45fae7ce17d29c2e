"""Is a text the cloud's own whatever shapes it: stop strings, log-probabilities, cuts, penalties, biases, schemas?

Each alone, by chains and by trees, against the same text of the cloud alone with the same field. The text, its tokens
and the log-probabilities that are told of them are compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bench.claims import Claim
from bench.real.pair import NUM_TOKENS, Pair, TextKey
from bench.real.row_file import RowFile
from bench.real.site import CLOUD, Site, open_site
from skydraft.core import json_schema
from skydraft.edge.report import Report
from skydraft.text.tokenizer import Tokenizer

WAYS = ("wait:4", "tree")
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 60}, "is_sure": {"type": "boolean"}},
    "required": ["answer", "is_sure"],
    "additionalProperties": False,
}
# Words that most texts have or begin with: to keep out, to draw nearer, to stop at.
KEPT_OUT, DRAWN_NEARER, STOPS = (" the", " is", " to"), (" and", " of"), (". ", "\n\n", "return", ", ")


class FieldRow(msgspec.Struct, frozen=True):
    """One text, and whether it is the cloud's own.

    field: as OpenAI's API calls it. tokens: how many it has, up to an end or a stop string.
    is_same: text, tokens and what is told of them.
    """

    kind: str
    number: int
    temperature: float
    field: str
    way: str
    tokens: int
    drafted: int
    is_same: bool

    @property
    def key(self) -> TextKey:
        return TextKey(self.kind, self.number, self.temperature)


def fields(tokenizer: Tokenizer) -> dict[str, Mapping[str, Any]]:
    """Settings of `SamplingParams`, by the field that they are of."""

    def ids(texts: Iterable[str]) -> set[int]:
        return {tokenizer.encode_plain(text)[0] for text in texts}

    near = ids(DRAWN_NEARER)
    biases = {**dict.fromkeys(ids(KEPT_OUT) - near, -100.0), **dict.fromkeys(near, 2.0)}
    return {
        "stop": {"stop": STOPS},
        "top_logprobs": {"top_logprobs": 5},
        "min_p": {"min_p": 0.2},
        "presence_penalty": {"presence_penalty": 1.0},
        "frequency_penalty": {"frequency_penalty": 0.7},
        "repetition_penalty": {"repetition_penalty": 1.2},
        "logit_bias": {"logit_bias": tuple(sorted(biases.items()))},
        "json_schema": {"grammar": json_schema(SCHEMA)},
    }


def measure_fields(
    pair: Pair, keys: Sequence[TextKey], file: RowFile[FieldRow], until_s: float, num_tokens: int = NUM_TOKENS
) -> None:
    """Write the texts that the file lacks without an emulated link, in every way.

    Args:
        until_s: of `time.monotonic`; no text begins later.
    """
    done = {(row.key, row.field) for row in file.rows}
    missing = [(key, name) for key in keys for name in fields(pair.tokenizer) if (key, name) not in done]
    if missing and time.monotonic() < until_s:
        asyncio.run(_measure(pair, missing, file, until_s, num_tokens))


async def _measure(
    pair: Pair, missing: Sequence[tuple[TextKey, str]], file: RowFile[FieldRow], until_s: float, num_tokens: int
) -> None:
    async with open_site(pair, is_linked=False) as site:
        for key, name in missing:
            if time.monotonic() > until_s:
                return
            for row in await _compare(site, key, name, num_tokens):
                file.add(row)


async def _compare(site: Site, key: TextKey, name: str, num_tokens: int) -> list[FieldRow]:
    """Rows of all ways: a run that is broken off has none of a text that it has not ended."""
    shape = fields(site.pair.tokenizer)[name]
    own = await site.write(key, CLOUD, num_tokens=num_tokens, shape=shape)
    reports = {way: await site.write(key, way, num_tokens=num_tokens, shape=shape) for way in WAYS}
    return [
        FieldRow(*key, name, way, len(report.tokens), report.num_drafted, _told(report) == _told(own))
        for way, report in reports.items()
    ]


def _told(report: Report) -> tuple[object, ...]:
    """What an app is told of a text."""
    return report.text, report.stop, report.finish, [(token.token_id, token.logprobs) for token in report.tokens]


def fields_claims(rows: Iterable[FieldRow]) -> Iterator[Claim]:
    """fields_same: the share of texts that are the cloud's own, by field; must be 1."""
    by_field: dict[str, list[bool]] = {}
    for row in rows:
        by_field.setdefault(row.field, []).append(row.is_same)
    for name, same in by_field.items():
        yield Claim(f"fields_same_{name}", sum(same) / len(same), "share", len(same))
