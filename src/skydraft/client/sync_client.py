"""skydraft from Python, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, TypeVar, Unpack

from skydraft.audio.sounds import AnySound
from skydraft.client.async_client import DEFAULTS, AsyncClient, Caption
from skydraft.client.event_loop import EventLoop
from skydraft.client.options import ClientOptions, TextOptions
from skydraft.client.streamed_text import AsyncStreamedText
from skydraft.config import DeviceSettings
from skydraft.core import TextPiece
from skydraft.edge.device import Device
from skydraft.edge.job import OnText
from skydraft.edge.report import Report
from skydraft.errors import ConfigError
from skydraft.tasks.chat import Conversation

_Result = TypeVar("_Result")


class StreamedText(Generic[_Result]):
    """The pieces of a text while it is written, and then what is known of the whole; as `AsyncStreamedText`, for `for`
    and `with`."""

    def __init__(self, loop: EventLoop, begin: Callable[[], AsyncStreamedText[_Result]]) -> None:
        async def begin_there() -> AsyncStreamedText[_Result]:
            return begin()

        self._loop = loop
        self._stream = loop.run(begin_there())

    def __iter__(self) -> Iterator[TextPiece]:
        return self

    def __next__(self) -> TextPiece:
        piece = self._loop.run(self._next())
        if piece is None:
            raise StopIteration
        return piece

    def __enter__(self) -> StreamedText[_Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def result(self) -> _Result:
        return self._loop.run(self._stream.result())

    def close(self) -> None:
        """End the text here."""
        self._loop.run(self._stream.aclose())

    async def _next(self) -> TextPiece | None:
        return await anext(self._stream, None)


class Client:
    """A device with its models, and the cloud that it works with. Methods, options and errors as `AsyncClient`'s.

        with Client(draft="SMALL", target="LARGE") as client:
            print(client.generate("Once upon a time,", max_tokens=50).text)

    Threads may share it: their texts are under way at the same time.
    """

    def __init__(
        self,
        settings: DeviceSettings = DEFAULTS,
        *,
        warn: Callable[[str], None] = lambda _: None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._client = AsyncClient(settings, warn=warn, **options)
        self._loop: EventLoop | None = None

    def __enter__(self) -> Client:
        self._loop = EventLoop()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, self._loop = self._running(), None
        try:
            loop.run(self._client.__aexit__(None, None, None))
        finally:
            loop.close()

    @property
    def settings(self) -> DeviceSettings:
        return self._client.settings

    def generate(
        self,
        prompt: str,
        *,
        context: str | None = None,
        prediction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> Report:
        return self._running().run(self._client.generate(prompt, context=context, prediction=prediction, **options))

    def chat(self, messages: Conversation, **options: Unpack[TextOptions]) -> Report:
        return self._running().run(self._client.chat(messages, **options))

    def caption(self, sound: AnySound, rate_hz: int | None = None, **options: Unpack[TextOptions]) -> Caption:
        return self._running().run(self._client.caption(sound, rate_hz, **options))

    def generate_many(self, prompts: Sequence[str], **options: Unpack[TextOptions]) -> list[Report]:
        return self._running().run(self._client.generate_many(prompts, **options))

    def stream(self, prompt: str | Conversation, **options: Unpack[TextOptions]) -> StreamedText[Report]:
        return StreamedText(self._running(), lambda: self._client.stream(prompt, **options))

    def stream_caption(
        self, sound: AnySound, rate_hz: int | None = None, **options: Unpack[TextOptions]
    ) -> StreamedText[Caption]:
        return StreamedText(self._running(), lambda: self._client.stream_caption(sound, rate_hz, **options))

    # With all settings of a text, for those that make them

    def write(self, prompt: str | Conversation, settings: DeviceSettings, on_text: OnText = lambda _: None) -> Report:
        """on_text: called in the thread of the client."""
        return self._running().run(self._client.write(prompt, settings, on_text))

    @property
    def device(self) -> Device:
        return self._client.device

    def _running(self) -> EventLoop:
        if self._loop is None:
            raise ConfigError("the client has no models yet: use it as `with Client(...) as client`")
        return self._loop
