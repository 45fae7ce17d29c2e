"""Which tokens may follow a text that has a grammar: llguidance, forked over the nodes of a tree."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from skydraft.core import Grammar
from skydraft.errors import ConfigError
from skydraft.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Mask: TypeAlias = npt.NDArray[np.bool_]

NUM_KEPT = 16  # grammars that are compiled
MAX_GRAMMAR_SIZE = 50_000  # symbols


class GrammarMatcher:
    """Where a text stands in its grammar.

    A text that has left its grammar goes on without one: a device may have written it alone.

    Attributes:
        has_left: that it has.
    """

    def __init__(self, matcher: LLMatcher, num_ids: int, end_ids: Sequence[int]) -> None:
        self._matcher = matcher
        self._num_ids = num_ids
        self._end_ids = frozenset(end_ids)
        self._num_tokens = 0  # of the text
        self.has_left = False

    @property
    def has_ended(self) -> bool:
        """Whether the grammar is complete and nothing can follow."""
        return not self.has_left and self._matcher.is_stopped()

    def follow(self, token_id: int) -> None:
        """The text has this token too."""
        self._num_tokens += 1
        if not self.has_left and not self.has_ended:
            self.has_left = not self._matcher.try_consume_tokens([token_id])

    def follow_text(self, token_ids: Sequence[int]) -> None:
        """The text has grown to these."""
        for token_id in token_ids[self._num_tokens :]:
            self.follow(token_id)

    def masks(self, paths: Sequence[Sequence[int]]) -> list[Mask | None]:
        """The tokens that may follow the text and each path behind it.

        Returns:
            bool [num_ids] for each; None where nothing is to be chosen: the path is none that the text can take, or it
            ends the text.
        """
        return [None if self.has_left or self.has_ended else self._mask(list(path)) for path in paths]

    def _mask(self, path: list[int]) -> Mask | None:
        matcher = self._matcher
        if not self._end_ids.isdisjoint(path) or matcher.validate_tokens(path) < len(path):
            return None
        matcher.consume_tokens(path)
        mask = None if matcher.is_stopped() else matcher.compute_bitmask()
        matcher.rollback(len(path))
        if mask is None:
            return None
        bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")
        return bits[: self._num_ids].astype(np.bool_)


class GrammarCompiler:
    """Makes matchers for the texts of one tokenizer.

    What it needs of the tokenizer is made when it is first used: with 151,665 tokens that takes four seconds and 90 MB,
    and most of the time no other thread runs.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._compiled: Callable[[Grammar], LLMatcher] = lru_cache(NUM_KEPT)(self._compile)

    def warm_up(self) -> None:
        """Make now what the first grammar needs, unless llguidance is missing."""
        if importlib.util.find_spec("llguidance") is not None:
            _ = self._tokens

    def compile(self, grammar: Grammar) -> None:
        """Before a text that follows it, which then need not wait for that.

        Raises:
            ConfigError: it is no grammar, or llguidance is missing.
        """
        self._compiled(grammar)

    def matcher(self, grammar: Grammar) -> GrammarMatcher:
        """For one text, at its beginning. Raises: as `compile`."""
        vocabulary = self._tokenizer.vocabulary
        return GrammarMatcher(self._compiled(grammar).deep_copy(), vocabulary.num_tokens, vocabulary.end_ids)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError as error:
            raise ConfigError("a grammar needs llguidance: pip install 'skydraft[grammar]'") from error
        match grammar.kind:
            case "json":
                source = LLMatcher.grammar_from_json_schema(grammar.source)
            case "lark":
                source = LLMatcher.grammar_from_lark(grammar.source)
            case "regex":
                source = LLMatcher.grammar_from_regex(grammar.source)
        limits = LLParserLimits(max_grammar_size=MAX_GRAMMAR_SIZE, verbose_errors=False)
        matcher = LLMatcher(self._tokens, source, log_level=0, limits=limits)
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())
            raise ConfigError(f"the {grammar.kind} grammar cannot be used: {reason}")
        return matcher

    @cached_property
    def _tokens(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        vocabulary, spelling = self._tokenizer.vocabulary, self._tokenizer.spelling()
        num_ids, end_ids = vocabulary.num_tokens, list(vocabulary.end_ids)
        if isinstance(spelling, str):
            # Where no token ends a text, one behind the last does for llguidance, and is cut off every mask.
            return LLTokenizer(spelling, n_vocab=num_ids + 1, eos_token=end_ids or [num_ids])
        tokens = _SpelledTokens(spelling[:num_ids], end_ids)
        return LLTokenizer(TokenizerWrapper(tokens), eos_token=end_ids or [tokens.eos_token_id])


class _SpelledTokens:
    """The bytes of each token, as llguidance asks for them; special ones begin with ff.

    Behind the vocabulary's come a token for each byte that text may have, for llguidance spells what a grammar forces
    before it knows the token, and one that ends a text. They are cut off every mask.
    """

    bos_token_id = None

    def __init__(self, spelling: Sequence[bytes], end_ids: Sequence[int]) -> None:
        self.tokens = [*spelling, *(bytes([byte]) for byte in range(255)), b"\xff<end>"]
        self.eos_token_id = end_ids[0] if end_ids else len(self.tokens) - 1
        self.special_token_ids = [token_id for token_id, token in enumerate(self.tokens) if token.startswith(b"\xff")]
        self._ids = {token: token_id for token_id, token in reversed(list(enumerate(self.tokens)))}
        self._longest = max(map(len, self.tokens))

    def __call__(self, text: bytes) -> list[int]:
        """Token ids of a text: the longest first."""
        token_ids, start = list[int](), 0
        while start < len(text):
            ends = range(min(len(text), start + self._longest), start, -1)
            end = next(end for end in ends if text[start:end] in self._ids)
            token_ids.append(self._ids[text[start:end]])
            start = end
        return token_ids
