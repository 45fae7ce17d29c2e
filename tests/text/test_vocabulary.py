import pytest

from skydraft.errors import VocabularyMismatch
from skydraft.text.vocabulary import Vocabulary, fit

TOKENS = ("a", "b", None, "d")


def test_padding_has_no_token_and_holes_count() -> None:
    vocabulary = Vocabulary("m", (*TOKENS, None, None), size=8)
    assert vocabulary.num_tokens == 4
    assert [vocabulary.token(i) for i in (-1, 0, 2, 3, 4, 9)] == [None, "a", None, "d", None, None]


def test_ids_without_a_row_have_no_token() -> None:
    assert Vocabulary("m", ("a", "b", "c"), size=2).num_tokens == 2


def test_models_that_pad_differently_fit() -> None:
    small = Vocabulary("3B", (*TOKENS, None), size=5)
    large = Vocabulary("7B", (*TOKENS, None, None, None), size=7)
    assert fit(small, large) == fit(large, small) == 4
    assert small.digest() == large.digest()


def test_one_may_extend_the_other() -> None:
    small, large = Vocabulary("small", TOKENS, 4), Vocabulary("large", (*TOKENS, "e"), 5)
    assert fit(small, large) == fit(large, small) == 4
    assert small.digest() != large.digest()
    assert small.digest() == large.digest(4)


def test_a_mismatch_names_both_models_and_the_first_ids() -> None:
    theirs = Vocabulary("the target", ("a", "x", "y", "z", "w"), 5)
    with pytest.raises(VocabularyMismatch) as caught:
        fit(Vocabulary("the draft", (*TOKENS, "e"), 5), theirs)
    assert caught.value.differences == [(1, "b", "x"), (2, "no token", "y"), (3, "d", "z")]
    assert "the draft" in str(caught.value)
    assert "id 1 is 'b' in the draft and 'x' in the target" in str(caught.value)


def test_models_without_tokens_do_not_fit() -> None:
    with pytest.raises(VocabularyMismatch):
        fit(Vocabulary("empty", (), 5), Vocabulary("m", TOKENS, 4))


def test_the_digest_tells_maps_apart_that_run_together() -> None:
    maps = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", None, "c"), (None, "ab", "c"), ("a", "b", "c"), ("ab", "-", "c")]
    digests = {Vocabulary("m", tokens, len(tokens)).digest() for tokens in maps}
    assert len(digests) == len(maps)
    assert {len(digest) for digest in digests} == {16}


def test_the_digest_is_fixed_for_it_goes_over_the_network() -> None:
    assert Vocabulary("any name", TOKENS, 4).digest().hex() == "7354937bf08eff0d64e5a6be24b78b01"


def test_more_ids_than_there_are_cannot_be_summed_up() -> None:
    with pytest.raises(ValueError, match="has 4 tokens"):
        Vocabulary("m", TOKENS, 8).digest(5)


def test_tokens_that_are_no_text_can_be_summed_up() -> None:
    assert len(Vocabulary("m", ("\ud800",), 1).digest()) == 16


def test_digests_of_the_first_tokens_are_summed_up_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = (*TOKENS, "e", "ff")
    vocabulary = Vocabulary("m", tokens, size=6)
    digests = [vocabulary.digest(num_tokens) for num_tokens in range(6)]
    assert digests[4:] == [Vocabulary("n", tokens[:num_tokens], size=6).digest() for num_tokens in (4, 5)]
    assert len(set(digests)) == 6
    monkeypatch.setattr("skydraft.text.vocabulary._delimited", None)
    assert [vocabulary.digest(num_tokens) for num_tokens in range(6)] == digests
