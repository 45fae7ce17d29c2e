from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from training import evaluate


def test_pairs_of_several_seeds_are_judged_by_what_they_reach_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [SimpleNamespace(actor=actor, emotion="happy") for actor in evaluate.REPORTED for _ in range(4)]
    strangers = [SimpleNamespace(actor=1, emotion="sad")]
    monkeypatch.setattr(evaluate, "read_clips", lambda _: [*strangers, *clips])
    happy, sad = "A woman sounds happy.", "A woman sounds sad."

    def scores(num_right: int) -> dict[str, object]:
        written = [happy if index % 4 < num_right else sad for index in range(len(clips))]
        return {"target": {"captions": [happy] * len(clips)}, "draft": {"captions": written}}

    shares = evaluate.over_seeds([scores(1), scores(2)], Path())
    assert shares["target"] == (1.0, 1.0, 1.0)
    assert shares["draft"].value == 0.375
    assert shares["gap"].value == 0.625
    assert shares["gap"].low > 0
