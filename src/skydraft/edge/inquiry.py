"""What a cloud tells over HTTP, beside its sessions."""

from __future__ import annotations

import asyncio
import http.client
import urllib.request
from typing import TypeVar

import msgspec

from skydraft.edge.address import CloudAddress
from skydraft.transport.address import SESSION_PATH, is_loopback, session_url

MAX_BYTES = 2**26
TIMEOUT_S = 10.0

Answer = TypeVar("Answer", bound=msgspec.Struct)

# What a request can fail with: a connection, its TLS or its status; an address or an answer that is none.
FAILURES = (OSError, ValueError, EOFError, http.client.HTTPException)


async def inquire(address: CloudAddress, path: str, answer_type: type[Answer]) -> Answer:
    """Get a JSON object.

    Args:
        path: such as /healthz.
    Raises:
        FAILURES: there is no answer, or another one.
    """
    return await asyncio.to_thread(_get, address, path, answer_type)


def _get(address: CloudAddress, path: str, answer_type: type[Answer]) -> Answer:
    url = "http" + session_url(address.url).removeprefix("ws").removesuffix(SESSION_PATH) + path
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    request = urllib.request.Request(url, headers=headers)
    proxies = urllib.request.ProxyHandler({} if is_loopback(url) else None)  # a proxy's loopback is not ours
    with urllib.request.build_opener(proxies).open(request, timeout=TIMEOUT_S) as response:
        return msgspec.json.decode(response.read(MAX_BYTES), type=answer_type)
