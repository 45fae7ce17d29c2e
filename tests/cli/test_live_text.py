import re

import numpy as np
import pytest

from skydraft.audio.windows import Window
from skydraft.cli.live_text import LiveText
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import STYLES
from skydraft.core import Origin, TextPiece, Token
from tests.cli.made_up import ACCEPTED, BYTES, CLOUD, CORRECTED, EDGE, TOKENIZER, console, pieces, printed

PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # "I want", with the sign that keeps two letters apart
ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def make_screen(is_terminal: bool = False, width: int = 80) -> Screen:
    return Screen(console(is_terminal, width), console(is_terminal, width))


def written(screen: Screen) -> str:
    return printed(screen.out)


def tokens(text: str, origin: Origin = EDGE) -> list[Token]:
    return [Token(byte, origin) for byte in text.encode("utf-8", "surrogatepass")]


def words(*token_ids: int, origin: Origin = EDGE) -> tuple[TextPiece, ...]:
    """Of a text that ends there."""
    return pieces(TOKENIZER, [Token(token_id, origin) for token_id in token_ids])


def write(text: str, is_terminal: bool = False, width: int = 80) -> str:
    screen = make_screen(is_terminal, width)
    with LiveText(screen) as live:
        live.add(pieces(BYTES, tokens(text)))
    return written(screen)


def test_tokens_are_written_as_they_come_also_into_a_pipe() -> None:
    screen = make_screen()
    with LiveText(screen, "a.wav: ") as live:
        assert written(screen) == ""
        first, second = pieces(TOKENIZER, [Token(1, EDGE), Token(2, ACCEPTED)])
        live.add([first])
        assert written(screen) == "a.wav: be"
        live.add([second])
        assert written(screen) == "a.wav: be bi"
    assert written(screen) == "a.wav: be bi\n"


def test_on_a_terminal_each_origin_has_its_colour_and_spaces_have_none() -> None:
    screen = make_screen(is_terminal=True)
    with LiveText(screen) as live:
        for text, origin in (("A", EDGE), (" m", ACCEPTED), ("!", CORRECTED), (" ", CORRECTED), ("w", CLOUD)):
            live.add(pieces(BYTES, tokens(text, origin)))
    codes = {origin: str(screen.out.get_style(style)) for origin, style in STYLES.items()}
    assert len(set(codes.values())) == 4
    out = written(screen)
    assert out == ("\x1b[38;5;64mA\x1b[0m \x1b[38;5;31mm\x1b[0m\x1b[1;4;38;5;166m!\x1b[0m \x1b[38;5;133mw\x1b[0m\n")


def test_a_text_on_a_terminal_is_appended_and_nothing_else() -> None:
    """No code moves the cursor, no line is padded to the width, none is cropped at the bottom."""
    text = "A line of some words that is longer than the terminal is wide.\n" * 100
    out = write(text, is_terminal=True, width=20)
    assert set(ESCAPE_CODE.findall(out)) == {"\x1b[38;5;64m", "\x1b[0m"}
    assert ESCAPE_CODE.sub("", out) == text + "\n"


def test_a_model_cannot_send_control_codes_to_the_terminal() -> None:
    assert write("a\x1b[2Jb\x07\r\u202ec\u200bd\u2066e\ufefff\n") == "a[2Jbcdef\n\n"


def test_joiners_are_kept_where_a_script_needs_them_and_the_letter_came_before() -> None:
    assert (
        write(f"{PERSIAN} \U0001f469\u200d\U0001f680 pass\u200cword")
        == f"{PERSIAN} \U0001f469\u200d\U0001f680 password\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_text_cut_short_stays_and_ends_its_line(error: type[BaseException]) -> None:
    screen = make_screen()
    live = LiveText(screen)
    with pytest.raises(error), live:  # noqa: PT012
        live.add(words(1, 2))
        raise error
    assert written(screen) == "be bi\n"


def test_a_text_that_failed_before_its_first_token_leaves_nothing() -> None:
    screen = make_screen()
    with pytest.raises(ValueError, match="no"), LiveText(screen, "a.wav: "):
        raise ValueError("no")
    assert written(screen) == ""


def test_an_empty_text_is_a_line() -> None:
    assert write("") == "\n"


def windows_written(is_timed: bool) -> str:
    screen = make_screen()
    with LiveText(screen, "a.wav: ", is_timed=is_timed) as live:
        for start_s, has_speech in ((0.0, True), (8.0, False), (64.6, True)):
            live.next_window(Window(start_s, start_s + 8, np.ones(1, np.float32), has_speech))
            if has_speech:
                live.add(words(1, 2))
    return written(screen)


def test_windows_are_apart() -> None:
    assert windows_written(is_timed=False) == "a.wav: be bi No speech. be bi\n"


def test_windows_with_their_times_are_lines_of_their_own() -> None:
    assert windows_written(is_timed=True) == (
        "a.wav: [00:00 - 00:08] be bi\na.wav: [00:08 - 00:16] No speech.\na.wav: [01:05 - 01:13] be bi\n"
    )


@pytest.mark.parametrize("is_terminal", [False, True])
def test_an_indented_text_is_broken_between_words(is_terminal: bool) -> None:
    screen = make_screen(is_terminal, width=40)
    with LiveText(screen, indent=3) as live:
        live.add(words(*(index % 60 for index in range(100))))
    lines = ESCAPE_CODE.sub("", written(screen)).splitlines()
    assert len(lines) > 5
    assert all(line.startswith("   ") and len(line) <= 40 for line in lines)
    printed_words = [word for line in lines for word in line.split()]
    assert printed_words == [TOKENIZER.decode([index % 60]) for index in range(100) if index % 60 != 5]
