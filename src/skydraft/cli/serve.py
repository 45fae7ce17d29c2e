"""`skydraft serve`: one local endpoint for any app."""

from __future__ import annotations

import asyncio

from skydraft.cli.screen import Screen
from skydraft.client.async_client import AsyncClient
from skydraft.cloud.access.guard import require_guards
from skydraft.cloud.logs import configure_logs
from skydraft.cloud.serve import bind
from skydraft.config import DeviceSettings, GatewaySettings
from skydraft.edge.model_name import name_of_model
from skydraft.gateway.serve import serve

ANNOUNCEMENT = "skydraft serves apps at "
PAGE_ANNOUNCEMENT = "and people at "


def run_serve(settings: GatewaySettings, device: DeviceSettings) -> None:
    """Load the models, start a cloud where none is named, print the address, serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: other machines could connect without a key or without TLS.
        SkydraftError: as `edge.ready_device`.
    """
    require_guards(settings)
    configure_logs(settings.log_format, settings.log_level)
    asyncio.run(_serve(settings, device, Screen()))


async def _serve(settings: GatewaySettings, device: DeviceSettings, screen: Screen) -> None:
    with bind(settings) as sock:
        async with AsyncClient(device, warn=screen.warn) as client:
            model = await name_of_model(client.settings)

            def announce(address: str) -> None:
                screen.text(ANNOUNCEMENT + address)
                screen.text(PAGE_ANNOUNCEMENT + address.removesuffix("v1"))

            await serve(settings, client, model, sock, announce)
