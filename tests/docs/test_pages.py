"""What the README, the pages of docs/ and the recipes show, as a reader would do it."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import LANGUAGES, PAGES, ROOT, Block, blocks
from tests.docs.reader import STORIES, ModelPair, Reader, furnish

OF_PAGES = {page: blocks(page.read_text()) for page in PAGES}
NOT_RUN = [(page, block) for page, found in OF_PAGES.items() for block in found if block.not_run is not None]
OF_NEW_USERS = (ROOT / "README.md", ROOT / "docs" / "quickstart.md")  # long; make test-wheel does what they show
RUN = [
    pytest.param(page, marks=pytest.mark.slow if page in OF_NEW_USERS else ())
    for page, found in OF_PAGES.items()
    if any(block.not_run is None for block in found)
]
WITH_LANGUAGE_MODELS = [page for page in OF_PAGES if re.search(r"\b(?:SMALL|LARGE)\b", page.read_text())]


def name_of(case: object) -> str | None:
    if isinstance(case, Path):
        return str(case.relative_to(ROOT))
    return f"line {case.line}" if isinstance(case, Block) else None


def require_what_is_needed(page: Path) -> None:
    for needed in {block.needs for block in OF_PAGES[page]} - {None}:
        if shutil.which(str(needed)) is None and importlib.util.find_spec(str(needed)) is None:
            pytest.skip(f"needs {needed}")


def gguf_pair(home: Path) -> ModelPair:
    """Two tiny llamas, the draft by the name that the pages give it."""
    from tests.llamacpp import files

    tokens = files.sentencepiece_tokens()
    weights = files.random_weights(0, len(tokens.pieces))
    paths = [files.write_gguf(home / name, weights, tokens) for name in ("draft.gguf", "target.gguf")]
    return ModelPair(*map(str, paths))


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    require_what_is_needed(page)
    furnish(tmp_path)
    models = gguf_pair(tmp_path) if any(block.needs == "llama_cpp" for block in OF_PAGES[page]) else STORIES
    with Reader(tmp_path, models=models) as reader:
        reader.read(page)


@pytest.mark.slow
@pytest.mark.text
@pytest.mark.parametrize("page", WITH_LANGUAGE_MODELS, ids=name_of)
def test_a_page_does_so_with_larger_models(page: Path, tmp_path: Path, text_pair: Path) -> None:
    require_what_is_needed(page)
    furnish(tmp_path)
    models = ModelPair(str(text_pair / "draft-q4"), str(text_pair / "target"))
    with Reader(tmp_path, models=models) as reader:
        reader.read(page)


@pytest.mark.parametrize(("page", "block"), NOT_RUN, ids=name_of)
def test_a_block_that_is_not_run(page: Path, block: Block) -> None:
    """They are listed so."""
    assert block.not_run
    pytest.skip(block.not_run)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_stand_in_blocks_of_a_shell(page: Path) -> None:
    """Where they are run, or it is said why not: not in indented blocks, nor in those without a language."""
    text, fence = page.read_text(), re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
    lines = [line for found in fence.finditer(text) if found[1] not in LANGUAGES for line in found[2].splitlines()]
    lines += re.findall(r"^ {4,}(.*)$", fence.sub("", text), flags=re.MULTILINE)
    assert [line for line in lines if re.match(r"(?:skydraft|pipx?|python3?|curl|export) ", line)] == []
