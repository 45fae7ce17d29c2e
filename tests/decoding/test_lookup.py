from __future__ import annotations

import math

import pytest

from skydraft.decoding.lookup import NUM_CHAINS, Lookup, LookupSources
from skydraft.decoding.suffix_index import SuffixIndex
from skydraft.policies.match_confidence import MatchConfidence

END = 99
QUOTED = list(range(10, 30))


def looked_up(prompt: list[int], text: list[int], sources: LookupSources | None = None) -> Lookup:
    lookup = Lookup(MatchConfidence(), prompt, (END,), sources or LookupSources())
    lookup.follow(text)
    return lookup


def best_chain(lookup: Lookup, least_prob: float = 1e-9, count: int = 64) -> list[int]:
    chains = lookup.chains(least_prob, count)
    return list(chains[0].token_ids) if chains else []


def test_a_text_that_quotes_its_prompt_is_drafted_on_from_the_quotation() -> None:
    lookup = looked_up([1, 2, *QUOTED, END, 3], [5, 10, 11])
    assert best_chain(lookup) == [*QUOTED[2:], END]  # and not beyond the end
    assert best_chain(lookup, count=4) == QUOTED[2:6]
    assert best_chain(lookup, count=0) == []


def test_what_stands_nowhere_else_is_not_guessed() -> None:
    assert best_chain(looked_up([1, 2, 3], [4, 5, 6])) == []
    assert best_chain(looked_up([], [])) == []


def test_the_longer_what_agrees_the_longer_the_draft() -> None:
    lengths = [len(best_chain(looked_up(QUOTED, [5, *QUOTED[:length]]), 0.3)) for length in (2, 4, 8)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_no_token_is_less_probable_than_was_asked_for() -> None:
    lookup = looked_up([1, 2, 3, 4, 5, 6, 1, 2, 7, 8, 9, 1, 2, 0], [1, 2])
    chains = lookup.chains(0.02, 64)
    assert len(chains) == NUM_CHAINS
    assert len({chain.token_ids[0] for chain in chains}) == NUM_CHAINS
    assert all(sum(chain.log_probs) >= math.log(0.02) for chain in chains)
    assert sum(math.exp(chain.log_probs[0]) for chain in chains) <= 1
    assert lookup.chains(1.0, 64) == []


@pytest.mark.parametrize("prompt", [[], [7], [7, 8, 9], list(range(100, 160))])
def test_what_a_client_expects_is_drafted_from_the_first_token(prompt: list[int]) -> None:
    lookup = looked_up(prompt, [], LookupSources(QUOTED))
    assert best_chain(lookup)[:1] == QUOTED[:1]
    lookup.follow([*QUOTED[:5], 3])  # it goes another way for a moment
    lookup.follow(QUOTED[8:11])
    assert best_chain(lookup)[:5] == QUOTED[11:16]


def test_earlier_texts_are_looked_up_beside_the_prompt() -> None:
    earlier = SuffixIndex()
    earlier.begin_document()
    earlier.extend([1, 2, 3, 40, 41])
    lookup = looked_up([2, 3, 50, 51], [1, 2, 3], LookupSources(earlier=earlier))
    first, second = lookup.chains(0.001, 2)
    assert list(first.token_ids) == [40, 41]  # three tokens agree
    assert list(second.token_ids) == [50, 51]  # two
    assert len(earlier) == 7


def test_of_two_places_that_agree_on_what_follows_one_is_taken() -> None:
    chains = looked_up([1, 2, 3, 9, 4, 1, 2, 3, 9, 5], [1, 2]).chains(0.001, 1)
    assert [list(chain.token_ids) for chain in chains] == [[3]]


def test_it_learns_whether_texts_go_on_as_they_did() -> None:
    confidence = MatchConfidence()
    prompt = [1, 2, 3, 1, 2, 3, 1, 2, 3]
    before = confidence.prob(2)
    lookup = Lookup(confidence, prompt)
    lookup.follow([7, 1, 2, 8])  # 3 was guessed
    assert confidence.prob(2) < before
    lookup.follow([1, 2, 8] * 8)
    assert confidence.prob(16) > MatchConfidence().prob(16)
