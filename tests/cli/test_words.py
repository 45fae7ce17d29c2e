import pytest

from skydraft.cli.words import counted, harmless, printable, seconds


def test_printable_is_one_line_without_control_codes():
    assert printable("a\nb\x1b[31m\tc\u202e ") == "a b [31m c"


def test_harmless_keeps_lines_and_tabs():
    assert harmless("a\n\tb \x1b[31m\x00\x9b\r\udcc3é日") == "a\n\tb [31mé日"


def test_harmless_keeps_what_languages_need():
    text = "une\u00a0fois\u3000日本 \U0001f469\u200d\U0001f680"  # a space that holds, a wide one, a joined emoji
    assert harmless(text) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 tokens"), (1, "1 token"), (1234, "1,234 tokens")])
def test_nouns_agree_with_their_numbers(number, text):
    assert counted(number, "token") == text


@pytest.mark.parametrize(("time_s", "text"), [(0.004, "0.00 s"), (9.99, "9.99 s"), (61.25, "61.2 s")])
def test_seconds_have_as_many_digits_as_matter(time_s, text):
    assert seconds(time_s) == text
