"""A device that behaves, beside those that do not: it has a text written, by offers or by credit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from skydraft.decoding.edge_session import EdgeSession, Phase
from skydraft.errors import TransportError
from skydraft.protocol import codec, messages
from skydraft.transport.websocket import Connection

PATIENCE_S = 30.0  # beyond it a cloud hangs


@dataclass
class HonestText:
    """One text.

    truth: what the cloud's model writes alone.
    rng: of the guesses and how many there are.
    hear: told how long each answer took, in seconds.
    """

    connection: Connection
    session: EdgeSession
    truth: list[int]
    rng: Random
    hear: Callable[[messages.CloudMessage, float], None] = lambda message, wait_s: None

    async def write(self, drafts: bool) -> None:
        """The text from open to close, by offers or by credit.

        Raises:
            SkydraftError: the cloud does not serve it.
        """
        session = self.session
        while session.phase is not Phase.OPEN:
            await self._say_due()
            await self._listen()
        if not drafts:
            session.give_credit(len(self.truth))
        while not session.is_complete:
            if drafts and not session.num_in_flight:
                session.offer(self._guesses())
            await self._say_due()
            await self._listen()
        await self._say(session.close())

    def _guesses(self) -> list[int]:
        """What the target will choose, but for the last."""
        start = len(self.session.token_ids)
        return [*self.truth[start : start + self.rng.randrange(6)], self.rng.randrange(64)][: len(self.truth) - start]

    async def _say_due(self) -> None:
        for message in self.session.to_send():
            await self._say(message)

    async def _say(self, message: messages.EdgeMessage) -> None:
        await self.connection.send(codec.encode(message))

    async def _listen(self) -> None:
        began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(PATIENCE_S):
                message = codec.decode_cloud_message(await self.connection.receive())
        except TimeoutError as error:
            raise TransportError(f"the cloud has not answered its honest device for {PATIENCE_S:g} s") from error
        self.session.receive(message)
        self.hear(message, asyncio.get_running_loop().time() - began_s)
