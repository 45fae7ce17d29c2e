"""Looks at everything that writing with a cloud needs, and says of each thing whether it is in order."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field

from msgspec.structs import replace

from skydraft import __version__
from skydraft.config import DeviceSettings
from skydraft.core import Prompt, ShareLevel
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import HEALTH_PATH, CloudFacts, CloudRows, inquire
from skydraft.edge.device import engine_settings
from skydraft.edge.doctor.measure import (
    BATCH_SIZE,
    BLOCK_LENGTH,
    DraftSpeed,
    LinkSpeed,
    Measurement,
    Rounds,
    measure_draft,
    measure_link,
    measurement_prompt,
)
from skydraft.edge.draft_choice import choose_draft
from skydraft.edge.machine import Machine, Speed, drafting_capacity, look_at_machine, measure_speed
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.errors import SkydraftError, TransportError, VocabularyMismatch
from skydraft.policies.known_models import DraftProposal, propose_known_draft
from skydraft.policies.strategy import Decision, Situation, choose_mode
from skydraft.policies.tiers import LEAST_DRAFT_TOKENS_PER_S, Proposal, propose
from skydraft.transport.websocket import Connection, connect

# A round waits for the link once: from here on that alone takes as long as people read a token.
LONG_ROUND_TRIP_S = 0.2
# Of the round trip; below a few milliseconds it is the scheduling of both machines.
LARGE_JITTER_SHARE = 0.5
LEAST_JITTER_S = 0.01
BUSY_SHARE = 0.3


class FindingState(enum.StrEnum):
    """Of one thing that was looked at."""

    OK = "ok"
    WEAK = "weak"  # works, and could be better
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """check: what was looked at. sentence: what was found, and, unless it is ok, what to do. For a person."""

    check: str
    state: FindingState
    sentence: str


@dataclass
class Checkup:
    """What was measured, as far as the look came, and what was found.

    handshake_s: connection, TLS and WebSocket together. cloud_tokens_per_s: of the cloud alone.
    known_draft: for the cloud's model, where that is a published one that skydraft knows.
    """

    machine: Machine
    speed: Speed
    proposal: Proposal
    findings: list[Finding] = field(default_factory=list)
    draft: DraftSpeed | None = None
    handshake_s: float | None = None
    link: LinkSpeed | None = None
    cloud: CloudFacts | None = None
    known_draft: DraftProposal | None = None
    rounds: Rounds | None = None
    cloud_tokens_per_s: float | None = None
    decision: Decision | None = None

    @property
    def is_well(self) -> bool:
        return all(finding.state is not FindingState.FAILED for finding in self.findings)

    def note(self, check: str, sentence: str, advice: str | None = None) -> None:
        """Take down a finding; one with advice is weak."""
        state = FindingState.OK if advice is None else FindingState.WEAK
        self.findings.append(Finding(check, state, sentence if advice is None else f"{sentence}: {advice}"))

    def fail(self, check: str, error: Exception | str) -> None:
        self.findings.append(Finding(check, FindingState.FAILED, str(error)))


class _DraftModel:
    """The draft model, loaded to be measured."""

    def __init__(self, settings: DeviceSettings) -> None:
        self.engine: Engine = load_engine(
            settings.draft, "draft", replace(engine_settings(settings), num_slots=BATCH_SIZE)
        )
        tokenizer = load_tokenizer(settings.draft, "draft")
        self.vocabulary = tokenizer.vocabulary
        self.prompt: Prompt = measurement_prompt(tokenizer.encode)


async def check_up(settings: DeviceSettings) -> Checkup:
    """Look at the machine, at its draft model and, where the settings name one, at the cloud.

    Raises:
        ConfigError: the cloud's address is none.
    """
    machine = look_at_machine()
    speed = measure_speed(machine)
    checkup = Checkup(machine, speed, propose(drafting_capacity(machine, speed)))
    _check_load(checkup)
    model = await _check_draft(checkup, settings)
    if settings.cloud is not None:
        await _check_cloud(checkup, CloudAddress(settings.cloud, settings.key), model, settings.share)
    _recommend(checkup, settings, has_draft=model is not None)
    return checkup


def _check_load(checkup: Checkup) -> None:
    busy_share = checkup.machine.busy_share
    if busy_share > BUSY_SHARE:
        sentence = f"other programs use {busy_share:.0%} of the processor"
        checkup.note("machine", sentence, "what is measured now is slower than it could be; look again when it is idle")


async def _check_draft(checkup: Checkup, settings: DeviceSettings) -> _DraftModel | None:
    try:
        settings = await choose_draft(settings)
        if settings.has_only_lookup:
            checkup.note("draft", f"looked up, with the tokens of {settings.draft_model}: no model is read")
            return None
        model = _DraftModel(settings)
        draft = measure_draft(model.engine, model.prompt)
    except SkydraftError as error:
        checkup.fail("draft", error)
        return None
    checkup.draft = draft
    tokens_per_s = 1 / draft.step_s
    sentence = (
        f"{model.engine.name}: a step takes {_ms(draft.step_s)} ({tokens_per_s:,.0f} tokens/s), "
        f"one for {BATCH_SIZE} texts together {_ms(draft.batch_step_s)}"
    )
    is_slow = tokens_per_s < LEAST_DRAFT_TOKENS_PER_S
    advice = "too slow to draft with; choose a smaller --draft, or --quantize it, or let the cloud write (--mode cloud)"
    checkup.note("draft", sentence, advice if is_slow else None)
    return model


async def _check_cloud(checkup: Checkup, address: CloudAddress, model: _DraftModel | None, share: ShareLevel) -> None:
    start_s = time.perf_counter()
    try:
        connection = await connect(address.url, token=address.key)
    except SkydraftError as error:
        checkup.fail("cloud", error)
        return
    checkup.handshake_s = time.perf_counter() - start_s
    try:
        await _check_health(checkup, address)
        is_steady = await _check_link(checkup, connection)
    finally:
        await connection.close()
    if is_steady and model is not None:
        await _check_rounds(checkup, Measurement(address, model.vocabulary, model.prompt, share), model)


async def _check_health(checkup: Checkup, address: CloudAddress) -> None:
    try:
        facts = checkup.cloud = await inquire(address, HEALTH_PATH, CloudFacts)
    except TransportError as error:
        checkup.note(
            "cloud",
            f"sessions are taken and {HEALTH_PATH} gives no answer ({error})",
            "a proxy in between may hold it back",
        )
        return
    is_same = facts.version in (None, __version__)
    sentence = f"{facts.model or 'a model'} on skydraft {facts.version or 'unknown'}"
    advice = f"this side is {__version__}; update the older of the two"
    checkup.note("cloud", sentence, None if is_same else advice)
    if facts.rows is not None:
        _note_promise(checkup, facts.rows)
    if facts.model is not None:
        checkup.known_draft = propose_known_draft(facts.model, drafting_capacity(checkup.machine, checkup.speed))


def _note_promise(checkup: Checkup, rows: CloudRows) -> None:
    if rows.is_invariant:
        checkup.note("exactness", f"promised under the rule exact: {rows.reason}")
        return
    measured = "not measured" if rows.gap_change is None else f"measured when it was loaded: {rows.gap_change:.2g}"
    checkup.note(
        "exactness",
        f"texts may differ from the cloud's own where two tokens' logits are about as near to each other as rounding "
        f"({measured}), for {rows.reason}",
        "a result says how many choices were so near; --strict refuses such a cloud",
    )


async def _check_link(checkup: Checkup, connection: Connection) -> bool:
    """Measure the link; returns whether the connection stood."""
    try:
        link = checkup.link = await measure_link(connection)
    except SkydraftError as error:
        checkup.fail("link", error)
        return False
    sentence = (
        f"connected in {_ms(checkup.handshake_s or 0.0)}, a round trip takes {_ms(link.round_trip_s)} "
        f"and varies by {_ms(link.jitter_s)} ({link.num_pings} pings)"
    )
    checkup.note("link", sentence, _link_advice(link))
    return True


def _link_advice(link: LinkSpeed) -> str | None:
    if link.round_trip_s > LONG_ROUND_TRIP_S:
        return "long; take a cloud nearer by, or longer blocks (--block-length 7)"
    if link.jitter_s > max(LEAST_JITTER_S, LARGE_JITTER_SHARE * link.round_trip_s):
        return "unsteady; a cable or a stronger signal would make texts come evenly"
    return None


async def _check_rounds(checkup: Checkup, measurement: Measurement, model: _DraftModel) -> None:
    try:
        rounds = checkup.rounds = await measurement.write_together(model.engine)
    except VocabularyMismatch as error:
        checkup.fail("vocabulary", error)
        return
    except SkydraftError as error:
        checkup.fail("rounds", error)
        return
    checkup.note("vocabulary", f"draft and cloud share {model.vocabulary.num_tokens:,} token ids")
    checkup.note(
        "rounds",
        f"a block of {BLOCK_LENGTH} is drafted in {_ms(rounds.draft_s)} and judged in {_ms(rounds.round_s)}, "
        f"{rounds.num_accepted} of {rounds.num_drafted} tokens accepted",
    )
    try:
        checkup.cloud_tokens_per_s = await measurement.write_in_cloud()
    except SkydraftError as error:
        checkup.fail("cloud alone", error)
        return
    checkup.note("cloud alone", f"writes {checkup.cloud_tokens_per_s:,.0f} tokens/s")


def _recommend(checkup: Checkup, settings: DeviceSettings, has_draft: bool) -> None:
    """Recommend a mode by these measurements, where the device or a cloud can write."""
    situation = Situation(
        share=settings.share,
        has_cloud=settings.cloud is not None,
        is_reachable=checkup.link is not None,
        has_draft=has_draft,
        edge_tokens_per_s=None if checkup.draft is None else 1 / checkup.draft.step_s,
        cloud_tokens_per_s=checkup.cloud_tokens_per_s,
        hybrid_tokens_per_s=None if checkup.rounds is None else checkup.rounds.tokens_per_s,
        battery_share=checkup.machine.battery_share,
        is_plugged=checkup.machine.is_plugged,
        objective=settings.objective,
    )
    if has_draft or (checkup.link is not None and settings.share is not ShareLevel.NONE):
        checkup.decision = choose_mode(situation)


def _ms(time_s: float) -> str:
    return f"{1000 * time_s:.3g} ms"
