"""The self-test finds each cause of other bits when what mends it is switched off."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from skydraft.engines.llamacpp.branches import BranchBook
from skydraft.engines.self_test import TextLengths, hold_to_promise
from tests.llamacpp.installed import require_llamacpp
from tests.llamacpp.targets import LONG, SHORT, WIDE, Miniature, load

require_llamacpp()

ENGINE = "skydraft.engines.llamacpp.engine"
FLOAT16 = 1  # llama_cpp.GGML_TYPE_F16
LOAD = "skydraft.engines.llamacpp.load"


def change_contexts(patch: pytest.MonkeyPatch, **params: object) -> None:
    import llama_cpp

    make = llama_cpp.llama_init_from_model

    def changed(model: object, given: object) -> object:
        for name, value in params.items():
            setattr(given, name, value)
        return make(model, given)

    patch.setattr(llama_cpp, "llama_init_from_model", changed)


def allow_rows(patch: pytest.MonkeyPatch, num_rows: int) -> None:
    patch.setattr(f"{LOAD}._find_max_rows", lambda *_: num_rows)


def leave_out_flash_attention(patch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    kind = llama_cpp.GGML_TYPE_F32
    change_contexts(patch, flash_attn_type=llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED, type_k=kind, type_v=kind)
    allow_rows(patch, 3)  # else one would be found


def split_rows_among_threads(patch: pytest.MonkeyPatch) -> None:
    change_contexts(patch, type_v=FLOAT16)


def compute_attention_in_tiles(patch: pytest.MonkeyPatch) -> None:
    change_contexts(patch, type_v=FLOAT16)
    allow_rows(patch, 64)


def read_eight_rows_of_repacked_weights(patch: pytest.MonkeyPatch) -> None:
    allow_rows(patch, 8)


def read_eight_rows_of_k_quants(patch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    default = llama_cpp.llama_model_default_params

    def plain() -> object:
        params = default()
        params.use_extra_bufts = False  # no repacking
        return params

    patch.setattr(llama_cpp, "llama_model_default_params", plain)
    allow_rows(patch, 8)


def read_two_rows_of_floats(patch: pytest.MonkeyPatch) -> None:
    allow_rows(patch, 2)


def free_the_cells_of_rejected_nodes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(f"{LOAD}.BranchBook", lambda num_slots, num, holds_rejected: BranchBook(num_slots, num))


def put_slots_into_one_cache(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(f"{LOAD}.BranchBook", lambda _, num, holds_rejected: BranchBook(2, num, holds_rejected))
    patch.setattr(f"{ENGINE}.LlamaCppEngine._home", lambda engine, slot: (engine._caches[0], slot))


def read_prompts_in_the_chunks_they_come_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(f"{ENGINE}.LlamaCppEngine._whole_pieces", lambda self, prompt_ids, start, end: [(start, end)])


class Cause(NamedTuple):
    """switch: brings it back. found: by some of these ways the self-test finds it, by which is up to the processor."""

    switch: Callable[[pytest.MonkeyPatch], None]
    kind: str
    found: set[str]
    lengths: TextLengths = SHORT
    num_threads: int = 1


CAUSES = [
    Cause(leave_out_flash_attention, "Q4_K_S", {"blocks of 2", "blocks of 5", "blocks of 8"}),
    Cause(split_rows_among_threads, "Q5_0", {"blocks of 2"}, LONG, num_threads=2),
    Cause(compute_attention_in_tiles, "Q5_0", {"blocks of 64"}, WIDE),
    Cause(read_eight_rows_of_repacked_weights, "Q4_K_S", {"blocks of 5", "blocks of 8"}),
    Cause(read_eight_rows_of_k_quants, "Q4_K_S", {"blocks of 8"}),
    Cause(read_two_rows_of_floats, "F16", {"blocks of 2"}),
    Cause(free_the_cells_of_rejected_nodes, "Q4_K_S", {"trees"}),
    Cause(put_slots_into_one_cache, "Q4_K_S", {"two slots"}),
    Cause(read_prompts_in_the_chunks_they_come_in, "Q4_K_S", {"two slots"}),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.switch.__name__)
def test_a_cause_is_found_and_the_promise_taken_back(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch, cause: Cause
) -> None:
    path = miniature(cause.kind)
    with monkeypatch.context() as patch:
        cause.switch(patch)
        engine = load(path, num_threads=cause.num_threads, prefill_chunk=64)
        differences = hold_to_promise(engine, cause.lengths)
    assert differences is not None
    assert cause.found & set(differences.ways)
    assert not engine.row_promise.is_invariant
