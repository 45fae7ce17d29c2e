"""POST /v1/audio/transcriptions and /v1/audio/captions: what a model that hears says of a sound.

Both are the same: clients know the first, and the second says what it is with a model that describes voices.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from skydraft.cloud.access.keys import Holder
from skydraft.config import DeviceSettings
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.job import OnText
from skydraft.edge.report import Report
from skydraft.edge.text_pace import TextPace
from skydraft.errors import SkydraftError
from skydraft.gateway.conversation import CANNOT_HEAR
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.hearing import caption_of_clip, clip_of_sound, report_of
from skydraft.gateway.problems import BadRequest, problem_of
from skydraft.gateway.requests import SamplingRequest
from skydraft.gateway.sampling import asks_for_trace, own_headers, settings_for
from skydraft.gateway.sse import begin_stream, event, unless_hung_up
from skydraft.gateway.texts import Write, WriteCharged, grow
from skydraft.gateway.trace import facts_of_piece, facts_of_texts
from skydraft.tasks.cues import format_cues

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
MAX_FIELDS = 64
MAX_FIELD_BYTES = 2**16


@dataclass(frozen=True)
class SoundRequest:
    """A form with a sound.

    name: of its file.
    """

    name: str
    data: bytes
    response_format: str
    is_stream: bool
    temperature: float | None


async def transcriptions(request: Request) -> Response:
    """Say what there is to be said of a sound."""
    gateway: Gateway = request.app.state.gateway
    holder = gateway.admit(request)
    asked = await gateway.read(request, holder, lambda data: _read_form(request, data))
    if not gateway.device.can_hear:
        raise BadRequest(CANNOT_HEAR, "file")
    own = own_headers(request.headers)
    sampling = SamplingRequest(temperature=asked.temperature)
    settings = settings_for(gateway.device_settings, sampling, own, gateway.distances)
    answer = SoundAnswer(gateway, holder, asked, settings, asks_for_trace(own))
    if not asked.is_stream:
        return await unless_hung_up(request.receive, answer.whole())
    return await begin_stream(request.receive, answer.events())


captions = transcriptions


class SoundAnswer:
    """The answer to one request about a sound."""

    def __init__(
        self, gateway: Gateway, holder: Holder, asked: SoundRequest, settings: DeviceSettings, has_trace: bool = False
    ) -> None:
        self._has_trace = has_trace
        self._gateway = gateway
        self._holder = holder
        self._asked = asked
        self._settings = settings
        self._windows: Sequence[CaptionedWindow] = ()

    async def whole(self) -> Response:
        """Raises: SkydraftError: the sound cannot be read, or nothing can be said of it."""
        with self._gateway.place(self._holder):
            write = await self._made_ready()
            report = await write(self._settings, lambda _: None)
        match self._asked.response_format:
            case "text":
                return PlainTextResponse(report.text + "\n")
            case "srt" | "vtt" as form:
                cues = [window.cue for window in self._windows if window.has_speech]
                kind = "text/vtt" if form == "vtt" else "application/x-subrip"
                return PlainTextResponse(format_cues(cues, self._asked.name, form), media_type=kind)
            case "verbose_json":
                return _json({**self._verbose(), "text": report.text, **self._facts(report)})
        return _json({"text": report.text, **self._facts(report)})

    async def events(self) -> AsyncGenerator[bytes, None]:
        """As OpenAI's transcriptions are streamed."""
        has_begun = False
        try:
            with self._gateway.place(self._holder):
                write = await self._made_ready()
                async with aclosing(grow(write, [self._settings])) as growth:
                    async for _, piece, report in growth:
                        has_begun = True
                        if piece is not None and piece.text:
                            traced = facts_of_piece(piece, self._has_trace)
                            yield event({"type": "transcript.text.delta", "delta": piece.text, **traced})
                        if report is not None:
                            done = {"type": "transcript.text.done", "text": report.text, **self._facts(report)}
                            yield event(done)
        except SkydraftError as error:
            if not has_begun:
                raise
            problem = problem_of(error)
            self._gateway.metrics.refused(problem.status)
            yield event(problem.body())

    async def _made_ready(self) -> WriteCharged:
        return await self._gateway.made_ready(self._holder, self._make_ready, self._settings)

    async def _make_ready(self, _: DeviceSettings) -> Write:
        clip = await clip_of_sound(self._asked.data)

        async def write(settings: DeviceSettings, on_text: OnText, pace: TextPace) -> Report:
            caption = await caption_of_clip(self._gateway, clip, settings, on_text, pace)
            self._windows = caption.windows
            return report_of(caption, settings)

        return write

    def _facts(self, report: Report) -> dict[str, object]:
        return facts_of_texts([report], self._has_trace)

    def _verbose(self) -> dict[str, object]:
        segments = [
            {
                "id": index,
                "seek": 0,
                "start": window.start_s,
                "end": window.end_s,
                "text": window.report.text if window.has_speech else "",
                "tokens": [token.token_id for token in window.report.tokens],
                "temperature": self._settings.temperature,
                "no_speech_prob": float(not window.has_speech),
                "emotion": window.cue.emotion,
                "confidence": window.confidence,
                "is_sure": window.is_sure,
            }
            for index, window in enumerate(self._windows)
        ]
        duration_s = self._windows[-1].end_s if self._windows else 0.0
        return {"task": "transcribe", "language": "english", "duration": duration_s, "segments": segments}


async def _read_form(request: Request, body: bytes) -> SoundRequest:
    """Raises: BadRequest: it is no form with a file, or a field is wrong."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers(raw=request.headers.raw),
        whole(),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parser.spool_max_size = len(body) + 1  # never on a disk
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("a sound comes as multipart/form-data with a field file")
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise BadRequest(f"the form cannot be read: {error}") from None
    try:
        return await _as_request(form)
    finally:
        await form.close()


async def _as_request(form: FormData) -> SoundRequest:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise BadRequest("the form has no file: give the sound as its field file", "file")
    response_format = str(form.get("response_format") or "json")
    if response_format not in FORMATS:
        sentence = f"unknown response_format {response_format!r}; expected one of {', '.join(FORMATS)}"
        raise BadRequest(sentence, "response_format")
    return SoundRequest(
        file.filename or "sound",
        await file.read(),
        response_format,
        str(form.get("stream") or "").lower() in ("true", "1"),
        _number(form.get("temperature")),
    )


def _number(field: object) -> float | None:
    if field in (None, ""):
        return None
    try:
        return float(str(field))
    except ValueError:
        raise BadRequest(f"temperature is {field!r} and must be a number", "temperature") from None


def _json(data: object) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")
