"""What a request may choose of where its text is written: what lets less leave the device than its configuration does.

Each setting has an order, and what is compared is what the settings come to: mode auto under the objective privacy asks
no cloud, and mode cloud has the evidence leave at once where nothing else is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import gt
from typing import NamedTuple

from skydraft.config import DeviceSettings
from skydraft.core import AcceptanceRule, Evidence, Exact, Mode, Objective, ShareLevel, parse_rule
from skydraft.gateway.problems import BadRequest

_SHARES = (ShareLevel.NONE, ShareLevel.TOKENS, ShareLevel.FEATURES)
_EVIDENCE = (Evidence.NEVER, Evidence.UNSURE, Evidence.ALWAYS)


class _Amount(NamedTuple):
    """How much a setting lets leave the device. ranks: more is more, each by itself. value: in words."""

    ranks: Sequence[int]
    value: str


def refuse_more(configured: DeviceSettings, asked: DeviceSettings) -> None:
    """Refuse settings of a text that let more leave the device than it is configured for.

    Raises:
        BadRequest: naming both values.
    """
    for name, amount in _AMOUNTS.items():
        most, wanted = amount(configured), amount(asked)
        if any(map(gt, wanted.ranks, most.ranks)):
            raise BadRequest(
                f"{name} {wanted.value} lets more leave the device than its configuration allows ({most.value})",
                "skydraft",
            )


def refuse_asking_about_sounds(configured: DeviceSettings, asked: DeviceSettings) -> None:
    """Refuse settings by which a cloud is asked about a sound that the device is configured to caption alone.

    Raises:
        BadRequest: naming them.
    """
    if configured.captions_alone and not asked.captions_alone:
        why = "mode 'cloud'" if asked.mode is Mode.CLOUD else f"accept {asked.accept!r}"
        raise BadRequest(
            f"{why} would have the cloud asked about a sound, and with share {configured.share.value!r} and evidence "
            f"{configured.evidence_leaves.value!r} this device captions alone: leave it out",
            "skydraft",
        )


def _share(settings: DeviceSettings) -> _Amount:
    return _Amount((_SHARES.index(settings.share),), repr(settings.share.value))


def _mode(settings: DeviceSettings) -> _Amount:
    """The cloud alone gets the prompt, and with drafts it gets what the device guesses too; auto may be either."""
    value = repr(settings.mode.value)
    if settings.keeps_to_itself:
        is_private = settings.mode is Mode.AUTO and settings.objective is Objective.PRIVACY
        return _Amount((0,), f"{value} with objective 'privacy'" if is_private else value)
    return _Amount((1 if settings.mode is Mode.CLOUD else 2,), value)


def _objective(settings: DeviceSettings) -> _Amount:
    """For privacy gates and plans ask less; the others differ in what they cost."""
    return _Amount((int(settings.objective is not Objective.PRIVACY),), repr(settings.objective.value))


def _evidence(settings: DeviceSettings) -> _Amount:
    leaves = Evidence.NEVER if settings.keeps_to_itself else settings.evidence_leaves
    value = repr(leaves.value)
    return _Amount(
        (_EVIDENCE.index(leaves),), value if settings.evidence else f"{value} with mode {settings.mode.value!r}"
    )


def _accept(settings: DeviceSettings) -> _Amount:
    """The cloud is asked about less where the text need not be its own; a lattice tells what else was likely."""
    rule: AcceptanceRule = Exact() if settings.accept is None else parse_rule(settings.accept)
    return _Amount((int(rule.promises_cloud_text), *(rule.draft_lattice or (0, 0))), repr(str(rule)))


def _way(settings: DeviceSettings) -> _Amount:
    """Without drafts nothing of the device's own leaves, such as parts of its user's earlier texts."""
    return _Amount((int(settings.way != "cloud"),), repr(settings.way))


_AMOUNTS: dict[str, Callable[[DeviceSettings], _Amount]] = {
    "share": _share,
    "mode": _mode,
    "objective": _objective,
    "evidence": _evidence,
    "accept": _accept,
    "way": _way,
}
# Settings that a request may choose, in its field `skydraft` or in a header such as X-Skydraft-Share.
OWN_FIELDS = tuple(_AMOUNTS)
