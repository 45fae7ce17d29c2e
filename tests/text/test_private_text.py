from __future__ import annotations

import pytest

from skydraft.text.private_text import private_kinds, words_in


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ana.b+c@mail.example.org today", "an e-mail address"),
        ("call +49 30 1234567", "a phone number"),
        ("call +1 (415) 555-0132 now", "a phone number"),
        ("my number is (415) 555-0132.", "a phone number"),
        ("415-555-0132", "a phone number"),
        ("pay with 4111 1111 1111 1111", "a card number"),
        ("pay with 378282246310005", "a card number"),
        ("to DE89 3704 0044 0532 0130 00, please", "an account number (IBAN)"),
        ("to GB82WEST12345698765432", "an account number (IBAN)"),
        ("SSN 078-05-1120", "a social security number"),
        ("the password is hunter2", "a password or a key"),
        ("API_KEY=abc", "a password or a key"),
        ("key AKIAIOSFODNN7EXAMPLE", "a password or a key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a password or a key"),
    ],
)
def test_what_has_a_private_form_is_found_and_named(text: str, kind: str) -> None:
    assert private_kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "The password has to be changed every month.",
        "In 2024 we sold 1,234,567,890 units at 3.50 each.",
        "4111 1111 1111 1112",  # the check digit is wrong
        "0000 0000 0000 0000",
        "DE88 3704 0044 0532 0130 00",
        "version 1.2.3-4 of 2024-05-06, chapter 12-34-5678",
        "@home and a+b",
        "IP 192.168.100.200",
        "",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert private_kinds(text) == []


def test_each_kind_is_named_once_and_the_users_own_patterns_count_too() -> None:
    text = "a@b.example, c@d.example; project Nightjar"
    own = "what the pattern '(?i)nightjar' finds"
    assert private_kinds(text, ["(?i)nightjar", "nothing"]) == ["an e-mail address", own]


@pytest.mark.parametrize("piece", ["a", "a.", "1", "1 ", "+1", "A0", "password ", "-", "@", "("])
def test_a_long_text_is_read_in_a_time_that_grows_with_its_length(piece: str) -> None:
    private_kinds(piece * 200_000)  # were it its square, this would take minutes


def test_the_words_in_json_are_all_its_texts_and_numbers() -> None:
    value = {"role": "user", "calls": [{"arguments": {"to": ["a", 4.5]}}, None], "more": ()}
    assert list(words_in(value)) == ["user", "a", "4.5"]
