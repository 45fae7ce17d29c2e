"""The cloud's half of a session: the verified log, the offers that wait, the next forward pass. No sockets, no clocks.

The slot's KV cache holds the prompt and the first `kv_length` tokens of the log: all of it or all but a few. What is
missing leads the next forward pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import AcceptanceRule, Draft, Exact, Prompt, SamplingParams
from skydraft.decoding.alignment import Taken, is_ahead, remainder, take
from skydraft.engines.base import Array
from skydraft.errors import RemoteProtocolError
from skydraft.protocol import messages, offers, packing
from skydraft.sampling.acceptance import Judgement, Question, ask, conclude, judge
from skydraft.sampling.choice import target_choices


class SessionTerms(NamedTuple):
    """What both sides agreed on when the session was opened.

    num_edge_ids: tokens of the device's vocabulary: ids on the wire take as many bits as these need.
    num_shared_ids: ids that both models know; the target's others are never chosen.
    """

    prompt: Prompt
    sampling: SamplingParams
    rule: AcceptanceRule
    num_edge_ids: int
    num_shared_ids: int


class Step(NamedTuple):
    """What a session wants of the next forward pass.

    token_ids, parents: to append to its slot; the first num_lead are log tokens that the KV cache lacks.
    draft: what is judged; None on credit.
    num_offers: that the draft was made of.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...] | None
    num_lead: int
    draft: Draft | None
    num_offers: int = 0


class Hearing(NamedTuple):
    """A step whose logits are there.

    rows: float [num_nodes + 1, num_shared_ids], row 0 after the log.
    question: the choices that decide it; None where the rule asks for more than choices.
    """

    step: Step
    rows: Array
    question: Question | None


class Outcome(NamedTuple):
    """What came of a step.

    kept: the indexes of the step's tokens whose KV entries stay.
    """

    message: messages.Verdict | messages.Tokens
    kept: tuple[int, ...]


class CloudSession:
    """One text, judged for a device.

    Args:
        number: the device's number for it within its connection.

    Attributes:
        room: tokens of the text, guesses included, that a slot has room for; None: as many as may be.
    """

    def __init__(self, terms: SessionTerms, limits: messages.Limits, number: int = 0) -> None:
        self.terms = terms
        self.number = number
        self.room: int | None = None
        self._limits = limits
        self._id_bits = packing.id_bits(terms.num_edge_ids)
        self._log: list[int] = []
        self._kv_length = 0
        self._tail_logits: Array | None = None  # [num_shared_ids] after the log, where the KV cache holds all of it
        self._credit = 0
        self._waiting: deque[Draft] = deque()

    @property
    def token_ids(self) -> Sequence[int]:
        """The verified log."""
        return self._log

    @property
    def kv_length(self) -> int:
        """How many tokens of the log the slot holds."""
        return self._kv_length

    @property
    def is_complete(self) -> bool:
        return self.terms.sampling.is_end(self._log)

    def receive(self, message: messages.Draft | messages.Generate) -> None:
        """Take in an offer or credit.

        Raises:
            RemoteProtocolError: the offer is malformed, or one too many.
        """
        if isinstance(message, messages.Generate):
            self._credit = message.up_to
            return
        if self.is_complete:
            return  # the offer crossed the end of the text on its way
        draft = offers.from_wire(message, self.terms.num_edge_ids, self.terms.rule, self._limits.max_draft_tokens)
        if not draft.num_forced and max(draft.token_ids) >= self.terms.num_shared_ids:
            return  # the device did not know yet which tokens are shared: it drops the offer too
        self._check_length(draft)
        self._waiting.append(draft)
        self._drop_stale()
        if len(self._waiting) > self._limits.max_in_flight:
            raise RemoteProtocolError(
                f"{len(self._waiting)} offers are waiting and this cloud takes {self._limits.max_in_flight}"
            )

    def reattach(self, number: int, resume: messages.Resume) -> messages.Tokens | None:
        """Go on over another connection.

        Returns:
            The tokens that the device lacks; None where it has them all.
        Raises:
            RemoteProtocolError: the device holds another text.
        """
        known_ids = self._log[: resume.length]
        if packing.log_digest(known_ids) != resume.digest:
            raise RemoteProtocolError(f"the device holds another text than the cloud at length {resume.length}")
        self.number = number
        self.detach()
        missing_ids = self._log[resume.length :]
        return self._tokens(resume.length, missing_ids) if missing_ids else None

    def detach(self) -> None:
        """The device is away: it will say again what it wants."""
        self._waiting.clear()
        self._credit = 0

    @property
    def num_waiting(self) -> int:
        """Offers that wait."""
        return len(self._waiting)

    @property
    def num_wanted(self) -> int:
        """How many positions the next step takes at most; 0 where there is none."""
        if self.is_complete:
            return 0
        length = len(self._log)
        num_nodes = sum(
            len(draft.token_ids) - (length - draft.start if draft.parents is None else 0)
            for draft in self._waiting
            if draft.start <= length
        )
        num_lead = length - self._kv_length
        if num_nodes:
            return num_lead + num_nodes
        return max(1, num_lead) if self._credit > length else 0

    def absorb_forced(self, most: int) -> None:
        """Where the next offer tells more than this many tokens, take all but the last of them into the log.

        A cloud without a memory is told whole texts: they are to be read in pieces, as prompts are. What may end the
        text, or is no token, is left to be judged.
        """
        draft = self._waiting[0] if self._waiting else None
        if draft is None or draft.parents is not None or is_ahead(draft, self._log):
            return  # a verdict names a node of a tree: the device must number it in the same way
        told_ids = draft.token_ids[len(self._log) - draft.start : max(0, draft.num_forced - 1)]
        if len(told_ids) < most or not remainder(draft, self._log):
            return
        sampling, end = self.terms.sampling, len(self._log) + len(told_ids)
        is_plain = max(told_ids) < self.terms.num_shared_ids and set(told_ids).isdisjoint(sampling.end_ids)
        if is_plain and end < sampling.max_tokens:
            self._log += told_ids
            self._tail_logits = None
            self._drop_stale()

    def lost_cache(self) -> None:
        """The slot was taken away."""
        self._kv_length = 0
        self._tail_logits = None

    def caught_up(self, num_tokens: int) -> None:
        """The slot has read so many more tokens of the log, which has others behind them."""
        self._kv_length += num_tokens

    def prefilled(self, logits: Array) -> None:
        """The slot has read the prompt.

        Args:
            logits: float [vocab_size], after the prompt's last token.
        """
        self._kv_length = 0
        self._tail_logits = None if self._log else logits[: self.terms.num_shared_ids]

    def next_step(self) -> Step | None:
        """What to run next: the offers that extend the log, else a token on credit, else nothing."""
        if self.is_complete:
            return None
        if self._tail_logits is not None and self._credit > len(self._log) and not self._is_told:
            return Step((), None, 0, None)  # the prompt's logits give a token without a pass: no offer is waited for
        lead_ids = tuple(self._log[self._kv_length :])
        taken = self._take_offers()
        if taken is not None:
            draft = self._fitting(taken.draft)
            parents = None if draft.parents is None else _after_lead(len(lead_ids), draft.parents)
            return Step((*lead_ids, *draft.token_ids), parents, len(lead_ids), draft, len(taken.indexes))
        if self._credit > len(self._log):
            return Step(lead_ids, None, len(lead_ids), None)
        return None

    def finish_step(self, step: Step, logits: Array | None) -> Outcome:
        """Judge the draft, or choose the next token.

        Args:
            step: from `next_step`.
            logits: float [len(step.token_ids), vocab_size]; None where the step has no tokens to run.
        """
        return self.decide(self.hear(step, logits))

    def hear(self, step: Step, logits: Array | None) -> Hearing:
        """The first half of `finish_step`, which changes nothing: the choices may be made for many sessions together.

        Args:
            step, logits: as for `finish_step`.
        """
        rows = self._rows_to_judge(step, None if logits is None else logits[:, : self.terms.num_shared_ids])
        if step.draft is None:  # the next token: an exact judgement of nothing
            return Hearing(step, rows, ask(Draft(len(self._log), ()), rows, self.terms.sampling))
        if isinstance(self.terms.rule, Exact):
            return Hearing(step, rows, ask(step.draft, rows, self.terms.sampling))
        return Hearing(step, rows, None)

    def decide(self, hearing: Hearing, choices: Sequence[int] | None = None) -> Outcome:
        """The other half.

        Args:
            choices: the target's, for hearing.question; None: they are made here.
        """
        step, rows, question = hearing
        if question is None:
            assert step.draft is not None
            return self._apply(step, judge(step.draft, rows, self.terms.sampling, self.terms.rule), rows)
        if choices is None:
            choices = target_choices(*question.wanted)
        return self._apply(step, conclude(question, choices), rows)

    @property
    def _is_told(self) -> bool:
        """Whether the device says what comes next: what it has committed is not the cloud's to choose."""
        return any(draft.num_forced and not is_ahead(draft, self._log) for draft in self._waiting)

    def _rows_to_judge(self, step: Step, logits: Array | None) -> Array:
        """float [num_nodes + 1, num_shared_ids], row 0 after the log."""
        if step.num_lead:
            assert logits is not None
            return logits[step.num_lead - 1 :]
        assert self._tail_logits is not None
        tail = self._tail_logits[None, :]
        return tail if logits is None else array_namespace(tail).concat([tail, logits])

    def _apply(self, step: Step, judgement: Judgement, rows: Array) -> Outcome:
        start, path = len(self._log), judgement.path
        own_ids = [] if judgement.token_id is None else [judgement.token_id]
        if step.draft is not None:
            self._log += [step.draft.token_ids[node] for node in path]
        last_row = path[-1] + 1 if path else 0
        kept = (*range(step.num_lead), *(step.num_lead + node for node in path))
        self._kv_length += len(kept)
        # A row of its own: a view would hold the logits of the whole pass.
        self._tail_logits = None if own_ids else array_namespace(rows).asarray(rows[last_row], copy=True)
        self._log += own_ids
        self._drop_stale()
        if step.draft is None:
            return Outcome(self._tokens(start, own_ids), kept)
        node = None if step.draft.parents is None else last_row
        verdict = messages.Verdict(len(self._log), judgement.token_id, self.number, node, num_offers=step.num_offers)
        return Outcome(verdict, kept)

    def _check_length(self, draft: Draft) -> None:
        """What lies beyond the end of any text is not kept: it could only fill the memory."""
        end, most = draft.start + len(draft.token_ids), self.terms.sampling.max_tokens + self._limits.max_draft_tokens
        if end > most:
            raise RemoteProtocolError(
                f"an offer reaches to position {end} and the text has at most {self.terms.sampling.max_tokens} tokens"
            )

    def _tokens(self, start: int, token_ids: Sequence[int]) -> messages.Tokens:
        return messages.Tokens(start, packing.pack_ids(token_ids, self._id_bits), self.number)

    def _fitting(self, draft: Draft) -> Draft:
        """The first guesses of a draft, as many as the slot has room for. The device numbers them in the same way."""
        count = len(draft.token_ids) if self.room is None else max(draft.num_forced, self.room - len(self._log))
        if count >= len(draft.token_ids) or not isinstance(self.terms.rule, Exact):
            return draft
        parents = None if draft.parents is None else draft.parents[:count]
        return Draft(draft.start, draft.token_ids[:count], parents, draft.num_forced)

    def _take_offers(self) -> Taken | None:
        taken = take(self._waiting, self._log, self.terms.rule, self._limits.max_draft_tokens)
        if taken is not None:
            is_taken = set(taken.indexes)
            self._waiting = deque(draft for index, draft in enumerate(self._waiting) if index not in is_taken)
        return taken

    def _drop_stale(self) -> None:
        self._waiting = deque(
            draft for draft in self._waiting if is_ahead(draft, self._log) or remainder(draft, self._log)
        )


def _after_lead(num_lead: int, parents: Sequence[int]) -> tuple[int, ...]:
    """Parents of an extension: the lead is a chain, and the draft's root is its last token."""
    return (*range(num_lead), *(parent + num_lead for parent in parents))
