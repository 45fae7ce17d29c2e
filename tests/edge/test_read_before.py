from __future__ import annotations

import pytest

from skydraft.edge.read_before import ReadBefore, SpareSlot
from tests.engines.operations import text_prompt
from tests.linked import table

IDS = [2, 3, 4] * 30


def test_memory_that_runs_short_ends_no_text_and_loses_no_slot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = table("table:vocab=8,seed=1")
    before, opened = ReadBefore(engine, 2**20), engine.open(text_prompt(*IDS))
    keys = before.keys(IDS)

    def copy_out(*_: int) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine, "copy_out", copy_out)
        before.keep(keys, opened.slot)
        before.keep_text(SpareSlot(opened.slot, IDS, len(IDS), opened.logits))
    assert caplog.text.count("could not be kept") == 2
    assert not before.find(keys, len(IDS))
    before.keep(keys, opened.slot)
    assert sum(piece.num_tokens for piece in before.find(keys, len(IDS))) == 64
