"""The site that is made of docs/: its links, what it loads, and what it has of the public names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest

from skydraft import client
from tests.waiting import PATIENCE_S
from tools.docstrings import as_google_writes

pytest.importorskip("zensical", reason="needs the docs extra")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}


class Loads(HTMLParser):
    """Collects what a browser fetches for a page, and where its links go to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.linked: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if (address := found.get(LOADED.get(tag, ""))) and found.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.add(address)
        if tag == "a" and (address := found.get("href")):
            self.linked.add(address)
        self.loaded |= set(re.findall(r"url\((http[^)]*)\)", found.get("style") or ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it, which fails where a link leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    for name in ("src", "tools"):
        (folder / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


def loads(page: Path) -> Loads:
    parser = Loads()
    parser.feed(page.read_text())
    return parser


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[nowhere](nowhere.md)\n")
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "a"\n')
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    assert subprocess.run(build, cwd=tmp_path, capture_output=True, timeout=PATIENCE_S).returncode != 0


def test_a_page_loads_nothing_from_another_host_and_all_that_it_loads_is_there(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 10
    for page in pages:
        for address in loads(page).loaded:
            parts = urlsplit(address)
            assert not parts.netloc, f"{page.name} loads {address}"
            assert parts.scheme == "data" or (page.parent / unquote(parts.path)).is_file(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text()), sheet


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text())
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["theme"]["font"] is False


def test_every_public_name_has_its_entry(site: Path) -> None:
    page = (site / "python.html").read_text()
    assert [name for name in client.__all__ if f'id="skydraft.client.{name}"' not in page] == []


def test_pictures_load_nothing_and_say_what_they_show() -> None:
    drawn = [picture for picture in (DOCS / "pictures").glob("*.svg") if "prefers-color-scheme" in picture.read_text()]
    assert len(drawn) >= 4
    for picture in drawn:
        root = ElementTree.fromstring(picture.read_text())
        assert all(root.find(f"{{http://www.w3.org/2000/svg}}{tag}") is not None for tag in ("title", "desc"))
        assert not re.findall(r"(?:href|src)=|url\((?!#)", picture.read_text())


def test_a_docstring_is_put_as_griffe_reads_it() -> None:
    ours = "Say it.\n\nname: of it.\nlength, width: in\n    metres.\n\nArgs:\n    a: one.\nRaises:\n    E: no."
    fields = "\n- `name`: of it.\n\n- `length, width`: in\n    metres.\n\n"
    assert as_google_writes(ours) == f"Say it.\n\n{fields}\nArgs:\n    a: one.\n\nRaises:\n    E: no."
    assert as_google_writes("Raises: E: no.") == "\nRaises:\n    E: no."
