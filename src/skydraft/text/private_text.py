"""What in a text is private by its look: rules of our own, with check digits where there are some, and no model.

They find what has a form. A name, an address or an illness has none: who wants these kept on a device keeps the whole
text there (`--mode edge`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple


class Rule(NamedTuple):
    """kind: of what is found, in words. is_right: whether a match is one, where its form alone does not say."""

    kind: str
    pattern: re.Pattern[str]
    is_right: Callable[[str], bool] = bool

    def find(self, text: str) -> Iterator[str]:
        return (match[0] for match in self.pattern.finditer(text))


def private_kinds(text: str, own_patterns: Sequence[str] = ()) -> list[str]:
    """What of a text should stay on its device, each kind once and in words; empty: nothing was found.

    Args:
        own_patterns: regular expressions of the user's.
    """
    own = (Rule(f"what the pattern {pattern!r} finds", re.compile(pattern)) for pattern in own_patterns)
    found = (rule.kind for rule in (*RULES, *own) if any(map(rule.is_right, rule.find(text))))
    return list(dict.fromkeys(found))


def words_in(value: object) -> Iterator[str]:
    """The texts and numbers in a value of JSON, without the names of fields."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from words_in(each)
    elif value is not None:
        yield str(value)


def _has_luhn_digit(number: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812-1, and not all are the same."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _has_iban_digits(number: str) -> bool:
    """Whether the check digits are those of ISO 13616."""
    letters = number.replace(" ", "")
    moved = letters[4:] + letters[:4]
    return 15 <= len(letters) <= 34 and int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1


RULES = (
    Rule("an e-mail address", re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    Rule("a phone number", re.compile(r"(?<![\w+])\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,6}(?!\w)")),
    Rule("a phone number", re.compile(r"(?<![\w-])\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}(?![\w-])")),
    Rule("a card number", re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])"), _has_luhn_digit),
    Rule("an account number (IBAN)", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b"), _has_iban_digits),
    Rule("a social security number", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")),
    Rule(
        "a password or a key",
        re.compile(
            r"(?i)\b(?:pass(?:word|phrase|code)|pin|secret|(?:api|access)[ _-]?(?:key|token))\b\s*(?:is\b|[:=])\s*\S"
        ),
    ),
    Rule(
        "a password or a key",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:AKIA[0-9A-Z]{16}|sk-[\w-]{20,}|gh[pousr]_\w{30,})\b"),
    ),
)
