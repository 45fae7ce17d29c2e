"""What all endpoints share: the device, who may come in, how much at once, and what is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TypeVar

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
from skydraft.edge.ready_prompt import ReadyPrompt
from skydraft.edge.report import Report
from skydraft.edge.text_pace import TextPace
from skydraft.gateway.distances import NO_DISTANCES, Distances
from skydraft.gateway.gateway_http import HOLD
from skydraft.gateway.gateway_metrics import GatewayMetrics
from skydraft.gateway.kept_responses import KeptResponses
from skydraft.gateway.preparation_time import PreparationTime
from skydraft.gateway.problems import CONTEXT_LENGTH, BadRequest
from skydraft.gateway.sse import HungUp, unless_hung_up
from skydraft.gateway.texts import MakeReady, Write, WriteCharged
from skydraft.gateway.texts_under_way import TextsUnderWay

log = logging.getLogger("skydraft.gateway")

_Read = TypeVar("_Read")

WHO = "this gateway"
MAX_PROMPT_CHARS = 2**21  # of which a tokenizer in Python makes tokens in seconds; 131,072 tokens of 16 characters


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
        self.kept_responses = KeptResponses()
        self.begun_s = time.time()
        self.is_draining = False
        self._accounts: dict[str, Account] = {}  # as many as there are keys
        self._preparation_time = PreparationTime(self._names_present)
        self._texts = TextsUnderWay(settings.texts_together)
        self._arriving: Counter[Holder] = Counter()  # requests whose bodies come in
        self._waiting: Counter[Holder] = Counter()  # requests that have arrived and are not read yet
        self._present: Counter[Holder] = Counter()  # requests under way
        self._writing: Counter[Holder] = Counter()  # their texts

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

    @property
    def num_arriving(self) -> int:
        """Requests whose bodies come in."""
        return self._arriving.total()

    def admit(self, request: Request) -> Holder:
        """Whose request it is; the connection is no stranger's any more.

        Raises:
            Refusal: it may not come in.
        """
        holder = self.guard.holder_of(request)
        request.scope["state"][ADMIT](holder.name)
        self._preparation_time.saw(holder.name)
        return holder

    async def read(self, request: Request, holder: Holder, parse: Callable[[bytes], Awaitable[_Read]]) -> _Read:
        """A request's body, and what it says.

        Raises:
            Refusal: as many requests of this key, or of all, arrive or wait as may. HungUp: the app did.
            BadRequest: as `body`. SkydraftError: as `parse`.
        """
        data = await self.body(request, holder)

        async def parse_in_time() -> _Read:
            self.guard.check_room(holder, self._waiting.elements())
            with _counted(self._waiting, holder):
                async with self._preparation_time.of(holder.name):
                    return await parse(data)

        return await unless_hung_up(request.receive, parse_in_time())

    def writing(self, ready: ReadyPrompt) -> Write:
        """What writes texts that answer the same."""

        async def write(settings: DeviceSettings, on_text: OnText, pace: TextPace) -> Report:
            return await self.client.write_ready(ready, settings, on_text, pace)

        return write

    async def made_ready(self, holder: Holder, make_ready: MakeReady, settings: DeviceSettings) -> WriteCharged:
        """What writes the texts of a request, and has them paid for.

        Args:
            settings: of the first of them.
        Raises:
            SkydraftError: as `make_ready`.
        """
        async with self._preparation_time.of(holder.name):
            return self.charged(holder, await make_ready(settings))

    def require_short(self, *texts: str | None) -> None:
        """Refuse texts that are too long for any prompt before they are made into tokens, which takes long.

        Raises:
            BadRequest: there are more than MAX_PROMPT_CHARS in them.
        """
        num_chars = sum(len(text or "") for text in texts)
        if num_chars > MAX_PROMPT_CHARS:
            sentence = f"the prompt has {num_chars:,} characters and this gateway reads {MAX_PROMPT_CHARS:,} at most"
            raise BadRequest(sentence, code=CONTEXT_LENGTH)

    @contextmanager
    def place(self, holder: Holder, num_texts: int = 1) -> Iterator[None]:
        """A place for a request that computes, for as long as the context lasts.

        Raises:
            Refusal, BadRequest: there is none, or the key has used up its tokens, or writes as much as it may.
        """
        if self.is_draining:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "this gateway is shutting down")
        self.guard.check_room(holder, self._present.elements())
        self._check_limits(holder, num_texts)
        with _counted(self._present, holder), _counted(self._writing, holder, num_texts):
            self.metrics.begun()
            try:
                yield
            finally:
                self.metrics.ended()

    def _check_limits(self, holder: Holder, num_texts: int) -> None:
        """What its key allows."""
        grant, num_writing = holder.grant, self._writing[holder]
        if wait_s := self._account(holder).wait_s(time.monotonic()):
            sentence = (
                f"this key has used up its {grant.tokens_per_minute} tokens a minute: try again in {wait_s:.0f} s"
            )
            raise BadRequest(sentence, status=HTTPStatus.TOO_MANY_REQUESTS)
        if num_writing + num_texts > grant.max_sessions:
            sentence = (
                f"{num_texts} texts are asked for and {num_writing} are under way: this key has {grant.max_sessions} "
                "at the same time"
            )
            raise BadRequest(sentence, status=HTTPStatus.TOO_MANY_REQUESTS)

    def charged(self, holder: Holder, write: Write) -> WriteCharged:
        """The same writing at its key's pace, paid for piece by piece: what there was of a text broken off is paid."""

        async def write_charged(settings: DeviceSettings, on_text: OnText) -> Report:
            def charge(pieces: Sequence[TextPiece]) -> None:
                tokens = tokens_of(pieces)
                self._preparation_time.saw(holder.name)
                self._account(holder).spend(len(tokens), time.monotonic())
                self.metrics.wrote(tokens)
                on_text(pieces)

            with self._texts.text(holder.name) as pace:
                await pace.wait()
                report = await write(settings, charge, pace)
            self.metrics.text_ended(report)
            return report

        return write_charged

    async def body(self, request: Request, holder: Holder) -> bytes:
        """All of a request's body; what it takes is bounded, for all requests together too.

        Raises:
            Refusal: as many of this key, or of all, are arriving as may be.
            BadRequest: it is too large, or too slow.
            HungUp: it does not come to its end.
        """
        self.guard.check_room(holder, self._arriving.elements())
        try:
            with _counted(self._arriving, holder):
                async with asyncio.timeout(self.settings.body_s):
                    return await self._read_body(request)
        except TimeoutError:
            sentence = f"the request did not arrive within {self.settings.body_s:g} s"
            raise BadRequest(sentence, status=HTTPStatus.REQUEST_TIMEOUT) from None
        except ClientDisconnect:
            raise HungUp from None

    async def _read_body(self, request: Request) -> bytes:
        most, hold = self.settings.max_body_bytes, request.scope["state"][HOLD]
        stated = request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > most:
            raise _too_large(most)
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > most:
                raise _too_large(most)
            hold(len(data))
        return bytes(data)

    def _names_present(self) -> Iterator[str]:
        return (holder.name for counter in (self._arriving, self._waiting, self._present) for holder in counter)

    def _account(self, holder: Holder) -> Account:
        now_s = time.monotonic()
        account = self._accounts.setdefault(holder.name, Account(holder, now_s))
        account.change_grant(holder.grant, now_s)
        return account


@contextmanager
def _counted(counts: Counter[Holder], holder: Holder, count: int = 1) -> Iterator[None]:
    """So many more of a holder's, for as long as the context lasts; a holder without any is not in the counts."""
    counts[holder] += count
    try:
        yield
    finally:
        counts[holder] -= count
        if not counts[holder]:
            del counts[holder]


def _too_large(most: int) -> BadRequest:
    sentence = f"the request is larger than the {most:,} bytes that this gateway takes"
    return BadRequest(sentence, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
