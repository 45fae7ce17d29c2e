"""The cloud's half of a session: the verified log, the offers that wait, the next forward pass. No sockets, no clocks.

The slot's KV cache holds the prompt and the first `kv_length` tokens of the log: all of it or all but a few. What is
missing, the lead, begins the next forward pass.

What a session does next is read from four facts, in this order (rules of docs/protocol.md):

    the text is complete            nothing (rule 7)
    offers extend the log           one forward pass judges them, one verdict answers (rule 2)
    there is credit beyond the log  one token, sent in `Tokens` (rule 6); before offers where the prompt's logits are at
                                    hand, so that it costs no pass, but never before forced tokens
    otherwise                       nothing, until something is received

`next_step` says what to run, `prepare` which choices decide it, `finish` applies them: log, cache length and offers
change in `finish` only, but for forced tokens that `take_forced` takes in early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from array_api_compat import array_namespace

from skydraft.core import AcceptanceRule, Draft, Prompt, SamplingParams, TokenLogprobs, TreeShape
from skydraft.decoding.offer_merging import extension, fitting, is_ahead, merge_offers, without_stale
from skydraft.decoding.text_end import TextEnd
from skydraft.errors import RemoteProtocolError
from skydraft.protocol import messages, offers, packing
from skydraft.sampling.acceptance import Judgement, choice_request, judge, judge_by_choices
from skydraft.sampling.arrays import Array, take_rows
from skydraft.sampling.choice import ChoiceRequest, target_choices
from skydraft.sampling.draft_tree import DraftTree
from skydraft.sampling.logprobs import token_logprobs
from skydraft.sampling.near_ties import near_ties
from skydraft.sampling.shaping import History, shape_logits


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

    token_ids, shape: to append to its slot; the first num_lead are log tokens that the KV cache lacks.
    tree: what is judged; without nodes on credit.
    num_offers: that the draft was made of; 0 on credit.
    """

    token_ids: tuple[int, ...]
    shape: TreeShape
    num_lead: int
    tree: DraftTree
    num_offers: int


class Prepared(NamedTuple):
    """A step with its logits.

    step: from `next_step`.
    rows: float [num_nodes + 1, num_shared_ids], row 0 after the log: the model's own.
    shaped_rows: those that choices are made from (`sampling/shaping`).
    request: the target's choices that decide the step; None where the rule asks for more than choices.
    """

    step: Step
    rows: Array
    shaped_rows: Array
    request: ChoiceRequest | None


class Outcome(NamedTuple):
    """What came of a step.

    message: for the device; a fault where the session is over.
    kept: the indexes of the step's tokens whose KV entries stay.
    num_emitted: tokens that the verified log grew by, the forced ones left out.
    num_unbilled: tokens of the text, these or earlier ones, that belong to the stop string that now ends it.
    num_offered, num_accepted: draft tokens that were judged, and those of them that were accepted.
    """

    message: messages.Verdict | messages.Tokens | messages.Fault
    kept: tuple[int, ...] = ()
    num_emitted: int = 0
    num_unbilled: int = 0
    num_offered: int = 0
    num_accepted: int = 0


class CloudSession:
    """One text, judged for a device.

    Args:
        limits: its max_tokens is what a slot has room for beside the prompt: the text ends there at the latest.
        number: the device's number for it within its connection.
        gap_change: choices that were decided by less are counted (`sampling/near_ties`); None: none are.
        end: where the text may end beside its end tokens and its length.

    Attributes:
        kv_length: how many tokens of the log the slot holds.
    """

    def __init__(
        self,
        terms: SessionTerms,
        limits: messages.Limits,
        number: int = 0,
        gap_change: float | None = None,
        end: TextEnd | None = None,
    ) -> None:
        self.terms = terms
        self.limits = limits
        self.number = number
        self._sampling = terms.sampling.up_to(limits.max_tokens)
        self._id_bits = packing.id_bits(terms.num_edge_ids)
        self._log: list[int] = []
        self.kv_length = 0
        self._tail_logits: Array | None = None  # [num_shared_ids] after the log, where the KV cache holds all of it
        self._credit = 0
        self._waiting: deque[Draft] = deque()
        self._gap_change = gap_change
        self._near_ties: list[int] = []  # positions of the choices that were decided by less
        self._end = end or TextEnd()
        self._num_top = min(terms.sampling.top_logprobs or 0, terms.num_shared_ids)
        self._packed_logprobs: list[bytes] = []  # of each token of the log, where they are asked for

    @property
    def token_ids(self) -> Sequence[int]:
        """The verified log."""
        return self._log

    @property
    def is_complete(self) -> bool:
        return self._end.has_come or self._sampling.is_end(self._log)

    def receive(self, message: messages.Offer | messages.Generate) -> None:
        """Take in an offer or credit.

        Raises:
            RemoteProtocolError: the offer is malformed, or one too many.
        """
        if isinstance(message, messages.Generate):
            self._credit = message.up_to
            return
        if self.is_complete:
            return  # the offer crossed the end of the text on its way
        most = self.limits.max_draft_tokens
        max_end = self._sampling.max_tokens + most  # what lies beyond could only fill the memory
        draft = offers.from_wire(message, self.terms.num_edge_ids, self.terms.rule, most, max_end)
        if not draft.num_forced and max(draft.token_ids) >= self.terms.num_shared_ids:
            return  # the device did not know yet which tokens are shared: it drops the offer too
        self._waiting.append(draft)
        self._waiting = without_stale(self._waiting, self._log)
        if len(self._waiting) > self.limits.max_in_flight:
            raise RemoteProtocolError(
                f"{len(self._waiting)} offers are waiting and this cloud takes {self.limits.max_in_flight}"
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
        num_near_ties = sum(position >= resume.length for position in self._near_ties)
        packed_logprobs = b"".join(self._packed_logprobs[resume.length :])
        return self._tokens(resume.length, missing_ids, num_near_ties, packed_logprobs) if missing_ids else None

    def detach(self) -> None:
        """The device is away: it will say again what it wants."""
        self._waiting.clear()
        self._credit = 0

    @property
    def num_waiting(self) -> int:
        """Offers that wait."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether `next_step` has something to run: offers that disagree with the log do not wait."""
        if self.is_complete:
            return False
        length = len(self._log)
        return self._credit > length or any(draft.start <= length for draft in self._waiting)

    @property
    def num_lead(self) -> int:
        """How many tokens of the log the slot lacks."""
        return len(self._log) - self.kv_length

    def take_forced(self, most: int) -> None:
        """Where the next offer has more than this many forced tokens, take all but the last of them into the log.

        A cloud that has forgotten the session gets whole texts: they are read in pieces, like prompts. A token that may
        end the text, or is none of the shared ones, is left for `finish`.
        """
        draft = self._waiting[0] if self._waiting else None
        if draft is None or not draft.shape.is_chain or is_ahead(draft, self._log):
            return  # a verdict names a node of a tree: the device must number it in the same way
        forced_ids = draft.token_ids[len(self._log) - draft.start : max(0, draft.num_forced - 1)]
        if len(forced_ids) < most or extension(draft, self._log) is None:
            return
        sampling, end = self._sampling, len(self._log) + len(forced_ids)
        is_plain = max(forced_ids) < self.terms.num_shared_ids and set(forced_ids).isdisjoint(sampling.end_ids)
        if is_plain and end < sampling.max_tokens:
            self._log += forced_ids
            self._pack_logprobs([None] * len(forced_ids))
            self._end.follow(forced_ids, is_forced=True)
            self._tail_logits = None
            self._waiting = without_stale(self._waiting, self._log)

    def forget_cache(self) -> None:
        """The slot was taken away."""
        self.kv_length = 0
        self._tail_logits = None

    def note_reread(self, num_tokens: int) -> None:
        """The slot has read so many more tokens of the log, which has others behind them."""
        self.kv_length += num_tokens

    def prefilled(self, logits: Array) -> None:
        """The slot has read the prompt.

        Args:
            logits: float [vocab_size], after the prompt's last token.
        """
        self.kv_length = 0
        self._tail_logits = None if self._log else logits[: self.terms.num_shared_ids]

    def next_step(self, max_positions: int | None = None) -> Step | None:
        """What to run next: the offers that extend the log, else a token on credit, else nothing.

        Args:
            max_positions: a step of more tokens waits for a later pass; None: it may have any number.
        """
        if self.is_complete:
            return None
        start, rule = len(self._log), self.terms.rule
        has_credit, lead_ids = self._credit > start, tuple(self._log[self.kv_length :])
        merged = None
        if self._tail_logits is None or not has_credit or self._is_forced:  # else a token costs no pass: rule 6
            merged = merge_offers(self._waiting, self._log, rule.merges_offers, max_nodes=self.limits.max_draft_tokens)
        if merged is not None:
            draft, num_offers = fitting(merged.draft, rule.merges_offers, self.limits.max_tokens), len(merged.indexes)
        elif has_credit:
            draft, num_offers = Draft.chain(start, ()), 0
        else:
            return None
        if max_positions is not None and len(lead_ids) + len(draft.token_ids) > max_positions:
            return None
        if merged is not None:
            self._waiting = deque(offer for at, offer in enumerate(self._waiting) if at not in merged.indexes)
        tree, shape = DraftTree.read(draft, self._sampling), draft.shape.below_chain(len(lead_ids))
        return Step((*lead_ids, *draft.token_ids), shape, len(lead_ids), tree, num_offers)

    def prepare(self, step: Step, logits: Array | None) -> Prepared:
        """The rows that judge a step, and the choices that decide it, so that those of many sessions are made together.

        Args:
            step: from `next_step`.
            logits: float [len(step.token_ids), vocab_size]; None where the step has no tokens to run.
        """
        rows = None if logits is None else logits[:, : self.terms.num_shared_ids]
        if step.num_lead:
            assert rows is not None
            rows = rows[step.num_lead - 1 :]
        else:
            assert self._tail_logits is not None
            tail = self._tail_logits[None, :]
            rows = tail if rows is None else array_namespace(tail).concat([tail, rows])
        is_decided = self.terms.rule.promises_cloud_tokens or not step.num_offers  # credit asks for a choice too
        shaped_rows = self._shape(step.tree, rows)
        request = choice_request(step.tree, shaped_rows, self._sampling) if is_decided else None
        return Prepared(step, rows, shaped_rows, request)

    def finish(self, prepared: Prepared, choices: Sequence[int] | None = None) -> Outcome:
        """Judge the draft, or take the next token, and grow the log.

        Args:
            prepared: from `prepare`.
            choices: the target's, as the request asks for; None: they are made here.
        """
        step, rows, _, request = prepared
        draft, start = step.tree.draft, len(self._log)
        path, token_id = self._end.cut(draft, self._judge(prepared, choices))
        own_ids = [] if token_id is None else [token_id]
        last_row = path[-1] + 1 if path else 0
        num_near_ties = 0 if request is None else self._note_near_ties(prepared, path, own_ids)
        packed_logprobs = self._note_logprobs(prepared, path, own_ids)
        kept = (*range(step.num_lead), *(step.num_lead + node for node in path))
        self.kv_length += len(kept)
        # A row of its own: a view would hold the logits of the whole pass.
        self._tail_logits = None if own_ids else array_namespace(rows).asarray(rows[last_row], copy=True)
        self._log += [draft.token_ids[node] for node in path] + own_ids
        self._waiting = without_stale(self._waiting, self._log)
        num_unbilled = self._end.num_unbilled
        if not step.num_offers:
            message = self._tokens(start, own_ids, num_near_ties, packed_logprobs)
            return Outcome(message, kept, len(own_ids), num_unbilled)
        node = None if draft.shape.is_chain else last_row
        verdict = messages.Verdict(
            len(self._log),
            token_id,
            self.number,
            node,
            num_offers=step.num_offers,
            num_near_ties=num_near_ties,
            packed_logprobs=packed_logprobs,
            is_end=self._end.has_come,
        )
        num_accepted = len(path) - draft.num_forced
        return Outcome(verdict, kept, num_accepted + len(own_ids), num_unbilled, draft.num_judged, num_accepted)

    @property
    def _is_forced(self) -> bool:
        """Whether the device says what comes next: what it has committed is not the cloud's to choose."""
        return any(draft.num_forced and not is_ahead(draft, self._log) for draft in self._waiting)

    def _judge(self, prepared: Prepared, choices: Sequence[int] | None) -> Judgement:
        step, _, shaped_rows, request = prepared
        if request is None:
            return judge(step.tree.draft, shaped_rows, self._sampling, self.terms.rule)
        return judge_by_choices(step.tree, target_choices(*request) if choices is None else choices)

    def _shape(self, tree: DraftTree, rows: Array) -> Array:
        """The rows that something may follow, as choices are made from them."""
        if not self._sampling.shapes_logits:
            return rows
        at = tree.reachable_rows
        history = History(self._log, [tree.path_ids(row) for row in at])
        shaped = shape_logits(take_rows(rows, at), self._sampling, history, self._end.masks(history.paths))
        if len(at) == rows.shape[0]:
            return shaped
        whole = array_namespace(rows).astype(rows, shaped.dtype, copy=True)
        for row, of_row in zip(at, shaped, strict=True):
            whole[row] = of_row
        return whole

    def _note_near_ties(self, prepared: Prepared, path: Sequence[int], own_ids: Sequence[int]) -> int:
        """How many of the target's choices along a path, and of its own token behind it, were near a tie."""
        if self._gap_change is None:
            return 0
        rows, choices = _judged(prepared.step.tree.draft, path, own_ids)
        positions = [prepared.step.tree.position(row) for row in rows]
        near = near_ties(take_rows(prepared.shaped_rows, rows), self._sampling, positions, choices, self._gap_change)
        self._near_ties += [positions[index] for index in near]
        return len(near)

    def _note_logprobs(self, prepared: Prepared, path: Sequence[int], own_ids: Sequence[int]) -> bytes:
        """What is told of the same tokens, packed."""
        if self._sampling.top_logprobs is None:
            return b""
        draft = prepared.step.tree.draft
        rows, token_ids = _judged(draft, path, own_ids)
        self._pack_logprobs([None] * min(draft.num_forced, len(path)))
        return self._pack_logprobs(token_logprobs(take_rows(prepared.rows, rows), token_ids, self._num_top))

    def _pack_logprobs(self, logprobs: Sequence[TokenLogprobs | None]) -> bytes:
        """Those of the next tokens of the log."""
        if self._sampling.top_logprobs is None:
            return b""
        packed = [packing.pack_logprobs([each], self._num_top) for each in logprobs]
        self._packed_logprobs += packed
        return b"".join(packed)

    def _tokens(
        self, start: int, token_ids: Sequence[int], num_near_ties: int, packed_logprobs: bytes
    ) -> messages.Tokens:
        packed_ids = packing.pack(token_ids, self._id_bits)
        return messages.Tokens(start, packed_ids, self.number, num_near_ties, packed_logprobs, self._end.has_come)


def _judged(draft: Draft, path: Sequence[int], own_ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """The tokens along a path that were not forced, and the target's own behind it: of each the row, and its id."""
    judged = path[draft.num_forced :]
    rows = [draft.shape.parents[node] for node in judged]
    if own_ids:
        rows.append(path[-1] + 1 if path else 0)
    return rows, [*(draft.token_ids[node] for node in judged), *own_ids]
