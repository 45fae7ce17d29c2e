"""What was learnt of clouds and of kinds of text, from one text to the next: a planner is of one text at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

from skydraft.core import Objective, PassTimes
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.kept_agreement import KeptAgreement
from skydraft.policies.estimates import Estimates
from skydraft.policies.habits import Habits
from skydraft.policies.planner import Planner
from skydraft.policies.way import Way
from skydraft.transport.address import is_loopback, session_url

MAX_PLACES = 64  # of clouds, objectives and ways together, whose planners are kept
MAX_KINDS = 256  # of these and kinds of text together

Place = tuple[CloudAddress | None, Objective, Way | None]
Key = TypeVar("Key")
Known = TypeVar("Known")


class PlannerBook:
    """Planners by cloud, objective and way; texts that are written at the same time have one each.

    Args:
        draft_times: of the draft model; None: they are learnt from text.
        has_draft: there is one.
        agreement: what was learnt before this device was loaded; None: nothing, and nothing is kept.
    """

    def __init__(
        self, draft_times: PassTimes | None, has_draft: bool = True, agreement: KeptAgreement | None = None
    ) -> None:
        self._draft_times = draft_times
        self._has_draft = has_draft
        self._agreement = agreement
        self._known: dict[Place, Planner] = {}  # what the text that ended last has learnt
        self._habits: dict[tuple[Place, str], Habits] = {}

    @contextmanager
    def planner(
        self, address: CloudAddress | None, objective: Objective, way: Way | None, kind: str = ""
    ) -> Iterator[Planner]:
        """A planner for one text. What it learns serves those that begin when this one has ended.

        Args:
            kind: of text: how drafts did in the last text of a kind, they are expected to do in the next. Of one that
                was never seen, as in the last of any.
        """
        place = address, objective, way
        planner = deepcopy(self._known.get(place)) or self._new(place)
        planner.habits = self._habits_in(place, kind) or planner.habits
        try:
            yield planner
        finally:
            planner.stop_drafting()
            _keep(self._known, place, planner, MAX_PLACES)
            _keep(self._habits, (place, kind), planner.habits, MAX_KINDS)
            if self._agreement is not None and address is not None:
                self._agreement.note(kind, planner.habits.confidence)

    def close(self) -> None:
        """Keep what was learnt for when this device is loaded again."""
        if self._agreement is not None:
            self._agreement.save()

    def _habits_in(self, place: Place, kind: str) -> Habits | None:
        """How drafts did in this kind of text; None: nobody has seen one."""
        if known := self._habits.get((place, kind)):
            return deepcopy(known)
        address, *_ = place
        confidence = self._agreement.find(kind) if self._agreement is not None and address else None
        return None if confidence is None else Habits(confidence)

    def _new(self, place: Place) -> Planner:
        address, objective, way = place
        estimates = Estimates(is_near=address is not None and is_loopback(session_url(address.url)))
        if self._draft_times is not None:
            estimates.draft_s.tell(self._draft_times)
        return Planner(objective, way, estimates, self._has_draft)


def _keep(known: dict[Key, Known], key: Key, value: Known, most: int) -> None:
    """The longest known is first, and is the first to be forgotten."""
    known.pop(key, None)
    known[key] = value
    while len(known) > most:
        del known[next(iter(known))]
