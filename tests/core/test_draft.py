from __future__ import annotations

import pytest

from skydraft.core import Draft, TreeShape


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (Draft.chain(-1, (1,)), "starts at position -1"),
        (Draft(0, (1, 2), TreeShape((0,))), "2 tokens and 1 parents"),
        (Draft(0, (1, 2), TreeShape((0, 2))), "node 1 hangs from row 2"),
        (Draft(0, (1, 2), TreeShape((1, 0))), "node 0 hangs from row 1"),
        (Draft(0, (1, 2), TreeShape((0, -1))), "row -1"),
        (Draft.chain(0, (1, 2), num_forced=3), "3 of a draft's 2 tokens are forced"),
        (Draft.chain(0, (1, 2), num_forced=-1), "-1 of a draft's 2 tokens are forced"),
        (Draft(0, (1, 2), TreeShape((0, 0)), num_forced=2), "must be a chain from the root"),
        (Draft(0, (1, 4, 4), TreeShape((0, 1, 1))), "same token twice"),
    ],
)
def test_a_malformed_draft_is_refused(draft: Draft, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draft.check()
