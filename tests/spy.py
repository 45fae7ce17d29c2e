"""Calls that do what they did before and are noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Note = TypeVar("Note")


def spy_on(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, note: Callable[..., Note]) -> list[Note]:
    """What `note` makes of the arguments of each call of `owner.name` from now on."""
    notes: list[Note] = []
    real = getattr(owner, name)

    def noted(*args: object, **named: object) -> object:
        notes.append(note(*args, **named))
        return real(*args, **named)

    monkeypatch.setattr(owner, name, noted)
    return notes
