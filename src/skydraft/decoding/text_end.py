"""Where a text ends beside its end tokens and its length: before a stop string, or where its grammar is complete."""

from __future__ import annotations

from collections.abc import Sequence

from skydraft.core import Draft
from skydraft.sampling.acceptance import Judgement
from skydraft.text.grammar_matcher import GrammarMatcher, Mask
from skydraft.text.until_stop import TextUntilStop


class TextEnd:
    """Follows one text of a cloud.

    Args:
        until_stop: where it has stop strings. matcher: where it has a grammar.
    """

    def __init__(self, until_stop: TextUntilStop | None = None, matcher: GrammarMatcher | None = None) -> None:
        self._until_stop = until_stop
        self._matcher = matcher

    @property
    def has_come(self) -> bool:
        has_stop = self._until_stop is not None and self._until_stop.stop is not None
        return has_stop or (self._matcher is not None and self._matcher.has_ended)

    @property
    def num_unbilled(self) -> int:
        """Tokens of the text that belong to the stop string that ended it."""
        return 0 if self._until_stop is None else self._until_stop.num_after_stop

    def masks(self, paths: Sequence[Sequence[int]]) -> list[Mask | None] | None:
        """As GrammarMatcher.masks; None where there is no grammar."""
        return None if self._matcher is None else self._matcher.masks(paths)

    def follow(self, token_ids: Sequence[int], is_forced: bool = False) -> None:
        """The text has these tokens too.

        Args:
            is_forced: the device has committed them: no stop string in them ends the text.
        """
        for token_id in token_ids:
            if self._matcher is not None:
                self._matcher.follow(token_id)
            if self._until_stop is not None:
                (self._until_stop.follow if is_forced else self._until_stop.feed)(token_id)

    def cut(self, draft: Draft, judgement: Judgement) -> Judgement:
        """What of a judgement the text has: nothing follows the token with which its end has come."""
        path, token_id = judgement
        self.follow([draft.token_ids[node] for node in path[: draft.num_forced]], is_forced=True)
        for count, node in enumerate(path[draft.num_forced :], start=draft.num_forced + 1):
            self.follow([draft.token_ids[node]])
            if self.has_come:
                return Judgement(path[:count], None)
        if token_id is not None:
            self.follow([token_id])
        return judgement
