"""A real Chromium and real `skydraft serve` processes. Without Chromium the tests are skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from skydraft.cli.serve import ANNOUNCEMENT
from tests.waiting import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# As a child of root, without a display, and asking nobody for news of itself.
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
TARGET = "table:vocab=64,seed=3,order=2,end=5"
ENDLESS = "table:vocab=64,seed=3,order=2"
WAY = ("--way", "wait:3")  # else it depends on the machine whether anything is drafted
PAIR = ("--draft", f"{TARGET},noise=0.7", "--target", TARGET, *WAY)
ENDLESS_PAIR = ("--draft", f"{ENDLESS},noise=0.7", "--target", ENDLESS, *WAY)

Open = Callable[..., AbstractContextManager[Page]]


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """A gateway; gives the address of its page."""
    command = [sys.executable, "-m", "skydraft", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCEMENT), line
            yield line.removeprefix(ANNOUNCEMENT).strip().removesuffix("v1")
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@contextmanager
def launched(playwright: Playwright, *options: str) -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *options])
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """The page in a window of its own. It asks no other host, and complains of nothing.

    Args:
        options: of the window: color_scheme, viewport, reduced_motion.
    """
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE_S)
    asked: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page = context.new_page()
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("blob:", "data:"))}
    assert hosts == {urlsplit(address).netloc}
    assert not [each for each in complaints if "Failed to load resource" not in each]  # an answer that is an error


# For this file only: as long as it is there, an event loop runs in the thread, and others cannot run theirs.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with launched(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a page whose gateway writes texts, at emulated distances too."""
    with serving(*PAIR, "--emulate-link", "--max-tokens", "60") as address:
        yield address


@pytest.fixture(scope="module")
def hearing_address() -> Iterator[str]:
    """Of a page whose gateway hears."""
    with serving("--share", "features", "--evidence", "always") as address:
        yield address


@pytest.fixture
def open_page(browser: Browser) -> Open:
    return lambda address, **options: opened(browser, address, **options)


@pytest.fixture(scope="module")
def clip() -> Path:
    return Path(__file__).parents[2] / "src" / "skydraft" / "audio" / "clips" / "sad.flac"
