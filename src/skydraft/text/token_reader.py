"""What follows from the text of a text's tokens: where stop strings end it, and what its grammar allows."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.core import Grammar, SamplingParams
from skydraft.text.grammar_matcher import GrammarCompiler, GrammarMatcher
from skydraft.text.tokenizer import Tokenizer
from skydraft.text.until_stop import TextUntilStop


class TokenReader:
    """Reads the tokens of one model, for any number of texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._compiler = GrammarCompiler(tokenizer)

    def warm_up(self) -> None:
        """Make now what the first text with a grammar needs, which takes long with a large vocabulary."""
        self._compiler.warm_up()

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids by themselves."""
        return self._tokenizer.decode(token_ids)

    def until_stop(self, sampling: SamplingParams) -> TextUntilStop:
        """For one text, at its beginning."""
        return TextUntilStop(self._tokenizer, sampling.stop)

    def compile(self, grammar: Grammar) -> None:
        """In any thread, before a text that follows it: it takes long, once.

        Raises:
            ConfigError: it is no grammar, or llguidance is missing.
        """
        self._compiler.compile(grammar)

    def matcher(self, sampling: SamplingParams) -> GrammarMatcher | None:
        """For one text, at its beginning; None: it has no grammar. Errors as `compile`, where that was not called."""
        return None if sampling.grammar is None else self._compiler.matcher(sampling.grammar)
