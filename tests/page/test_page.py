"""The page, used as people use it: what it shows is what the gateway says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Playwright

from skydraft.cli.summaries import UNASKED, UNDRAFTED
from skydraft.core import Origin
from tests.page.conftest import ENDLESS_PAIR, PAIR, Open, launched, opened, serving

PROMPT = "ba be"
MARGIN = 10  # px, left and right of a time line
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LUMINANCE = (
    """() => getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"""
)

WIDER = """() => [...document.querySelectorAll('body *')]
  .filter(element => !element.closest('.time-scroll, .table-scroll, .hidden-label, .skip'))
  .filter(element => element.getBoundingClientRect().right > 360.5)
  .map(element => element.className || element.tagName)"""

END_OF_TEXT = """async facts => {
  const { Turn } = await import('/page/answer.js');
  const tokens = { edge: 1, accepted: 0, corrected: 0, cloud: 0 };
  const disclosure = { has_evidence: false, contents: {}, up: {}, down: {} };
  const time_line = { total_s: 1, first_token_s: 1, round_trip_s: null, drafted_s: [], rounds: [], dropped_s: [],
    grown: [[1, 1]] };
  const traces = [{ pieces: [{ text: 'so', tokens: [{ origin: 'edge', round: null }] }], time_line }];
  const turn = new Turn([], { isSound: true, numRanks: 5, label: 'text' });
  turn.end({ timings: { draft_n: 0 },
    skydraft: { tokens, disclosure, traces, bytes: { up: 0, down: 0 }, rounds: 0, ...facts } }, null);
  return turn.element.querySelector('.remark')?.textContent ?? '';
}"""


def write(page: Page, prompt: str = PROMPT) -> dict[str, Any]:
    """Have a text written; returns the last event of its stream."""
    page.locator("body.is-ready").wait_for()
    page.locator("#say").fill(prompt)
    with page.expect_response("**/v1/chat/completions") as response:
        page.locator("#say").press("Enter")
    page.locator(".turn:last-child .left").wait_for()
    return last_event(response.value.text())


def last_event(stream: str) -> dict[str, Any]:
    data = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    events: list[dict[str, Any]] = [json.loads(each) for each in data if each != "[DONE]"]
    return next(each for each in reversed(events) if "traces" in each.get("skydraft", {}))


def shown_tokens(page: Page) -> list[tuple[str, str]]:
    """The text on the page: each piece and its origin."""
    script = "spans => spans.map(span => [span.textContent, span.classList[1]])"
    return [tuple(pair) for pair in page.locator(".turn:last-child .token").evaluate_all(script)]


def test_a_text_stands_there_in_the_colours_of_its_origins(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        end = write(page)
        (trace,) = end["skydraft"]["traces"]
        told = [(piece["text"], piece["tokens"][-1]["origin"]) for piece in trace["pieces"] if piece["text"]]
        assert shown_tokens(page) == told
        colours = {
            origin: page.locator(f".text .{origin}").first.evaluate("span => getComputedStyle(span).color")
            for origin in {origin for _, origin in told}
        }
        assert len(set(colours.values())) == len(colours) > 1
        legend = page.locator(".below .legend").inner_text()
        for origin in Origin:
            count = end["skydraft"]["tokens"][origin]
            assert (f"{count} " in legend.replace("\n", " ")) or not count
        up = end["skydraft"]["bytes"]["up"]
        assert f"{up:,} bytes" in page.locator(".left").inner_text()
        meters = page.locator(".meters").inner_text()
        assert f"{end['timings']['draft_n_accepted']} of {end['timings']['draft_n']} offered" in meters
        write(page, "bo")
        assert page.locator(".turn").count() == 2, "the conversation goes on"


def test_the_time_line_is_to_scale_and_has_the_reports_own_figures(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        page.locator("input[name=round_trip_ms][value='50']").check()
        end = write(page)
        (trace,) = end["skydraft"]["traces"]
        line = trace["time_line"]
        assert line["round_trip_s"] >= 0.05
        svg = page.locator(".time-scroll svg")
        per_s = (float(svg.get_attribute("width") or 0) - 2 * MARGIN) / line["total_s"]
        paths = page.locator(".round .touch").evaluate_all("paths => paths.map(path => path.getAttribute('d'))")
        assert len(paths) == len(line["rounds"]) == end["skydraft"]["rounds"]
        for path, told in zip(paths, line["rounds"], strict=True):
            sent, began, ended, answered = map(float, re.findall(r"[MLH]([\d.]+)", path))
            seconds = (told["sent_s"][0], *told["at_cloud_s"], told["answered_s"])
            shown = tuple((x - MARGIN) / per_s for x in (sent, began, ended, answered))
            assert shown == pytest.approx(seconds, abs=0.02 / per_s)
        marks = page.locator(".mark")
        assert marks.count() == len([token for piece in trace["pieces"] for token in piece["tokens"]])
        assert page.locator(".draft").count() == len(line["drafted_s"])
        page.locator(".in-numbers summary").click()
        rows = page.locator(".in-numbers tbody tr")
        rows.last.wait_for()
        assert rows.count() == len(line["rounds"])
        wide = float(svg.get_attribute("width") or 0)
        page.get_by_role("button", name="Time line: larger").click()
        assert float(page.locator(".time-scroll svg").get_attribute("width") or 0) == pytest.approx(2 * wide)


def test_the_cloud_alone_is_measured_when_one_asks(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        write(page)
        page.get_by_role("button", name="Compare with the cloud alone").click()
        verdict = page.locator(".verdict")
        verdict.wait_for()
        assert "the same text" in verdict.inner_text()
        assert page.locator(".race").count() == 2


def test_a_token_and_a_round_tell_of_themselves_under_the_pointer(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        write(page)
        tip = page.locator("#tip")
        page.locator(".token.accepted").first.hover()
        assert "drafted, accepted" in tip.inner_text()
        assert re.search(r"round \d+\s+the cloud's first choice, [\d.]+ %", tip.inner_text())
        lit = page.locator(".round.is-lit")
        assert lit.count() == 1, "its round is marked in the time line"
        page.locator(".head").hover()
        assert tip.is_hidden()


def test_all_of_it_works_with_the_keyboard_alone(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        press = page.keyboard.press
        page.locator("body.is-ready").wait_for()

        def focused() -> str:
            return str(page.evaluate("document.activeElement.id || document.activeElement.classList[0]"))

        assert focused() == "say", "one can write at once"
        page.keyboard.type(PROMPT)
        press("Enter")
        page.locator(".left").wait_for()
        while focused() != "text":
            press("Shift+Tab")
        press("ArrowRight")
        page.locator(".token:first-child.is-told").wait_for()
        assert "round 1" in page.locator("#tip").inner_text()
        assert "round 1" in (page.locator("#said").text_content() or ""), "a screen reader says it"
        press("End")
        press("ArrowLeft")
        page.locator(".token:nth-last-child(2).is-told").wait_for()
        described = page.locator("[aria-describedby=tip]")
        assert described.count() == 1, "it tells of one token at a time"
        press("Escape")
        assert page.locator("#tip").is_hidden()
        while focused() != "time-scroll":
            press("Tab")
        press("ArrowRight")
        page.locator("#tip").get_by_text("Round 1", exact=True).wait_for()
        while page.evaluate("document.activeElement.name") != "share":
            press("Shift+Tab")
        press("ArrowLeft")
        assert page.locator("input[name=share]:checked").get_attribute("value") == "none"


def test_what_may_leave_is_what_is_switched_on(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        page.locator("input[name=share][value=none]").check()
        end = write(page)
        assert end["skydraft"]["bytes"] == {"up": 0, "down": 0}
        assert {origin for _, origin in shown_tokens(page)} == {"edge"}
        assert page.locator(".left").inner_text().endswith("Nothing left this device.")
        page.locator("input[name=share][value=tokens]").check()
        page.locator("input[name=details]").uncheck()
        assert "rank" not in json.dumps(write(page))


@pytest.mark.parametrize("options", [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE])
def test_axe_finds_nothing_in_any_scheme_or_size(address: str, open_page: Open, options: dict[str, Any]) -> None:
    with open_page(address, reduced_motion="reduce", **options) as page:
        page.locator("body.is-ready").wait_for()
        found = [Axe().run(page)]
        if options is PHONE:
            page.locator("#choices summary").click()
        write(page)
        for summary in page.locator(".below summary").all():
            summary.click()
        page.locator(".token").first.hover()
        found.append(Axe().run(page))
        for results in found:
            assert not results.response["violations"], results.generate_report()


def test_it_is_dark_where_one_likes_it_dark(address: str, open_page: Open) -> None:
    for scheme, is_light in (("light", True), ("dark", False)):
        with open_page(address, color_scheme=scheme) as page:
            assert (sum(page.evaluate(LUMINANCE)) > 3 * 128) is is_light


def test_nothing_moves_where_one_likes_it_still(address: str, open_page: Open) -> None:
    with open_page(address, reduced_motion="reduce") as page:
        page.evaluate(
            "window.moved = 0; document.addEventListener('animationstart', () => window.moved++, { capture: true })"
        )
        write(page)
        assert page.evaluate("window.moved") == 0


def test_it_fits_a_phone(address: str, open_page: Open) -> None:
    with open_page(address, **PHONE) as page:
        page.locator("#choices summary").tap()
        write(page, "ba be " * 30)
        page.locator(".in-numbers summary").tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        wider = page.evaluate(WIDER)
        assert wider == []
        page.locator(".token").first.tap()
        assert page.locator("#tip").is_visible()


def test_a_text_of_a_thousand_tokens_is_laid_out_once_a_frame(open_page: Open) -> None:
    """How long frames take depends on the machine; how often the page is laid out in one does not."""
    with serving(*ENDLESS_PAIR, "--max-tokens", "1000") as address, open_page(address) as page:
        page.locator("body.is-ready").wait_for()
        page.locator("input[name=details]").uncheck()
        page.evaluate("window.frames = 0; (function count() { window.frames++; requestAnimationFrame(count) })()")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def effort() -> dict[str, float]:
            return {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}

        before, frames = effort(), page.evaluate("window.frames")
        end = write(page, "ba " * 20)
        after, frames = effort(), page.evaluate("window.frames") - frames
        assert sum(end["skydraft"]["tokens"].values()) == 1000
        assert len(shown_tokens(page)) == 1000
        num_layouts = after["LayoutCount"] - before["LayoutCount"]
        assert num_layouts <= 2 * frames + 40, "some more when the text has ended"


@pytest.mark.slow
def test_frames_of_a_thousand_tokens_are_short(open_page: Open) -> None:
    """Half of them; the long ones, which are printed, are the machine's too: cloud and gateway compute beside it."""
    with serving(*ENDLESS_PAIR, "--max-tokens", "1000") as address, open_page(address) as page:
        page.locator("body.is-ready").wait_for()
        page.evaluate(
            """() => { window.times = []; let last = performance.now();
              (function next(now) { window.times.push(now - last); last = now; requestAnimationFrame(next) })(last) }"""
        )
        write(page, "ba " * 20)
        times = sorted(page.evaluate("window.times"))
        median, late = times[len(times) // 2], times[len(times) * 95 // 100]
        print(f"{len(times)} frames, median {median:.1f} ms, 95 of 100 within {late:.1f} ms, all {times[-1]:.1f} ms")
        assert median < 34, "two of the sixty frames of a second"


def test_a_voice_becomes_a_caption(playwright: Playwright, hearing_address: str, clip: Path, tmp_path: Path) -> None:
    samples, rate_hz = soundfile.read(clip)
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, samples, rate_hz)
    microphone = (
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-audio-capture={voice}",
    )
    with launched(playwright, *microphone) as browser, opened(browser, hearing_address) as page:
        page.get_by_role("button", name="Record").click()
        page.locator("#listening-time").filter(has_text=re.compile(r"^([4-9]|\d\d)\.")).wait_for()  # seconds
        assert page.locator(".turn").count() == 0, "nothing leaves the page before one is done"
        with page.expect_response("**/v1/audio/captions") as response:
            page.get_by_role("button", name="Done").click()
        page.locator(".left").wait_for()
        end = last_event(response.value.text())
        assert end["text"] == "".join(text for text, _ in shown_tokens(page))
        assert re.match(r"(A|An|The) \w+.* sounds .*\.", end["text"])
        assert "speech can be reconstructed" in page.locator(".left").inner_text()


def test_a_sound_is_chosen_or_dropped_and_the_voice_stays_where_it_is_to(
    hearing_address: str, open_page: Open, clip: Path, tmp_path: Path
) -> None:
    with open_page(hearing_address) as page:
        page.locator("input[name=share][value=tokens]").check()
        page.locator("#sound").set_input_files(clip)
        page.locator(".left").wait_for()
        assert page.locator(".left").inner_text().endswith("Nothing left this device. The voice stayed.")
        silence = tmp_path / "silence.wav"
        soundfile.write(silence, [0.0] * 16000, 16000)
        data = page.evaluate_handle(
            """bytes => { const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], 'silence.wav')); return data }""",
            list(silence.read_bytes()),
        )
        page.dispatch_event("body", "dragover", {"dataTransfer": data})
        assert page.locator("#drop").is_visible()
        page.dispatch_event("body", "drop", {"dataTransfer": data})
        page.locator(".turn:nth-child(3) .left").wait_for()
        assert page.locator(".turn:last-child .text").inner_text() == "No speech."


def test_a_gateway_with_keys_is_asked_with_one(open_page: Open, tmp_path: Path) -> None:
    from skydraft.cloud.access.keys import KeyGrant, add_key

    keys = tmp_path / "keys.json"
    key = add_key(keys, "me", KeyGrant())
    with serving(*PAIR, "--max-tokens", "8", "--keys", str(keys)) as address, open_page(address) as page:
        page.locator("#key").fill("not this one")
        page.keyboard.press("Enter")
        page.locator("#ask-key[open]").wait_for()
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        write(page)


def test_every_reason_not_to_ask_or_to_draft_is_said(address: str, open_page: Open) -> None:
    with open_page(address) as page:
        page.locator("body.is-ready").wait_for()
        for name, words in (("unasked", UNASKED), ("undrafted", UNDRAFTED)):
            for why, sentence in words.items():
                said = page.evaluate(END_OF_TEXT, {name: why.value})
                assert said.lower().removesuffix(".") == sentence.lower().removesuffix(".")
        assert page.evaluate(END_OF_TEXT, {"unasked": "a reason of tomorrow"}) == ""


def test_a_text_is_stopped_and_what_is_wrong_is_said(open_page: Open) -> None:
    with serving(*ENDLESS_PAIR, "--max-tokens", "3000") as address, open_page(address) as page:
        page.locator("#say").fill(PROMPT)
        page.locator("#say").press("Enter")
        page.locator(".token").first.wait_for()
        page.keyboard.press("Escape")
        assert page.locator(".problem").inner_text() == "Stopped."
        page.locator("#max-tokens").fill("4000000")
        page.locator("#say").fill(PROMPT)
        page.locator("#say").press("Enter")
        page.locator(".turn:last-child .problem").wait_for()
        assert "max_tokens" in page.locator(".turn:last-child .problem").inner_text()
        page.get_by_role("button", name="New").click()
        assert page.locator(".turn").count() == 0
