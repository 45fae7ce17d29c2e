"""Reports that no model wrote, and consoles that keep what is printed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Literal, cast

from rich.console import Console

from skydraft.core import Finish, Mode, Origin, ShareLevel, TextPiece, Token
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.report import Report
from skydraft.edge.shown_text import ShownText
from skydraft.engines.load import load_tokenizer
from skydraft.text.tokenizer import Tokenizer
from skydraft.text.until_stop import TextUntilStop

END_ID = 5
TOKENIZER = load_tokenizer(f"table:vocab=64,end={END_ID}", "draft")

EDGE, ACCEPTED, CORRECTED, CLOUD = Origin.EDGE, Origin.ACCEPTED, Origin.CORRECTED, Origin.CLOUD


class _Bytes:
    """A token is a byte: characters of several bytes take several tokens."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode(errors="replace")


BYTES = cast(Tokenizer, _Bytes())  # what prints a text only decodes


def console(is_terminal: bool = False, width: int = 80, colours: Literal["256", "truecolor"] = "256") -> Console:
    """Keeps what is printed; on a terminal with colours."""
    return Console(
        file=io.StringIO(),
        highlight=False,
        force_terminal=is_terminal,
        color_system=colours if is_terminal else None,
        width=width,
    )


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def report(
    token_ids: Sequence[int] = (1, 2, 3, END_ID), origins: Sequence[Origin] = (ACCEPTED,), **facts: object
) -> Report:
    """A report of these tokens; the last origin is that of all that follow. text: in place of what they spell."""
    tokens = tuple(map(Token, token_ids, [*origins, *[origins[-1]] * len(token_ids)]))
    text = facts.pop("text", None)
    defaults: dict[str, object] = {
        "pieces": pieces(TOKENIZER, tokens) if text is None else (TextPiece(str(text), tokens),),
        "finish": Finish.STOP,
        "stop": None,
        "num_prompt_tokens": 3,
        "num_drafted": 4,
        "mode": Mode.HYBRID,
        "is_alone": False,
        "is_cloud_text": True,
        "num_near_ties": 0,
        "ended_early": None,
        "seed": None,
        "first_token_s": 0.25,
        "total_s": 1.5,
        "rounds": 2,
        "num_positions": 9,
        "reconnects": 0,
        "disclosure": record(),
    }
    return Report(**(defaults | facts))  # type: ignore[arg-type]


def pieces(tokenizer: Tokenizer, tokens: Sequence[Token]) -> tuple[TextPiece, ...]:
    """The whole text of these tokens."""
    shown = ShownText(TextUntilStop(tokenizer))
    return (*shown.add(tokens), *shown.end())


def record(level: ShareLevel = ShareLevel.TOKENS, **up: int) -> DisclosureRecord:
    """A disclosure record of these bytes up; by default of a prompt and two drafts."""
    contents = Counter({"instruction text": 1, "drafts of the caption or text": 2})
    return DisclosureRecord(level, Counter(up or {"prompt": 80, "drafts": 20}), Counter({"verdicts": 8}), contents)


def features_record() -> DisclosureRecord:
    """A disclosure record of a clip's features."""
    contents = Counter({"instruction text": 2, "evidence: log_mel [128, 300] float16": 1})
    return DisclosureRecord(ShareLevel.FEATURES, Counter(prompt=80, features=76800), Counter(tokens=30), contents)
