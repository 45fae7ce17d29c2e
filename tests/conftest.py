"""Where the real data are, and tests that are skipped with a sentence where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def unseen_clips() -> list[Path]:
    """The clips of the actors that the embedded pair has never heard."""
    labels = SHARED / "speech" / "labels.jsonl"
    if not labels.is_file():
        pytest.skip(f"needs the recordings in {labels.parent}")
    from bench import identity  # the torch extra

    return identity.unseen_clips(labels.parent)


@pytest.fixture(scope="session")
def text_pair() -> Path:
    """A folder with a real text target and drafts of it."""
    folder = SHARED / "text"
    if not (folder / "target" / "config.json").is_file():
        pytest.skip(f"needs the text pair in {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Two cores are shared by a cloud, a device and the tests."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
