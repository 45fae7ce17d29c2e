from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from skydraft.edge.local_cloud import local_cloud


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedded_cloud() -> AsyncIterator[str]:
    """A cloud with the embedded target, in a process of its own."""
    async with local_cloud("embedded", "--threads", "1") as url:
        yield url
