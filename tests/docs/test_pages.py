"""What the README, the pages of docs/ and the recipes show, as a reader would do it."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import LANGUAGES, PAGES, ROOT, Block, blocks
from tests.docs.reader import Reader, furnish

OF_PAGES = {page: blocks(page.read_text()) for page in PAGES}
RUN = [page for page, found in OF_PAGES.items() if any(block.not_run is None for block in found)]
NOT_RUN = [(page, block) for page, found in OF_PAGES.items() for block in found if block.not_run is not None]


def name_of(page: object) -> str | None:
    return (
        str(page.relative_to(ROOT))
        if isinstance(page, Path)
        else f"line {page.line}"
        if isinstance(page, Block)
        else None
    )


def is_there(needed: str) -> bool:
    """A program, or a module."""
    return shutil.which(needed) is not None or importlib.util.find_spec(needed) is not None


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    for needed in {block.needs for block in OF_PAGES[page]} - {None}:
        if not is_there(str(needed)):
            pytest.skip(f"needs {needed}")
    furnish(tmp_path)
    with Reader(tmp_path) as reader:
        for block in OF_PAGES[page]:
            if block.not_run is not None:
                continue
            printed = reader.follow(block)
            if block.prints is not None:
                flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                assert doctest.OutputChecker().check_output(block.prints, printed, flags), (
                    f"{name_of(page)}, line {block.line} prints\n{printed}\nand not\n{block.prints}"
                )


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
