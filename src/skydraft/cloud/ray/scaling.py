"""How many replicas a cloud should have, from the time that work waits for its forward pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean
from typing import Any, Protocol

from skydraft.errors import require

QUEUE_S = "queue_s"  # a replica's metric, for Ray's controller
MAX_GROWTH = 2.0  # at once: a queue grows faster than what causes it
IDLE_SHARE = 0.25  # of the target: below, one replica fewer would do


class ScalingContext(Protocol):
    """The part of Ray's `AutoscalingContext` that is used."""

    current_num_replicas: int

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...


class QueueTimePolicy:
    """An autoscaling policy of Ray Serve.

    It does not count connections: an idle one costs nothing, and one that offers trees costs much. Queue time is what
    devices notice. Ray applies its bounds and delays (`min_replicas`, `max_replicas`, `upscale_delay_s`,
    `downscale_delay_s`) to what is decided here.

    Args:
        target_s: of queue time; some forward passes long.
    Raises:
        ConfigError: it is not above 0.
    """

    def __init__(self, target_s: float = 0.1) -> None:
        require(target_s > 0, "target_s", target_s, "above 0: seconds that work may wait")
        self._target_s = target_s

    def __call__(self, context: ScalingContext) -> tuple[float, dict[str, Any]]:
        """How many replicas there should be, and no state."""
        queue_s = (context.aggregated_metrics or {}).get(QUEUE_S, {}).values()
        return wanted_replicas(context.current_num_replicas, queue_s, self._target_s), {}


def wanted_replicas(num_replicas: int, queue_s: Collection[float], target_s: float) -> float:
    """How many replicas there should be.

    Args:
        num_replicas: that there are.
        queue_s: mean queue time of each replica that reported one; empty: nothing is known, and nothing changes.
    """
    if not queue_s:
        return num_replicas
    load = fmean(queue_s) / target_s
    if load > 1:
        return num_replicas * min(load, MAX_GROWTH)
    return max(1, num_replicas - 1) if load < IDLE_SHARE else num_replicas
