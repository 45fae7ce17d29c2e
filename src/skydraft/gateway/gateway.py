"""What all endpoints share: the device, who may come in, how much at once, and what is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request

from skydraft.client.async_client import AsyncClient
from skydraft.cloud.access.account import Account
from skydraft.cloud.access.guard import Guard, Refusal
from skydraft.cloud.access.keys import Holder, KeyRing
from skydraft.cloud.limits.uvicorn_limits import ADMIT
from skydraft.config import DeviceSettings, GatewaySettings
from skydraft.core import TextPiece, tokens_of
from skydraft.edge.device import Device
from skydraft.edge.job import OnText
from skydraft.edge.report import Report
from skydraft.gateway.distances import NO_DISTANCES, Distances
from skydraft.gateway.gateway_metrics import GatewayMetrics
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.sse import HungUp
from skydraft.gateway.texts import Write

log = logging.getLogger("skydraft.gateway")

WHO = "this gateway"


class Gateway:
    """One device for many apps. For the event loop's thread.

    Args:
        model: what the answers call the model.
        ring: the API keys; None: this machine's own users come in without a key.
        distances: at which a request may have its cloud; none: where it is.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        client: AsyncClient,
        model: str,
        ring: KeyRing | None = None,
        distances: Distances = NO_DISTANCES,
    ) -> None:
        self.settings = settings
        self.distances = distances
        self.model = model
        self.client = client
        self.guard = Guard(settings, ring, WHO, has_page=True)
        self.metrics = GatewayMetrics()
        self.begun_s = time.time()
        self.is_draining = False
        self._accounts: dict[str, Account] = {}  # as many as there are keys
        self._present: Counter[Holder] = Counter()  # requests under way

    @property
    def device(self) -> Device:
        return self.client.device

    @property
    def device_settings(self) -> DeviceSettings:
        return self.client.settings

    @property
    def num_present(self) -> int:
        """Requests under way."""
        return self._present.total()

    def admit(self, request: Request) -> Holder:
        """Whose request it is; the connection is no stranger's any more.

        Raises:
            Refusal: it may not come in.
        """
        holder = self.guard.holder_of(request)
        admit = request.scope.get("state", {}).get(ADMIT)
        if admit is not None:
            admit(holder.name)
        return holder

    @contextmanager
    def place(self, holder: Holder) -> Iterator[None]:
        """A place for a request that computes, for as long as the context lasts.

        Raises:
            Refusal, BadRequest: there is none, or the key has used up its tokens.
        """
        if self.is_draining:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "this gateway is shutting down")
        self.guard.check_room(holder, self._present.elements())
        wait_s = self._account(holder).wait_s(time.monotonic())
        if wait_s:
            most = holder.grant.tokens_per_minute
            sentence = f"this key has used up its {most} tokens a minute: try again in {wait_s:.0f} s"
            raise BadRequest(sentence, status=HTTPStatus.TOO_MANY_REQUESTS)
        self._present[holder] += 1
        self.metrics.begun()
        try:
            yield
        finally:
            self.metrics.ended()
            self._present[holder] -= 1
            self._present += Counter()  # without those at 0

    def charged(self, holder: Holder, write: Write) -> Write:
        """The same writing, paid for piece by piece: a text that is broken off has paid for what there was of it."""

        async def write_charged(settings: DeviceSettings, on_text: OnText) -> Report:
            def charge(pieces: Sequence[TextPiece]) -> None:
                tokens = tokens_of(pieces)
                self._account(holder).spend(len(tokens), time.monotonic())
                self.metrics.wrote(tokens)
                on_text(pieces)

            report = await write(settings, charge)
            self.metrics.text_ended(report)
            return report

        return write_charged

    async def body(self, request: Request) -> bytes:
        """All of a request's body.

        Raises:
            BadRequest: it is too large, or too slow.
            HungUp: it does not come to its end.
        """
        most = self.settings.max_body_bytes
        stated = request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > most:
            raise _too_large(most)
        data = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_s):
                async for piece in request.stream():
                    data += piece
                    if len(data) > most:
                        raise _too_large(most)
        except TimeoutError:
            sentence = f"the request did not arrive within {self.settings.body_s:g} s"
            raise BadRequest(sentence, status=HTTPStatus.REQUEST_TIMEOUT) from None
        except ClientDisconnect:
            raise HungUp from None
        return bytes(data)

    def _account(self, holder: Holder) -> Account:
        now_s = time.monotonic()
        account = self._accounts.setdefault(holder.name, Account(holder, now_s))
        account.change_grant(holder.grant, now_s)
        return account


def _too_large(most: int) -> BadRequest:
    sentence = f"the request is larger than the {most:,} bytes that this gateway takes"
    return BadRequest(sentence, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
