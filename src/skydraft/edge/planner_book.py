"""What was learnt of clouds, from one text to the next: a planner is of one text at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from skydraft.core import Objective, PassTimes
from skydraft.edge.cloud_address import CloudAddress
from skydraft.policies.estimates import Estimates
from skydraft.policies.planner import Planner
from skydraft.policies.way import Way
from skydraft.transport.address import is_loopback, session_url

MAX_KINDS = 64  # of clouds, objectives and ways together, whose planners are kept

Kind = tuple[CloudAddress | None, Objective, Way | None]


class PlannerBook:
    """Planners by cloud, objective and way; texts that are written at the same time have one each.

    Args:
        draft_times: of the draft model; None: they are learnt from text.
        has_draft: there is one.
    """

    def __init__(self, draft_times: PassTimes | None, has_draft: bool = True) -> None:
        self._draft_times = draft_times
        self._has_draft = has_draft
        self._known: dict[Kind, Planner] = {}  # what the text that ended last has learnt; the longest known is first

    @contextmanager
    def planner(self, address: CloudAddress | None, objective: Objective, way: Way | None) -> Iterator[Planner]:
        """A planner for one text. What it learns serves those that begin when this one has ended."""
        kind = address, objective, way
        planner = self._known.pop(kind, None) or self._new(kind)
        self._keep(kind, deepcopy(planner))  # for a text that begins meanwhile
        try:
            yield planner
        finally:
            planner.stop_drafting()
            self._keep(kind, planner)

    def _keep(self, kind: Kind, planner: Planner) -> None:
        self._known.pop(kind, None)
        self._known[kind] = planner
        while len(self._known) > MAX_KINDS:
            del self._known[next(iter(self._known))]

    def _new(self, kind: Kind) -> Planner:
        address, objective, way = kind
        estimates = Estimates(is_near=address is not None and is_loopback(session_url(address.url)))
        if self._draft_times is not None:
            estimates.draft_s.tell(self._draft_times)
        return Planner(objective, way, estimates, self._has_draft)
