"""The device's half of a session: what to send, and what the cloud's answers mean. No sockets, no clocks.

The device's log is the text so far. The cloud knows its first `cloud_length` tokens; what the device committed by
itself since then travels ahead of the next offer as forced tokens. That one mechanism serves gated decoding, resuming
and starting again at a cloud that lost everything (rule 5 of docs/protocol.md).

Whoever drives a session says what it wants (`offer`, `give_credit`), sends what `to_send` lists, and passes what
arrives to `receive`. A session is in one of three phases:

    phase      to_send() lists                                  receive() takes
    -----      ---------------                                  ---------------
    APART      Open, then as OPENING            -> OPENING      nothing
    OPENING    of a new session: as OPEN                        Opened                -> OPEN
               of one to be resumed: nothing                    Opened without a key  -> APART   the cloud forgot it
    OPEN       offers (rules 1, 3), credit (rule 6)             Verdict (rules 2, 3), Tokens (rule 6), Working,
                                                                PromptRead

    any        disconnect(), close()            -> APART        Fault: an error; the session is over

What follows the `Open` of a new session need not wait for its answer. A session that is to be resumed may turn out to
be gone, so nothing is sent behind its `Open`. In APART the session remembers how to be resumed (`disconnect`) unless
the device went on without the cloud (`abandon`): then the next `Open` is of a new session.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence

from skydraft.core import (
    AcceptanceRule,
    Draft,
    Finish,
    LatticeDistribution,
    Origin,
    Prompt,
    SamplingParams,
    Token,
    TokenLogprobs,
    TreeShape,
)
from skydraft.decoding.offer_merging import extension, fitting, merge_offers, without_stale
from skydraft.errors import CloudFault, LocalProtocolError, NoPromise, RemoteProtocolError, VocabularyMismatch
from skydraft.protocol import messages, offers, packing, segments
from skydraft.text.vocabulary import Vocabulary


class Phase(enum.Enum):
    """Where a session stands towards the cloud."""

    APART = "apart"  # `Open` is to be sent
    OPENING = "opening"  # it was sent, and its answer is on its way
    OPEN = "open"


class EdgeSession:
    """One text, written with a cloud.

    Args:
        vocabulary: of the draft model, or of the tokenizer where there is none.
        prompt: what the cloud's model is conditioned on.
        number: of this session within its connection.
        is_strict: a cloud that cannot promise its own text is refused.

    Attributes:
        sampling: as asked for; the text ends earlier where the cloud's slot has no room for more.
        limits: of the cloud. num_shared_ids: ids from here on only one of the two models has.
        cloud_length: how many tokens of the text the cloud is known to hold.
        has_stopped: the text has come to a stop string, or to the end of its grammar.
        num_near_ties: choices of the cloud's that were decided by less than its logits are known to, as it said; None:
            it could not say, or another rule than its choices decides.
        num_rounds: verdicts. num_drafted: tokens of drafts that these judged.
        num_positions: that the cloud computed for this text, as far as its answers tell.
        num_prompt_reused: tokens of the cloud's prompt that it had read for another text, as it said.
    answered: the offers that the last verdict answered; none where it was lost on the way.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: Prompt,
        sampling: SamplingParams,
        rule: AcceptanceRule,
        number: int = 0,
        is_strict: bool = False,
    ) -> None:
        self.vocabulary = vocabulary
        self.sampling = sampling
        self.rule = rule
        self.phase = Phase.APART
        self.cloud_length = 0
        self.limits = messages.LEAST_LIMITS
        self.num_shared_ids = vocabulary.num_tokens
        self.has_stopped = False
        self.num_rounds = self.num_drafted = 0
        self.num_positions = self.num_prompt_reused = 0
        self.answered: tuple[Draft, ...] = ()
        self.num_near_ties: int | None = 0 if rule.promises_cloud_tokens else None
        self._is_strict = is_strict
        self._is_invariant = True  # each cloud that opened this text so far
        self._id_bits = packing.id_bits(vocabulary.num_tokens)
        self._prompt = prompt
        self._asked_tokens = sampling.max_tokens
        self.number = number
        self._resume_key = b""  # empty: the cloud knows nothing of this text
        self._ids: list[int] = []
        self._origins: list[Origin] = []
        self._logprobs: list[TokenLogprobs | None] = []
        self._rounds: list[int | None] = []
        self._credit = 0  # the position up to which the cloud is to write by itself
        self._told_credit = 0  # and the one that it was told
        self._queued: list[messages.Offer] = []
        self._in_flight: deque[Draft] = deque()  # those that are queued too
        self._lost: tuple[Draft, ...] = ()  # in flight when the connection was lost

    @property
    def finish(self) -> Finish:
        """Why the text ended, or will end where nothing else ends it."""
        has_end = self.has_stopped or (bool(self._ids) and self._ids[-1] in self.sampling.end_ids)
        return Finish.STOP if has_end else Finish.LENGTH

    @property
    def is_cut_short(self) -> bool:
        """Whether the text ended because a slot was full: not by itself, and before it was as long as asked for."""
        return self.is_complete and self.finish is Finish.LENGTH and len(self._ids) < self._asked_tokens

    @property
    def is_cloud_text(self) -> bool:
        """Whether the text so far is, token for token, what the cloud writes alone."""
        is_promised = self.rule.promises_cloud_tokens and self._is_invariant
        return Origin.EDGE not in self._origins and (is_promised or not self.num_rounds)

    @property
    def token_ids(self) -> Sequence[int]:
        """The text so far."""
        return self._ids

    def tokens(self, start: int = 0) -> tuple[Token, ...]:
        """The text from a position on, with where each token came from."""
        each = self._ids, self._origins, self._logprobs, self._rounds
        return tuple(map(Token, *(values[start:] for values in each)))

    @property
    def in_flight(self) -> Sequence[Draft]:
        """Offers that wait for their verdict, as they were made."""
        return self._in_flight

    @property
    def num_in_flight(self) -> int:
        """Offers that wait for their verdict."""
        return len(self._in_flight)

    @property
    def is_owed(self) -> bool:
        """Whether the cloud is to say something: that the session stands, a verdict, or tokens on credit."""
        return self.phase is Phase.OPENING or bool(self._in_flight) or self._told_credit > self.cloud_length

    @property
    def has_credit(self) -> bool:
        """Whether the cloud is to write on by itself."""
        return bool(self._credit)

    @property
    def is_behind(self) -> bool:
        """Whether the cloud lacks tokens of the text: the device committed them, or the cloud lost them."""
        return self.cloud_length < len(self._ids)

    @property
    def progress(self) -> tuple[Phase, int, int]:
        """What changes when an answer brings the text on, and not when it says again what is known."""
        return self.phase, len(self._ids), self.num_rounds

    @property
    def is_complete(self) -> bool:
        return self.has_stopped or self.sampling.is_end(self._ids)

    @property
    def can_follow(self) -> bool:
        """Whether offers and credit may be sent."""
        return self.phase is Phase.OPEN or (self.phase is Phase.OPENING and not self._resume_key)

    @property
    def max_block_length(self) -> int:
        """How many tokens one offer may ask about."""
        num_left = max(0, self.sampling.max_tokens - len(self._ids))
        most, lattice = min(self.limits.max_draft_tokens, num_left), self.rule.draft_lattice
        return most if lattice is None else min(most, packing.max_drawn_tokens(self.vocabulary.num_tokens, lattice))

    @property
    def _cloud_ids(self) -> Sequence[int]:
        return self._ids if self.cloud_length == len(self._ids) else self._ids[: self.cloud_length]

    # What leaves

    def offer(
        self,
        token_ids: Sequence[int],
        shape: TreeShape | None = None,
        distributions: Sequence[LatticeDistribution] | None = None,
        start: int | None = None,
    ) -> None:
        """Have tokens offered that follow the text, or, with `start`, tokens that follow an earlier offer.

        What the cloud does not know of the text yet goes ahead as forced tokens; there may be no others.

        Args:
            shape: of the tree that they make; None: a chain.
        Raises:
            LocalProtocolError: `can_follow` is false, more offers are in flight than the cloud takes, or this is none.
        """
        if not self.can_follow:
            raise LocalProtocolError(f"the session is {self.phase.value}: open it first")
        if len(self._in_flight) >= self.limits.max_in_flight:
            raise LocalProtocolError(
                f"{len(self._in_flight)} offers are in flight and the cloud takes {self.limits.max_in_flight}: "
                "wait for a verdict"
            )
        forced = self._ids[self.cloud_length :] if start is None else []
        draft = Draft(
            start=self.cloud_length if start is None else start,
            token_ids=(*forced, *token_ids),
            shape=(shape or TreeShape.chain(len(token_ids))).below_chain(len(forced)),
            num_forced=len(forced),
            distributions=None if distributions is None else tuple(distributions),
        )
        self._queued.append(offers.to_wire(draft, self.number, self.vocabulary.num_tokens, self.rule))
        self._in_flight.append(draft)

    def give_credit(self, up_to: int) -> None:
        """Let the cloud write on by itself up to this position; it is told again when a connection was lost."""
        self._credit = up_to

    def to_send(self) -> list[messages.EdgeMessage]:
        """What is due, in order. Each message is listed once; what is lost with a connection is due again."""
        due: list[messages.EdgeMessage] = []
        if self.phase is Phase.APART:
            due.append(self.open())
        if not self.can_follow:
            return due
        is_credit_due = self._credit != self._told_credit
        if is_credit_due and self.is_behind and not self._in_flight:
            self.offer(())  # forced tokens go before credit: rule 6
        due += self._queued
        self._queued.clear()
        if is_credit_due:
            due.append(messages.Generate(self._credit, self.number))
            self._told_credit = self._credit
        return due

    def open(self) -> messages.Open:
        """Begin, or take up again where the cloud may still know the session; part of `to_send`."""
        self.phase = Phase.OPENING
        resume = None
        if self._resume_key:
            digest = packing.log_digest(self._ids[: self.cloud_length])
            resume = messages.Resume(self._resume_key, self.cloud_length, digest)
        return messages.Open(
            version=messages.least_version(self.sampling),
            session=self.number,
            vocabulary=messages.VocabularyMark.of(self.vocabulary),
            sampling=self.sampling,
            rule=str(self.rule),
            segments=() if resume else segments.to_wire(self._prompt, self._id_bits),
            resume=resume,
        )

    def close(self) -> messages.Close:
        """The session is over, and so is what was to be sent."""
        self.phase = Phase.APART
        return messages.Close(self.number)

    # What happens on the device

    def commit(self, token_ids: Sequence[int]) -> tuple[Token, ...]:
        """Take tokens into the text without asking the cloud."""
        self._ids.extend(token_ids)
        self._origins.extend([Origin.EDGE] * len(token_ids))
        self._logprobs.extend([None] * len(token_ids))
        self._rounds.extend([None] * len(token_ids))
        return self.tokens(len(self._ids) - len(token_ids))

    def end_here(self) -> None:
        """The text can grow no more: it ends with what there is, a token or more."""
        self.sampling = self.sampling.up_to(len(self._ids))

    def stop(self) -> None:
        """The text has come to a stop string, or to the end of its grammar."""
        self.has_stopped = True

    def disconnect(self) -> None:
        """The connection is gone: what was in flight may or may not have arrived."""
        self.phase = Phase.APART
        self._told_credit = 0
        self._queued.clear()
        if self._in_flight:  # else it may be the second time, and nothing was sent since the first
            self._lost = tuple(self._in_flight)
        self._in_flight.clear()

    def abandon(self) -> None:
        """The device goes on without the cloud, whose log may have gone another way meanwhile: begin anew with it."""
        self.disconnect()
        self._lost = ()
        self._resume_key = b""
        self.cloud_length = self._credit = 0

    # What arrives

    def receive(self, message: messages.CloudMessage) -> tuple[Token, ...]:
        """Take in an answer.

        Returns:
            The tokens that it adds to the text.
        Raises:
            CloudFault: the cloud refuses.
            VocabularyMismatch: the cloud's model has another vocabulary.
            RemoteProtocolError: the answer does not fit what was sent.
        """
        match message:
            case messages.Fault():
                raise CloudFault(message.code, message.sentence, message.retry_after_s)
            case messages.Opened() if self.phase is Phase.OPENING:
                return self._opened(message)
            case messages.Verdict() if self.phase is Phase.OPEN:
                return self._judged(message)
            case messages.Tokens() if self.phase is Phase.OPEN:
                return self._written(message)
            case messages.Working() if self.phase is Phase.OPEN:
                return ()
            case messages.PromptRead() if self.phase is Phase.OPEN:
                self.num_prompt_reused = max(self.num_prompt_reused, message.num_reused)
                return ()
        raise RemoteProtocolError(f"the cloud sent {type(message).__name__} while the session was {self.phase.value}")

    def _opened(self, opened: messages.Opened) -> tuple[Token, ...]:
        """Rule 5: the cloud begins, goes on from what it holds, or has forgotten the session."""
        ours, theirs = self.vocabulary, opened.vocabulary
        self.num_shared_ids = min(ours.num_tokens, theirs.num_tokens)
        is_ours_larger = theirs.num_tokens < ours.num_tokens  # the side with the larger vocabulary compares
        if is_ours_larger and ours.digest(theirs.num_tokens) != theirs.digest:
            raise VocabularyMismatch(ours.name, opened.model, [])
        if not opened.resume_key and not self._resume_key:
            raise RemoteProtocolError("the cloud opened a new session without a key to resume it by")
        if not opened.is_invariant:
            if self._is_strict:
                raise NoPromise(opened.model, opened.gap_change)
            self._is_invariant = False
            if opened.gap_change is None:
                self.num_near_ties = None
        self.limits = opened.limits
        self.sampling = self.sampling.up_to(opened.limits.max_tokens)
        # Rule 1: the cloud drops an offer of unshared ids that left before the device knew them.
        self._in_flight = deque(
            draft for draft in self._in_flight if draft.num_forced or max(draft.token_ids) < self.num_shared_ids
        )
        self._resume_key = opened.resume_key
        if opened.length <= self.cloud_length:
            self._lost = ()  # no verdict was lost: nothing was judged that the device does not know of
        if not opened.resume_key:
            self.phase = Phase.APART
            self.cloud_length = self._told_credit = 0
            return ()
        if opened.length < self.cloud_length:
            if packing.log_digest(self._ids[: opened.length]) != opened.digest:
                raise RemoteProtocolError(f"the cloud holds another text than the device at length {opened.length}")
            self.cloud_length = opened.length
        self.phase = Phase.OPEN
        return ()

    def _judged(self, verdict: messages.Verdict) -> tuple[Token, ...]:
        """Rules 2 and 3: a verdict answers the first offers in flight that extend the log, as the cloud took them."""
        if verdict.length <= self.cloud_length:
            raise RemoteProtocolError(
                f"a verdict of length {verdict.length} adds nothing to the {self.cloud_length} tokens before it"
            )
        merges = self.rule.merges_offers
        merged = merge_offers(self._in_flight, self._cloud_ids, merges, max_offers=verdict.num_offers)
        if merged is None or len(merged.indexes) < verdict.num_offers:
            raise RemoteProtocolError(
                f"a verdict of length {verdict.length} answers {verdict.num_offers} offers and "
                f"{len(merged.indexes) if merged else 0} of those in flight extend the text"
            )
        self.answered = tuple(self._in_flight[index] for index in merged.indexes)
        self._in_flight = deque(draft for index, draft in enumerate(self._in_flight) if index not in merged.indexes)
        draft = fitting(merged.draft, merges, self.limits.max_tokens)
        num_accepted = verdict.length - draft.start - (verdict.token_id is not None)
        row = num_accepted if draft.shape.is_chain else verdict.node or 0
        if not 0 <= row <= len(draft.token_ids) or len(path := draft.shape.path_to(row)) != num_accepted:
            raise RemoteProtocolError(
                f"a verdict of length {verdict.length} and node {verdict.node} does not fit an offer of "
                f"{len(draft.token_ids)} tokens at position {draft.start}"
            )
        if num_accepted < draft.num_forced:
            raise RemoteProtocolError(f"the cloud refused {draft.num_forced - num_accepted} tokens that are committed")
        self.num_rounds += 1
        self._add_near_ties(verdict.num_near_ties)
        self.num_drafted += draft.num_judged
        self.has_stopped |= verdict.is_end
        self.num_positions += 1 + draft.num_judged
        new_ids = [draft.token_ids[node] for node in path]
        origins = [Origin.ACCEPTED] * num_accepted
        if verdict.token_id is not None:
            new_ids.append(verdict.token_id)
            origins.append(Origin.CORRECTED if draft.shape.children[row] else Origin.CLOUD)
        judged = self._unpack_logprobs(verdict.packed_logprobs, len(new_ids) - draft.num_forced)
        return self._grow(new_ids, origins, [None] * draft.num_forced + judged, [self.num_rounds] * len(new_ids))

    def _written(self, message: messages.Tokens) -> tuple[Token, ...]:
        """Rule 6: the cloud wrote on credit. Rule 5: or it sends what a resumed device lacks."""
        end = message.start + packing.num_packed_ids(len(message.packed_ids), self._id_bits)
        if end > self.sampling.max_tokens:  # told before they are unpacked
            raise RemoteProtocolError(f"the cloud wrote to position {end}, beyond the end of the text")
        token_ids = packing.unpack_ids(message.packed_ids, self._id_bits, self.vocabulary.num_tokens)
        known_ids = self._ids[message.start : self.cloud_length]
        if message.start > self.cloud_length or known_ids != list(token_ids[: len(known_ids)]):
            raise RemoteProtocolError(
                f"the cloud wrote from position {message.start} and the device knows its text to {self.cloud_length}"
            )
        new_ids = token_ids[len(known_ids) :]
        logprobs = self._unpack_logprobs(message.packed_logprobs, len(token_ids))[len(known_ids) :]
        self.num_positions += len(new_ids)
        self._add_near_ties(message.num_near_ties)
        self.has_stopped |= message.is_end
        origins = self._origins_of(new_ids)
        rounds = [None if origin is Origin.CLOUD else self.num_rounds for origin in origins]
        return self._grow(new_ids, origins, logprobs, rounds)

    def _unpack_logprobs(self, data: bytes, count: int) -> list[TokenLogprobs | None]:
        if self.sampling.top_logprobs is None:
            return [None] * count
        num_top = min(self.sampling.top_logprobs, self.num_shared_ids)
        return packing.unpack_logprobs(data, count, num_top, self.num_shared_ids)

    def _add_near_ties(self, count: int) -> None:
        if self.num_near_ties is not None:
            self.num_near_ties += count

    def _origins_of(self, new_ids: Sequence[int]) -> list[Origin]:
        """Of tokens that no verdict brought: the cloud's own, but for those of a verdict that was lost on the way."""
        log_ids = self._cloud_ids
        lost, self._lost = self._lost, ()
        origins = [Origin.CLOUD] * len(new_ids)
        for draft in lost:
            rest = extension(draft, log_ids)
            if rest is None or not rest.shape.is_chain:
                continue
            self.num_rounds += 1
            self.answered = ()
            pairs = zip(rest.token_ids, new_ids, strict=False)
            num_accepted = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(rest.token_ids))
            origins[:num_accepted] = [Origin.ACCEPTED] * min(num_accepted, len(new_ids))
            if num_accepted < min(len(rest.token_ids), len(new_ids)):
                origins[num_accepted] = Origin.CORRECTED
            break
        return origins

    def _grow(
        self,
        token_ids: Sequence[int],
        origins: Sequence[Origin],
        logprobs: Sequence[TokenLogprobs | None],
        rounds: Sequence[int | None],
    ) -> tuple[Token, ...]:
        """The cloud's log grew by these; the device may have committed the first of them before."""
        start, length = self.cloud_length, self.cloud_length + len(token_ids)
        strange_id = next((token_id for token_id in token_ids if token_id >= self.num_shared_ids), None)
        if strange_id is not None:
            raise RemoteProtocolError(f"the cloud wrote token {strange_id} and both know {self.num_shared_ids} tokens")
        has_end = any(token_id in self.sampling.end_ids for token_id in token_ids[:-1])
        if length > self.sampling.max_tokens or has_end:  # rule 7
            raise RemoteProtocolError(f"the cloud wrote to position {length}, beyond the end of the text")
        committed_ids = self._ids[start:length]
        num_committed = len(committed_ids)
        if committed_ids != list(token_ids[:num_committed]):
            raise RemoteProtocolError(f"the cloud's text differs from what the device committed after position {start}")
        self.cloud_length = length
        length = len(self._ids)
        self._ids.extend(token_ids[num_committed:])
        self._origins.extend(origins[num_committed:])
        self._logprobs.extend(logprobs[num_committed:])
        self._rounds.extend(rounds[num_committed:])
        # Rule 1: the cloud drops the others in silence.
        self._in_flight = deque() if self.is_complete else without_stale(self._in_flight, self._cloud_ids)
        return self.tokens(length)
