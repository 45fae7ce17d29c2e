"""Which mode should write: the device alone, the cloud alone, or both. For a request, and again during it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from skydraft.core import Mode, Objective, ShareLevel
from skydraft.errors import ConfigError, TransportError

# A mode changes what the next tokens cost and, towards `edge`, how good they are; going back and forth shows. Round
# times over mobile networks scatter by a few per cent from one second to the next, so less than this is no lead.
LEAST_LEAD = 1.1
# And it must be seen so often in a row: noise that puts a challenger ahead in one look of five does it in three
# successive ones with probability 0.008. An observation is a few rounds, so a switch takes about a second.
NUM_CONFIRMATIONS = 3
# People read about 240 words a minute, which are some 5 tokens a second. A text that comes more slowly makes its
# reader wait, and then a smaller model's text in time is worth more than the large model's text late.
READING_TOKENS_PER_S = 5.0
# Where phones and laptops begin to save power by themselves.
LOW_BATTERY_SHARE = 0.2

_NAMES = {Mode.EDGE: "the device alone", Mode.CLOUD: "the cloud alone", Mode.HYBRID: "device and cloud together"}


@dataclass(frozen=True)
class Situation:
    """What is known when a mode is chosen.

    share: what may leave the device.
    has_cloud: one is configured. is_reachable: it answers now.
    has_draft: the device has a model.
    does_cloud_see_all: the cloud's prompt is the device's; otherwise it lacks the evidence and cannot write alone.
    edge_tokens_per_s, cloud_tokens_per_s, hybrid_tokens_per_s: of each mode, measured or estimated; None: unknown.
    battery_share: 0 empty to 1 full; None: there is no battery. is_plugged: it is being charged.
    objective: what matters most.
    """

    share: ShareLevel
    has_cloud: bool
    is_reachable: bool
    has_draft: bool
    does_cloud_see_all: bool = True
    edge_tokens_per_s: float | None = None
    cloud_tokens_per_s: float | None = None
    hybrid_tokens_per_s: float | None = None
    battery_share: float | None = None
    is_plugged: bool = False
    objective: Objective = Objective.LATENCY

    def __post_init__(self) -> None:
        for name in ("edge_tokens_per_s", "cloud_tokens_per_s", "hybrid_tokens_per_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value} and must be above 0, or None where it is unknown")
        if self.battery_share is not None and not 0 <= self.battery_share <= 1:
            raise ConfigError(f"battery_share is {self.battery_share} and must be 0 to 1, or None without a battery")

    @property
    def is_on_battery(self) -> bool:
        return self.battery_share is not None and not self.is_plugged

    @property
    def is_battery_low(self) -> bool:
        return self.is_on_battery and (self.battery_share or 0.0) <= LOW_BATTERY_SHARE

    def tokens_per_s(self, mode: Mode) -> float | None:
        match mode:
            case Mode.EDGE:
                return self.edge_tokens_per_s
            case Mode.CLOUD:
                return self.cloud_tokens_per_s
            case Mode.HYBRID:
                return self.hybrid_tokens_per_s
            case Mode.AUTO:
                return None


@dataclass(frozen=True)
class Decision:
    """A mode, and a sentence for a person on why.

    is_for_speed: others were measured to be slower, and nothing but their speed speaks against them.
    """

    mode: Mode
    reason: str
    is_for_speed: bool = False


@dataclass
class Strategy:
    """Chooses the mode of one request, and keeps it until another is better beyond doubt.

    What is impossible or forbidden is left at once. Otherwise a switch needs a lead of LEAST_LEAD, seen in
    NUM_CONFIRMATIONS observations in a row. A text does not begin in the cloud alone for its speed: with drafts it is
    as fast but for little, and only drafts show that the device has become faster.
    """

    _mode: Mode | None = field(default=None, init=False)
    _challenger: Mode | None = field(default=None, init=False)
    _num_seen: int = field(default=0, init=False)  # the challenger, in a row

    def decide(self, situation: Situation) -> Decision:
        """Choose a mode; call it again when the situation has been observed anew, such as after a few rounds.

        Raises: as `choose_mode`.
        """
        decision = choose_mode(situation, self._mode)
        if self._mode is None and decision.mode is Mode.CLOUD and decision.is_for_speed:
            return self._take(
                Decision(Mode.HYBRID, f"a text begins with drafts, for they are timed; {decision.reason}")
            )
        if self._mode is None or self._mode not in _possible_modes(situation):
            return self._take(decision)
        if decision.mode is self._mode:
            self._challenger, self._num_seen = None, 0
            return decision
        return self._confirm(self._mode, decision)

    def _take(self, decision: Decision) -> Decision:
        self._mode, self._challenger, self._num_seen = decision.mode, None, 0
        return decision

    def _confirm(self, mode: Mode, decision: Decision) -> Decision:
        self._num_seen = self._num_seen + 1 if decision.mode is self._challenger else 1
        self._challenger = decision.mode
        if self._num_seen >= NUM_CONFIRMATIONS:
            return self._take(decision)
        seen = f"{self._num_seen} of {NUM_CONFIRMATIONS} times"
        return Decision(mode, f"{_NAMES[mode]} for now: {_NAMES[decision.mode]} looked better {seen} in a row")


def choose_mode(situation: Situation, incumbent: Mode | None = None) -> Decision:
    """The best mode in a situation, without regard to how long it has been the best.

    `cloud` and `hybrid` give the large model's text (under the exact rule the very same), `edge` the small model's: so
    the device alone is not chosen for being fast, only where nothing else may or can write, where privacy or the
    battery asks for it, or where the others are slower than people read.

    Args:
        incumbent: the mode that writes now; others must be faster by LEAST_LEAD.
    Raises:
        ConfigError: neither side can write: the device has no model, and no cloud is configured or nothing may leave.
        TransportError: the device has no model and the cloud cannot be reached.
    """
    forced = _forced(situation)
    if forced is not None:
        return forced
    view = _View(situation, incumbent)
    match situation.objective:
        case Objective.PRIVACY:
            return Decision(Mode.EDGE, "the objective is privacy, and what the device writes alone does not leave it")
        case Objective.COST:
            reason = "the objective is cost, and the cloud judges a drafted block in one forward pass"
            return view.unless_slow(Decision(Mode.HYBRID, reason))
        case Objective.ENERGY if situation.is_on_battery:
            return _spare_battery(view, "the objective is energy")
        case Objective.LATENCY if situation.is_battery_low:
            return _spare_battery(view, f"the battery is at {situation.battery_share:.0%}")
    return view.unless_slow(view.faster_of_both())


def _possible_modes(situation: Situation) -> frozenset[Mode]:
    forced = _forced(situation)
    if forced is not None:
        return frozenset({forced.mode})
    return frozenset(_NAMES) if situation.does_cloud_see_all else frozenset({Mode.EDGE, Mode.HYBRID})


def _forced(situation: Situation) -> Decision | None:
    """What leaves no choice."""
    if situation.share is ShareLevel.NONE:
        _require_draft(situation, ConfigError("share level none lets nothing leave the device"))
        return Decision(Mode.EDGE, "share level none lets nothing leave the device")
    if not situation.has_cloud:
        _require_draft(situation, ConfigError("no cloud is configured"))
        return Decision(Mode.EDGE, "no cloud is configured")
    if not situation.is_reachable:
        _require_draft(situation, TransportError("the cloud cannot be reached"))
        return Decision(Mode.EDGE, "the cloud cannot be reached")
    if not situation.has_draft:
        blind = "" if situation.does_cloud_see_all else ", and so without what the device observed"
        return Decision(Mode.CLOUD, f"the device has no draft model, so the cloud writes alone{blind}")
    return None


def _require_draft(situation: Situation, obstacle: ConfigError | TransportError) -> None:
    if not situation.has_draft:
        raise type(obstacle)(f"{obstacle}, and the device has no model to write with alone: give it a draft model")


def _spare_battery(view: _View, occasion: str) -> Decision:
    """In the cloud the device computes nothing; where that cannot be, without radio."""
    if not view.situation.does_cloud_see_all:
        return Decision(Mode.EDGE, f"{occasion}: the device writes alone, without radio")
    return view.unless_slow(Decision(Mode.CLOUD, f"{occasion}: the cloud writes, so that the device computes nothing"))


class _View(NamedTuple):
    """A situation as seen from the mode that writes now."""

    situation: Situation
    incumbent: Mode | None

    def speed(self, mode: Mode) -> float | None:
        """Tokens per second, less the lead that others than the incumbent must have."""
        speed = self.situation.tokens_per_s(mode)
        is_handicapped = self.incumbent is not None and mode is not self.incumbent
        return speed / LEAST_LEAD if speed is not None and is_handicapped else speed

    def faster_of_both(self) -> Decision:
        """Of the modes that give the large model's text."""
        if not self.situation.does_cloud_see_all:
            return Decision(Mode.HYBRID, "the cloud does not see what the device observed, and judges what it drafts")
        hybrid, cloud = self.speed(Mode.HYBRID), self.speed(Mode.CLOUD)
        if hybrid is None or cloud is None:
            unknown = _NAMES[Mode.CLOUD] if cloud is None else _NAMES[Mode.HYBRID]
            return Decision(Mode.HYBRID, f"the speed of {unknown} is not known yet, and drafts seldom make it slower")
        # On a tie the incumbent; at first hybrid, whose cloud has less to do.
        mode = Mode.CLOUD if cloud > hybrid or (cloud == hybrid and self.incumbent is Mode.CLOUD) else Mode.HYBRID
        reason = self._compared(mode, Mode.CLOUD if mode is Mode.HYBRID else Mode.HYBRID)
        return Decision(mode, reason, is_for_speed=True)

    def unless_slow(self, decision: Decision) -> Decision:
        """The device alone where the decision's mode is slower than people read, and slower than the device."""
        speed, alone = self.speed(decision.mode), self.speed(Mode.EDGE)
        if speed is None or alone is None or speed >= READING_TOKENS_PER_S or alone <= speed:
            return decision
        slow = f"{_NAMES[decision.mode]} would be slower than people read ({READING_TOKENS_PER_S:g} tokens/s)"
        return Decision(Mode.EDGE, f"{slow}: {self._compared(Mode.EDGE, decision.mode)}", is_for_speed=True)

    def _compared(self, better: Mode, worse: Mode) -> str:
        ours, theirs = (self.situation.tokens_per_s(mode) for mode in (better, worse))
        return f"{_NAMES[better]} at {ours:.3g} tokens/s, {_NAMES[worse]} at {theirs:.3g}"
