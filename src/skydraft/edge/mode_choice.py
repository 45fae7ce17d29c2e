"""Which mode the next tokens of a text are written in, where that is left to measurement."""

from __future__ import annotations

from dataclasses import dataclass, field

from skydraft.core import Mode, Objective, ShareLevel
from skydraft.edge.machine import look_at_battery
from skydraft.policies.planner import Planner
from skydraft.policies.strategy import Decision, Situation, Strategy
from skydraft.policies.throughput import cloud_tokens_per_s, edge_tokens_per_s

REVIEW_TOKENS = 16  # between two looks at the situation


@dataclass
class ModeChoice:
    """Of one text.

    mode: as asked for; anything but `auto` is final.
    does_cloud_see_all: the cloud's prompt is the device's.
    """

    mode: Mode
    share: ShareLevel
    objective: Objective
    has_cloud: bool
    has_draft: bool
    does_cloud_see_all: bool
    planner: Planner
    _strategy: Strategy = field(default_factory=Strategy, init=False)
    _decision: Decision | None = field(default=None, init=False)
    _decided_at: int = field(default=0, init=False)

    @property
    def is_cloud_left_for_speed(self) -> bool:
        """Whether the device writes alone because the cloud was slow when it was last seen."""
        decision = self._decision
        return decision is not None and decision.mode is Mode.EDGE and decision.is_for_speed

    def reconsider(self) -> None:
        """A look at the cloud was a measurement: what it shows is not to be confirmed by others."""
        self._strategy, self._decision = Strategy(), None

    def at(self, length: int) -> Mode:
        """The mode for a text of this length to go on in.

        Raises:
            ConfigError: neither the device nor a cloud can write.
        """
        if self.mode is not Mode.AUTO:
            return self.mode
        if self._decision is None or length - self._decided_at >= REVIEW_TOKENS:
            self._decision, self._decided_at = self._strategy.decide(self._situation()), length
        return self._decision.mode

    def _situation(self) -> Situation:
        conditions, estimates = self.planner.conditions(), self.planner.estimates
        battery_share, is_plugged = look_at_battery()
        return Situation(
            share=self.share,
            has_cloud=self.has_cloud,
            is_reachable=True,  # what happens when it is not is a question of patience
            has_draft=self.has_draft,
            does_cloud_see_all=self.does_cloud_see_all,
            edge_tokens_per_s=edge_tokens_per_s(estimates.draft_s.at(1)) if estimates.draft_s.is_seen else None,
            cloud_tokens_per_s=cloud_tokens_per_s(conditions) if estimates.verify_s.is_seen else None,
            hybrid_tokens_per_s=self.planner.best_tokens_per_s if estimates.verify_s.is_seen else None,
            battery_share=battery_share,
            is_plugged=is_plugged,
            objective=self.objective,
        )
