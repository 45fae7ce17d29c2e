from types import SimpleNamespace

import pytest

from skydraft.cloud.ray.scaling import QUEUE_S, QueueTimePolicy, wanted_replicas
from skydraft.errors import ConfigError


@pytest.mark.parametrize(
    ("num_replicas", "queue_s", "wanted"),
    [
        (2, [0.15, 0.15], 3.0),  # half as much again
        (2, [0.05, 0.15], 2),  # the mean is on target
        (4, [10.0] * 4, 8.0),  # no more than twice as many at once
        (3, [0.03] * 3, 3),  # below the target, and not idle
        (3, [0.02] * 3, 2),  # one at a time
        (1, [0.0], 1),
        (3, [], 3),  # nothing is known
    ],
)
def test_replicas_follow_the_mean_queue_time(num_replicas: int, queue_s: list[float], wanted: float) -> None:
    assert wanted_replicas(num_replicas, queue_s, 0.1) == pytest.approx(wanted)


def test_the_policy_reads_what_replicas_tell_and_takes_silence_as_no_reason_to_change() -> None:
    policy = QueueTimePolicy(target_s=0.2)
    metrics = {QUEUE_S: {"a": 0.4, "b": 0.4}, "other": {"a": 9.0}}
    assert policy(SimpleNamespace(current_num_replicas=2, aggregated_metrics=metrics)) == (4.0, {})
    silences: tuple[dict[str, dict[str, float]] | None, ...] = (None, {}, {QUEUE_S: {}})
    for silence in silences:
        assert policy(SimpleNamespace(current_num_replicas=2, aggregated_metrics=silence)) == (2, {})


@pytest.mark.parametrize("target_s", [0, -1, float("nan")])
def test_a_target_that_is_none_is_refused(target_s: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        QueueTimePolicy(target_s)
