"""skydraft from Python, for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import NamedTuple, Unpack

from skydraft.audio.read import Clip
from skydraft.audio.sounds import AnySound, as_clip
from skydraft.audio.windows import Window
from skydraft.client.options import ClientOptions, TextOptions, settings_of
from skydraft.client.streamed_text import AsyncStreamedText
from skydraft.config import DeviceSettings
from skydraft.core import Grammar, TextPiece
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.device import Device
from skydraft.edge.job import OnText
from skydraft.edge.ready_device import ready_device, require_language_models
from skydraft.edge.ready_prompt import ReadyPrompt
from skydraft.edge.report import BETWEEN_WINDOWS, Report
from skydraft.edge.text_pace import TextPace
from skydraft.errors import ConfigError
from skydraft.tasks.caption import INSTRUCTION
from skydraft.tasks.chat import Conversation, Tools

DEFAULTS = DeviceSettings()


class Caption(NamedTuple):
    """What was said of a clip. windows: of 30 s at most."""

    windows: tuple[CaptionedWindow, ...]

    @property
    def text(self) -> str:
        """Of all windows in which somebody speaks."""
        return BETWEEN_WINDOWS.join(window.report.text for window in self.windows if window.has_speech)


class AsyncClient:
    """A device with its models, and the cloud that it works with: one that runs, or one that is started for it.

        async with AsyncClient(draft="SMALL", target="LARGE") as client:
            report = await client.generate("Once upon a time,", max_tokens=50)
            async for piece in client.stream("Once upon a time,"):
                print(piece.text, end="")

    Any number of texts may be under way at once. Options are settings of the device, for the client or for one text.

    Args:
        settings: of the device; options stand above them.
        warn: told in a sentence what the user should know, for example that the cloud is lost.
    """

    def __init__(
        self,
        settings: DeviceSettings = DEFAULTS,
        *,
        warn: Callable[[str], None] = lambda _: None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self.settings = settings_of(settings, options)
        self._warn = warn
        self._stack = AsyncExitStack()
        self._device: Device | None = None

    async def __aenter__(self) -> AsyncClient:
        """Load the models, and start a cloud where none is named.

        Raises:
            SkydraftError: as `edge.ready_device`.
        """
        self._device = await self._stack.enter_async_context(ready_device(self.settings, self._warn))
        self.settings = self._device.settings
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device = None
        await self._stack.aclose()

    @property
    def device(self) -> Device:
        """Raises: ConfigError: the client was not entered."""
        if self._device is None:
            raise ConfigError("the client has no models yet: use it as `async with AsyncClient(...) as client`")
        return self._device

    async def generate(
        self,
        prompt: str,
        *,
        context: str | None = None,
        prediction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> Report:
        """Answer a prompt in the model's chat format; continue it where the model has none, or with raw=True.

        Args:
            context: what the prompt is about, for example a document: evidence, which the cloud reads only where the
                share level lets it.
            prediction: what the text is expected to be, such as a file that is to be corrected: one more guess.
        Raises:
            ConfigError: an option is wrong, or the models only caption.
            SkydraftError: as `edge.writer.Writer.write`.
        """
        return await self.write(prompt, self._settings(options), context=context, prediction=prediction)

    async def chat(self, messages: Conversation, **options: Unpack[TextOptions]) -> Report:
        """Say what comes next in a conversation. Errors as `generate`.

        Args:
            messages: as `{"role": "user", "content": "Hello."}`.
        """
        return await self.write(messages, self._settings(options))

    async def caption(self, sound: AnySound, rate_hz: int | None = None, **options: Unpack[TextOptions]) -> Caption:
        """Say how the voice in a clip sounds.

        Args:
            sound: a path, the bytes of a sound file, or an array of samples.
            rate_hz: of an array.
        Raises:
            AudioError: it is no sound, or silent.
            SkydraftError: as `generate`.
        """
        return await self._caption(sound, rate_hz, options)

    def stream(self, prompt: str | Conversation, **options: Unpack[TextOptions]) -> AsyncStreamedText[Report]:
        """As `generate`, or with messages as `chat`, piece by piece; called in the event loop."""
        return AsyncStreamedText(lambda put: self._stream(prompt, options, put))

    def stream_caption(
        self, sound: AnySound, rate_hz: int | None = None, **options: Unpack[TextOptions]
    ) -> AsyncStreamedText[Caption]:
        """As `caption`, piece by piece; called in the event loop."""
        return AsyncStreamedText(lambda put: self._caption(sound, rate_hz, options, put))

    async def generate_many(self, prompts: Sequence[str], **options: Unpack[TextOptions]) -> list[Report]:
        """As `generate`, all at once, in the order of the prompts; where one fails the others are ended."""
        settings = self._settings(options)
        texts = [asyncio.create_task(self.write(prompt, settings)) for prompt in prompts]
        try:
            return await asyncio.gather(*texts)
        finally:
            for text in texts:
                text.cancel()
            await asyncio.gather(*texts, return_exceptions=True)

    # With all settings of a text, for those that make them

    async def write(
        self,
        prompt: str | Conversation,
        settings: DeviceSettings,
        on_text: OnText = lambda _: None,
        context: str | None = None,
        prediction: str | None = None,
        grammar: Grammar | None = None,
        tools: Tools = (),
    ) -> Report:
        """As `generate`, or with messages as `chat`.

        Args:
            on_text: told the pieces of the text as they come.
            prediction: what the text is expected to be: one more guess.
            grammar: that the text follows.
            tools: that the model may call; its chat format tells it of them.
        """
        ready = await self.ready(prompt, settings, context, prediction, grammar, tools)
        return await self.write_ready(ready, settings, on_text)

    async def ready(
        self,
        prompt: str | Conversation,
        settings: DeviceSettings,
        context: str | None = None,
        prediction: str | None = None,
        grammar: Grammar | None = None,
        tools: Tools = (),
    ) -> ReadyPrompt:
        """What `write` does before a text begins: once for all texts that answer the same. Arguments as there."""
        device = self.device
        require_language_models(settings)
        if isinstance(prompt, str):
            return await device.ready_prompt(prompt, settings, context, prediction, grammar)
        return await device.ready_chat(prompt, settings, prediction, grammar, tools)

    async def write_ready(
        self,
        ready: ReadyPrompt,
        settings: DeviceSettings,
        on_text: OnText = lambda _: None,
        pace: TextPace | None = None,
    ) -> Report:
        """The rest of `write`.

        Args:
            settings: as `ready` was given, but for their seed.
            pace: whether the text may grow at the moment; None: always.
        """
        return await self.device.write_ready(ready, settings, on_text, self._warn, pace)

    async def write_caption(
        self,
        clip: Clip,
        settings: DeviceSettings,
        on_text: OnText = lambda _: None,
        instruction: str = INSTRUCTION,
        pace: TextPace | None = None,
    ) -> Caption:
        """As `caption`.

        Args:
            on_text: told the pieces of the text as they come.
            instruction: what is to be said of it.
            pace: whether the text may grow at the moment; None: always.
        """
        has_begun = False

        def show(pieces: Sequence[TextPiece]) -> None:
            nonlocal has_begun
            has_begun = True
            on_text(pieces)

        def next_window(window: Window) -> None:
            if has_begun and window.has_speech:
                on_text([TextPiece(BETWEEN_WINDOWS, ())])

        told = show, self._warn, next_window
        return Caption(tuple(await self.device.caption(clip, *told, settings, instruction, pace)))

    async def _stream(self, prompt: str | Conversation, options: TextOptions, on_text: OnText) -> Report:
        return await self.write(prompt, self._settings(options), on_text)

    async def _caption(
        self, sound: AnySound, rate_hz: int | None, options: TextOptions, on_text: OnText = lambda _: None
    ) -> Caption:
        settings = self._settings(options)
        return await self.write_caption(await asyncio.to_thread(as_clip, sound, rate_hz), settings, on_text)

    def _settings(self, options: TextOptions) -> DeviceSettings:
        return settings_of(self.settings, options)
