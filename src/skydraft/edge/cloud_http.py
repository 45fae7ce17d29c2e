"""What a cloud tells over HTTP, beside its sessions."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta

from skydraft.edge.cloud_address import CloudAddress
from skydraft.errors import TransportError, first_line
from skydraft.protocol.limits import MAX_NAME_CHARS, MAX_SENTENCE_CHARS
from skydraft.transport.address import SESSION_PATH, is_loopback, session_url

if TYPE_CHECKING:
    import httpx

HEALTH_PATH = "/healthz"
MAX_BYTES = 2**23  # a vocabulary of 250,000 tokens takes 3 MB
TIMEOUT_S = 10.0  # for everything, from the host's name to the last byte

Answer = TypeVar("Answer", bound=msgspec.Struct)


class CloudRows(msgspec.Struct, frozen=True):
    """What /healthz says of the model's rows: `engines/base` (`RowPromise`)."""

    is_invariant: bool
    reason: Annotated[str, Meta(max_length=MAX_SENTENCE_CHARS)] = ""
    gap_change: float | None = None


class CloudFacts(msgspec.Struct, frozen=True):
    """What /healthz answers; clouds of other versions may say less."""

    ok: bool = True
    version: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] | None = None
    protocol: int | None = None
    model: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] | None = None
    pace: dict[str, float] | None = None
    rows: CloudRows | None = None


async def inquire(address: CloudAddress, path: str, answer_type: type[Answer], timeout_s: float = TIMEOUT_S) -> Answer:
    """Get a JSON object. No redirect is followed: the key would go along. May be cancelled.

    Args:
        path: such as /healthz.
        timeout_s: for all of it: a server that goes on sending is not waited for.
    Raises:
        TransportError: there is no answer within the time and within MAX_BYTES, or another one.
    """
    import httpx  # takes a while and is seldom needed

    url = "http" + session_url(address.url).removeprefix("ws").removesuffix(SESSION_PATH) + path
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    request = httpx.Request("GET", url, headers=headers)  # built by a client it would say which Python this is
    trusted = ssl.create_default_context()  # what the system trusts, as for sessions
    has_proxy = not is_loopback(url)  # a proxy's loopback is not ours
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(verify=trusted, timeout=None, trust_env=has_proxy) as client,
        ):
            return msgspec.json.decode(await _body(client, request), type=answer_type)
    except TimeoutError as error:
        raise TransportError(f"{url} gave no whole answer within {timeout_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
        raise TransportError(f"{url} gave no usable answer ({first_line(error)})") from error


async def _body(client: httpx.AsyncClient, request: httpx.Request) -> bytes:
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        if not response.is_success:
            raise ValueError(f"HTTP {response.status_code}")
        data = bytearray()
        async for part in response.aiter_raw():  # as it came: what was compressed small could be large
            data += part
            if len(data) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
        return bytes(data)
    finally:
        await response.aclose()
