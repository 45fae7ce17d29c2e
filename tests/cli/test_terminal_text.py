import pytest

from skydraft.cli.terminal_text import counted, safe_line, safe_text, seconds


def test_safe_line_is_one_line_without_control_codes() -> None:
    assert safe_line("a\nb\x1b[31m\tc\u202e ") == "a b [31m c"


def test_safe_text_keeps_lines_and_tabs() -> None:
    assert safe_text("a\n\tb \x1b[31m\x00\x9b\r\udcc3é日") == "a\n\tb [31mé日"


@pytest.mark.parametrize(
    "sign", ["\u202e", "\u202a", "\u2066", "\u2069", "\u200e", "\u061c", "\u200b", "\u2060", "\ufeff"]
)
def test_signs_that_turn_text_or_take_no_place_are_left_out(sign: str) -> None:
    assert safe_text(f"user{sign}nimda") == "usernimda"
    assert safe_line(f"user{sign}nimda") == "usernimda"


@pytest.mark.parametrize(
    "text",
    [
        "une\u00a0fois\u3000日本",  # a space that holds, a wide one
        "\U0001f469\u200d\U0001f680 \U0001f3f3\ufe0f\u200d\U0001f308",  # joined emoji
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian
        "क्\u200dष",  # Devanagari
        "\u0600\u0661\u0662",  # a sign of the category of the invisible ones that is seen
    ],
)
def test_safe_text_and_safe_line_keep_what_languages_need(text: str) -> None:
    assert safe_text(text) == text
    assert safe_line(text) == text


def test_joiners_hide_in_no_ascii_word_and_do_not_pile_up() -> None:
    assert safe_text("\u200dpass\u200cword\u200d") == "password"
    assert safe_text("日\u200d\u200c\u200d本") == "日\u200d本"
    assert safe_text("\u200d本", before="日") == "\u200d本"
    assert safe_text("\u200d本", before="a") == "本"


@pytest.mark.parametrize(("number", "text"), [(0, "0 tokens"), (1, "1 token"), (1234, "1,234 tokens")])
def test_nouns_agree_with_their_numbers(number: int, text: str) -> None:
    assert counted(number, "token") == text


@pytest.mark.parametrize(("time_s", "text"), [(0.004, "0.00 s"), (9.99, "9.99 s"), (61.25, "61.2 s")])
def test_seconds_have_as_many_digits_as_matter(time_s: float, text: str) -> None:
    assert seconds(time_s) == text
