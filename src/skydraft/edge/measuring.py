"""Measures a cloud: its link while a text is written with it, and its pace by a few tokens where none is."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from skydraft.edge.cloud_client import CloudClient
from skydraft.errors import SkydraftError, TransportError
from skydraft.policies.planner import Planner

PING_PERIOD_S = 0.3  # a change of the link is seen after two
CONNECT_PERIOD_S = 0.02
LOOK_TOKENS = 5  # of which the first waits for the prompt
LOOK_S = 2.0  # a cloud that takes longer for the others is slower than people read
OPENING_S = 30.0  # until the first: a long prompt takes its time


async def watch_link(client: CloudClient, planner: Planner) -> None:
    """Time pings for as long as this task runs, whenever there is a connection."""
    while True:
        if not client.is_connected:
            await asyncio.sleep(CONNECT_PERIOD_S)
            continue
        with suppress(TransportError):  # a link that froze; one that is lost is found by listening too
            planner.saw_ping(await client.round_trip_s())
        await asyncio.sleep(PING_PERIOD_S)


async def look_at_cloud(client: CloudClient, planner: Planner) -> bool:
    """Have a cloud write a few tokens that are thrown away, and learn its pace; one that is late is still slow.

    Args:
        client: about a text of LOOK_TOKENS tokens; it is closed then.
    Returns:
        Whether something was learnt.
    """
    arrived_s: list[float] = []
    try:
        async with asyncio.timeout(OPENING_S) as patience:
            while not client.session.is_complete:
                await client.listen(LOOK_TOKENS)
                arrived_s.append(time.monotonic())
                patience.reschedule(asyncio.get_running_loop().time() + LOOK_S - (arrived_s[-1] - arrived_s[0]))
            planner.saw_ping(await client.round_trip_s())
    except (SkydraftError, TimeoutError):
        return False  # the text does not need it
    finally:
        await client.close()
    has_pace = len(arrived_s) > 1
    if has_pace:
        planner.saw_afresh((arrived_s[-1] - arrived_s[0]) / (len(arrived_s) - 1))
    return has_pace
