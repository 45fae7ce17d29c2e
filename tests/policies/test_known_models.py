import re
from pathlib import Path

import pytest

from skydraft.policies.known_models import KnownPair, known_drafts, known_families, propose_known_draft
from skydraft.policies.tiers import Capacity

GB = 10**9


def drafts(target: str) -> list[str]:
    return [pair.draft.name for pair in known_drafts(target)]


@pytest.mark.parametrize(
    "name",
    [
        "qwen2.5-coder-1.5b-instruct-q4_k_m",
        "Qwen2.5-Coder-1.5B-Instruct",
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q8_0.gguf",
        "vllm:Qwen/Qwen2.5-Coder-1.5B",
        "Qwen2.5-Coder-1.5B.Q6_K.gguf",
    ],
)
def test_a_model_is_known_whatever_its_tuning_and_quantization(name: str) -> None:
    assert drafts(name) == ["Qwen2.5-Coder-0.5B"]


@pytest.mark.parametrize(
    "name",
    [
        "deepseek-r1-distill-qwen-1.5b",
        "qwen2.5-coder-11.5b",
        "llama-3-8b",
        "phi-4",
        "table:vocab=64",
        "",
        "codeqwen3-8b",
    ],
)
def test_a_model_whose_name_only_looks_alike_is_not_known(name: str) -> None:
    assert drafts(name) == []


def test_drafts_are_of_the_targets_family_and_at_most_half_its_size() -> None:
    assert drafts("Meta-Llama-3.1-8B-Instruct") == ["Llama-3.2-1B", "Llama-3.2-3B"]
    assert drafts("Qwen3-8B") == ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"]
    assert drafts("qwen3-4b-instruct-2507") == ["Qwen3-0.6B", "Qwen3-1.7B"]
    assert drafts("Qwen3-0.6B") == []


def test_only_pairs_that_were_run_are_called_tested() -> None:
    tested = {(pair.draft.name, pair.target.name) for pair in every_pair() if pair.is_tested}
    assert tested == {("Qwen2.5-Coder-0.5B", "Qwen2.5-Coder-1.5B")}
    named = {names for family in known_families() for names in family.tested}
    assert tested == named  # a pair that is no pair of the table would be told to nobody


def test_the_table_says_all_that_a_proposal_needs() -> None:
    families = known_families()
    assert {family.name.split()[0] for family in families} >= {"Qwen2.5", "Qwen3", "Llama", "Gemma", "Mistral", "Phi"}
    for model in (model for family in families for model in family.models):
        assert model.licence
        assert bool(model.file) == bool(model.quantization) == bool(model.size_gb)
        assert not model.file or re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w.-]+\.gguf)?", model.file)
        bits = 8 * model.size_gb * GB / model.num_params
        assert not model.file or 4 < bits < 17  # of Q4_0 to BF16, with an embedding table of more
    assert all(len({model.name for model in family.models}) == len(family.models) for family in families)


def test_every_family_has_a_pair() -> None:
    assert {pair.target.name for pair in every_pair()} >= {family.models[-1].name for family in known_families()}


def test_the_largest_draft_is_proposed_that_memory_and_bandwidth_allow() -> None:
    def proposed(gb_per_s: float, free_gb: float) -> str | None:
        proposal = propose_known_draft("Qwen2.5-7B", Capacity(gb_per_s * GB, int(free_gb * GB)))
        return None if proposal is None else proposal.pair.draft.name

    assert proposed(30, 16) == "Qwen2.5-3B"
    assert proposed(30, 4) == "Qwen2.5-1.5B"  # 2.1 GB are more than half
    assert proposed(12, 16) == "Qwen2.5-1.5B"
    assert proposed(6, 16) == "Qwen2.5-0.5B"
    assert proposed(4, 16) is None
    assert proposed(30, 0.9) is None


def test_a_proposal_says_what_it_takes_and_whether_it_was_tested() -> None:
    tested = propose_known_draft("qwen2.5-coder-1.5b-instruct-q4_k_m", Capacity(12 * GB, 16 * GB))
    assert tested is not None
    assert tested.sentence == (
        "--draft Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf (0.49 billion "
        "parameters, Q4_K_M, 0.49 GB, Apache-2.0) shares the token ids of Qwen2.5-Coder-1.5B, tested; here at most 24 "
        "tokens/s"
    )
    read = propose_known_draft("gemma-3-27b-it", Capacity(12 * GB, 16 * GB))
    assert read is not None
    assert "by their documentation, not tested" in read.sentence


def every_pair() -> list[KnownPair]:
    return [pair for family in known_families() for model in family.models for pair in known_drafts(model.name)]


def test_the_page_on_engines_lists_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs/engines.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for family in known_families():
        first = next(pair for pair in every_pair() if pair.target in family.models)
        count = f"{family.num_tokens:,}"
        words = re.split(r"[-.]", first.draft.name.lower())
        assert any(count in row and all(word in row.lower() for word in words) for row in rows), family.name
