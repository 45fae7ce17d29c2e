"""When bytes that enter an emulated link come out of it. No sockets, no clocks."""

from __future__ import annotations

import random

import msgspec

from skydraft.errors import require

SEGMENT_BYTES = 1448  # of a TCP segment on Ethernet: a link passes no smaller pieces than it would packets
PIECE_S = 0.002  # and no larger ones than pass in this time, so that a transfer flows


class PathSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One direction of a link.

    delay_ms: one way.
    jitter_ms: the delay of each piece is uniform in delay_ms +- jitter_ms; none overtakes another.
    rate_mbps: megabits per second, shared by all connections; None is unlimited.
    burst_bytes: that pass at once after a pause (the depth of the token bucket).
    queue_bytes: of a connection that wait in the link; beyond it the sender must wait.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_mbps: float | None = None
    burst_bytes: int = 0
    queue_bytes: int = 2**18

    def __post_init__(self) -> None:
        require(0 <= self.delay_ms <= 60_000, "link setting delay_ms", self.delay_ms, "0 to 60000")
        delay_ms, jitter_ms = self.delay_ms, self.jitter_ms
        require(0 <= jitter_ms <= delay_ms, "link setting jitter_ms", jitter_ms, f"0 to delay_ms ({delay_ms:g})")
        if self.rate_mbps is not None:
            require(0.001 <= self.rate_mbps <= 100_000, "link setting rate_mbps", self.rate_mbps, "0.001 to 100000")
        require(0 <= self.burst_bytes <= 2**30, "link setting burst_bytes", self.burst_bytes, "0 to 2**30")
        require(1 <= self.queue_bytes <= 2**30, "link setting queue_bytes", self.queue_bytes, "1 to 2**30")

    @property
    def rate_bytes_per_s(self) -> float:
        return float("inf") if self.rate_mbps is None else self.rate_mbps * 1e6 / 8


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link, and what befalls it; times count from when the settings are applied.

    up, down: towards the upstream address, and back.
    seed: of the jitter.
    cut_after_s, cut_after_bytes: all connections break off at this time, or when so many bytes have passed in both
        directions together; None: never.
    refuse_s: after such a cut, new connections break off for so long.
    freeze_after_s, freeze_s: from this time on nothing passes, for so long; None: never.
    """

    up: PathSettings = PathSettings()
    down: PathSettings = PathSettings()
    seed: int = 0
    cut_after_s: float | None = None
    cut_after_bytes: int | None = None
    refuse_s: float = 0.0
    freeze_after_s: float | None = None
    freeze_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cut_after_s", "cut_after_bytes", "refuse_s", "freeze_after_s", "freeze_s"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"link setting {name}", value, "0 or more")


class Shaper:
    """One direction of a link: says when each piece comes out.

    Args:
        settings: may be changed later; what is inside comes out as it would have.
        seed: of the jitter; two shapers with one seed and the same pieces agree.
    """

    def __init__(self, settings: PathSettings, seed: int) -> None:
        self.settings = settings
        self._random = random.Random(seed)
        self._free_at = float("-inf")  # when the bottleneck has passed all that entered
        self._last_out = float("-inf")

    @property
    def piece_bytes(self) -> float:
        """How large a piece passes as one."""
        return max(SEGMENT_BYTES, self.settings.rate_bytes_per_s * PIECE_S)

    def schedule(self, num_bytes: int, now: float) -> float:
        """Let a piece enter.

        Args:
            now: in seconds; not before an earlier piece's.
        Returns:
            When it comes out, on the same clock; not before an earlier piece.
        """
        settings, rate = self.settings, self.settings.rate_bytes_per_s
        self._free_at = max(self._free_at, now - settings.burst_bytes / rate) + num_bytes / rate
        delay_ms = settings.delay_ms + settings.jitter_ms * self._random.uniform(-1, 1)
        self._last_out = max(self._last_out, max(now, self._free_at) + delay_ms / 1e3)
        return self._last_out
