import math
import statistics

import pytest

from skydraft.errors import ConfigError
from skydraft.transport.link.shaping import SEGMENT_BYTES, LinkSettings, PathSettings, Shaper


def test_without_settings_pieces_come_out_as_they_enter() -> None:
    shaper = Shaper(PathSettings(), 0)
    assert [shaper.schedule(1000, now) for now in (0.0, 1.0, 1.0)] == [0.0, 1.0, 1.0]
    assert shaper.piece_bytes == math.inf


def test_delay_is_added_once_and_not_for_each_piece() -> None:
    shaper = Shaper(PathSettings(delay_ms=25), 0)
    assert [shaper.schedule(1000, now) for now in (0.0, 0.001, 0.002)] == pytest.approx([0.025, 0.026, 0.027])


def test_a_rate_spaces_pieces_by_their_size() -> None:
    shaper = Shaper(PathSettings(rate_mbps=8, delay_ms=10), 0)  # a megabyte a second
    assert [shaper.schedule(size, 0.0) for size in (1000, 2000, 500)] == pytest.approx([0.011, 0.013, 0.0135])


def test_an_idle_link_saves_nothing_without_a_burst() -> None:
    shaper = Shaper(PathSettings(rate_mbps=8), 0)
    assert [shaper.schedule(1000, now) for now in (0.0, 5.0, 5.0)] == pytest.approx([0.001, 5.001, 5.002])


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    shaper = Shaper(PathSettings(rate_mbps=8, burst_bytes=2000), 0)
    assert [shaper.schedule(1000, 1.0) for _ in range(4)] == pytest.approx([1.0, 1.0, 1.001, 1.002])


def test_pieces_are_no_smaller_than_segments_and_take_two_milliseconds() -> None:
    assert Shaper(PathSettings(rate_mbps=0.1), 0).piece_bytes == SEGMENT_BYTES
    assert Shaper(PathSettings(rate_mbps=80), 0).piece_bytes == 20_000


def test_jitter_spreads_uniformly_around_the_delay() -> None:
    shaper = Shaper(PathSettings(delay_ms=50, jitter_ms=20), 7)
    delays_ms = [1e3 * (shaper.schedule(100, now) - now) for now in range(2000)]
    assert 30 <= min(delays_ms) < 31
    assert 69 < max(delays_ms) <= 70
    assert statistics.mean(delays_ms) == pytest.approx(50, abs=1)
    assert statistics.stdev(delays_ms) == pytest.approx(20 / math.sqrt(3), rel=0.05)


def test_jitter_keeps_the_order() -> None:
    shaper = Shaper(PathSettings(delay_ms=50, jitter_ms=50), 7)
    out = [shaper.schedule(100, now / 1e3) for now in range(1000)]
    assert out == sorted(out)


def test_one_seed_gives_one_jitter() -> None:
    settings = PathSettings(delay_ms=50, jitter_ms=20)
    one, same, other = (Shaper(settings, seed) for seed in (1, 1, 2))
    outs = [[shaper.schedule(1, float(now)) for now in range(9)] for shaper in (one, same, other)]
    assert outs[0] == outs[1] != outs[2]


def test_changed_settings_hold_for_what_enters_later_and_nothing_overtakes() -> None:
    shaper = Shaper(PathSettings(delay_ms=100), 0)
    assert shaper.schedule(1, 0.0) == pytest.approx(0.1)
    shaper.settings = PathSettings()
    assert shaper.schedule(1, 0.05) == pytest.approx(0.1)
    assert shaper.schedule(1, 0.2) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"delay_ms": -1}, "delay_ms is -1"),
        ({"delay_ms": float("nan")}, "delay_ms is nan"),
        ({"jitter_ms": 1}, "jitter_ms is 1 and must be 0 to delay_ms"),
        ({"rate_mbps": 0}, "rate_mbps is 0"),
        ({"queue_bytes": 0}, "queue_bytes is 0"),
        ({"burst_bytes": -1}, "burst_bytes is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        PathSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cut_after_s", "cut_after_bytes", "refuse_s", "freeze_after_s", "freeze_s"])
def test_what_befalls_a_link_lies_ahead(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        LinkSettings(**{name: -1})  # type: ignore[arg-type]
