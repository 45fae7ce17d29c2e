"""GET /v1/choices: what a request may choose here, for whoever shows it, such as the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from skydraft.config import DeviceSettings
from skydraft.core import Evidence, Mode, Objective, ShareLevel
from skydraft.edge.ready_device import require_language_models
from skydraft.errors import ConfigError
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.requests import SamplingRequest
from skydraft.gateway.sampling import ROUND_TRIP, settings_for

Choice: TypeAlias = ShareLevel | Evidence | Objective | Mode
SHOWN: Mapping[str, type[Choice]] = {
    "share": ShareLevel,
    "evidence": Evidence,
    "objective": Objective,
    "mode": Mode,
}


async def choices(request: Request) -> Response:
    """With what texts are written, and what of that a request may choose: for each setting the values, ours first."""
    gateway: Gateway = request.app.state.gateway
    gateway.admit(request)
    settings, device = gateway.device_settings, gateway.device
    facts = {
        "model": gateway.model,
        "draft": settings.draft,
        "can_hear": device.can_hear,
        "can_chat": can_chat(settings),
        "max_tokens": settings.max_tokens,
        "choices": {**allowed_values(settings, device.has_draft), ROUND_TRIP: list(gateway.distances)},
    }
    return Response(msgspec.json.encode(facts), media_type="application/json")


def can_chat(settings: DeviceSettings) -> bool:
    """Whether the models write texts, and not captions only."""
    try:
        require_language_models(settings)
    except ConfigError:
        return False
    return True


def allowed_values(settings: DeviceSettings, has_draft: bool) -> dict[str, list[str]]:
    """The values of each setting that a request may choose, the configured one first."""
    return {
        name: sorted(
            (value.value for value in values if _is_allowed(settings, has_draft, name, value)),
            key=lambda value: value != _configured(settings, name),
        )
        for name, values in SHOWN.items()
    }


def _configured(settings: DeviceSettings, name: str) -> str:
    return str(settings.evidence_leaves if name == "evidence" else getattr(settings, name))


def _is_allowed(settings: DeviceSettings, has_draft: bool, name: str, value: Choice) -> bool:
    if value in (Mode.EDGE, ShareLevel.NONE) and not has_draft:
        return False
    own = {name: value.value, **({"mode": Mode.EDGE.value} if value is ShareLevel.NONE else {})}
    try:
        settings_for(settings, SamplingRequest(), own)
    except (BadRequest, ConfigError):
        return False
    return True
