"""Makes the pictures of the page of `skydraft serve`, light, dark and on a phone: make pictures

A story by the text pair, over an emulated round trip, with a cloud in the pace of a larger model; and a caption of a
bundled clip. Needs Chromium, and the text pair in ../shared/text.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from skydraft.audio.clips import bundled_clips
from skydraft.cli.serve import ANNOUNCEMENT

HERE = Path(__file__).parent
TEXT_PAIR = HERE.parents[2] / "shared" / "text"
PROMPT = "Once upon a time, there was a little girl named Lily. "
TEXT = (
    *("--draft", str(TEXT_PAIR / "draft-q4"), "--target", f"paced:step_ms=90,node_ms=0.5:{TEXT_PAIR / 'target'}"),
    *("--emulate-link", "--max-tokens", "90", "--stop", "<|end_story|>"),
)
VOICE = ("--share", "features", "--evidence", "always")
ROUND_TRIP_MS = 50
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main() -> None:
    """Take the pictures, one after the other."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not TEXT_PAIR.is_dir():
        print(f"the pictures of the page need Chromium (apt-get install chromium) and the text pair in {TEXT_PAIR}")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with serving(*TEXT) as address:
            for scheme in SCHEMES:
                with opened(browser, address, scheme, 1240, 1080) as page:
                    tell_a_story(page)
                    page.screenshot(path=HERE / f"page-{scheme}.png")
        with serving(*VOICE) as address, opened(browser, address, "light", 390, 1180) as page:
            page.locator("#sound").set_input_files(bundled_clips()[0])
            page.locator(".left").wait_for()
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=HERE / "page-phone.png")
        browser.close()


def tell_a_story(page: Page) -> None:
    """With the comparison, and a token pointed at."""
    page.locator(f"input[name=round_trip_ms][value='{ROUND_TRIP_MS}']").check()
    page.locator("#say").fill(PROMPT)
    page.locator("#say").press("Enter")
    page.get_by_role("button", name="Compare with the cloud alone").click()
    page.locator(".verdict").wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    page.locator(".token:not(.cloud)").first.hover()


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """A gateway; gives the address of its page."""
    command = [sys.executable, "-m", "skydraft", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix(ANNOUNCEMENT).strip().removesuffix("v1")
        process.terminate()


@contextmanager
def opened(browser: Browser, address: str, scheme: Literal["light", "dark"], width: int, height: int) -> Iterator[Page]:
    """The page in a window of this size."""
    viewport: ViewportSize = {"width": width, "height": height}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=1.5)
    page = context.new_page()
    page.goto(address)
    page.locator("body.is-ready").wait_for()
    yield page
    context.close()


if __name__ == "__main__":
    main()
