"""A device that is ready, for a command: it writes one text at a time, and the screen says what is going on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings
from skydraft.core import Evidence, Mode, ShareLevel, parse_rule
from skydraft.edge import ready_device as edge
from skydraft.edge.device import Device


@asynccontextmanager
async def ready_device(settings: DeviceSettings, screen: Screen, is_alone: bool = False) -> AsyncIterator[Device]:
    """As `edge.ready_device`."""
    async with edge.ready_device(replace(settings, num_slots=1), screen.warn, screen.busy, is_alone) as device:
        device.settings = replace(device.settings, num_slots=settings.num_slots)
        yield device


def deaf_cloud(settings: DeviceSettings, has_seen: str, see: str) -> str | None:
    """What to say where a text is the word of a cloud that does not have the evidence.

    Args:
        has_seen: what it has not done, for example "heard the clip".
        see: how one does that.
    """
    if settings.evidence_leaves is not Evidence.NEVER or settings.keeps_to_itself:
        return None
    is_of_level = settings.share is ShareLevel.TOKENS
    kept, way_out = ("--share tokens", "--share features") if is_of_level else ("--evidence never", "--evidence unsure")
    if settings.mode is Mode.CLOUD:
        way_out = way_out if is_of_level else "--evidence always"
        return f"with {kept} the cloud writes without having {has_seen}; {way_out} lets it {see}"
    if settings.accept is not None and parse_rule(settings.accept).promises_cloud_text:
        return (
            f"with {kept} and --accept {settings.accept} the text is that of a cloud that has not {has_seen}; "
            f"use {way_out}, or --accept rank:20"
        )
    return None
