"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from skydraft.cloud.access.keys import Holder
from skydraft.config import DeviceSettings
from skydraft.core import Finish, Grammar, Token, json_object, json_schema
from skydraft.edge.report import Report
from skydraft.errors import SkydraftError
from skydraft.gateway.conversation import conversation_of, prediction_of
from skydraft.gateway.counts import usage
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.likelihoods import of_chat, of_completion
from skydraft.gateway.problems import BadRequest, problem_of
from skydraft.gateway.requests import ChatRequest, CompletionRequest, SamplingRequest, parse
from skydraft.gateway.sampling import asks_for_trace, own_headers, refuse_unknown, settings_for
from skydraft.gateway.sse import DONE, begin_stream, event, unless_hung_up
from skydraft.gateway.texts import MakeReady, Write, grow, seeded, write_all
from skydraft.gateway.tools import calls_in, offered_tools, required_calls
from skydraft.gateway.trace import facts_of_piece, facts_of_texts
from skydraft.text.tokenizer import Tokenizer

JsonFields = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What answers look like: of a chat or of a bare completion.

    whole, chunk: what the objects are called. text: of a whole choice. delta: of a piece of one; None begins it.
    logprobs: of tokens.
    """

    prefix: str
    whole: str
    chunk: str
    text: Callable[[str], JsonFields]
    delta: Callable[[str | None], JsonFields]
    logprobs: Callable[[Sequence[Token], Tokenizer], JsonFields | None]


def _delta(text: str | None) -> JsonFields:
    return {"delta": {"role": "assistant", "content": ""} if text is None else {"content": text} if text else {}}


CHAT = Shape(
    prefix="chatcmpl-",
    whole="chat.completion",
    chunk="chat.completion.chunk",
    text=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    delta=_delta,
    logprobs=of_chat,
)
BARE = Shape(
    prefix="cmpl-",
    whole="text_completion",
    chunk="text_completion",
    text=lambda text: {"text": text},
    delta=lambda text: {"text": text or ""},
    logprobs=of_completion,
)


async def chat_completions(request: Request) -> Response:
    """Say what comes next in a conversation."""
    gateway: Gateway = request.app.state.gateway
    holder = gateway.admit(request)
    own = own_headers(request.headers)

    async def parse_chat(data: bytes) -> tuple[Answer, MakeReady]:
        asked, fields = parse(data, ChatRequest)
        refuse_unknown(fields)
        tools = offered_tools(asked.tools, asked.tool_choice)
        calls = required_calls(tools, asked.tool_choice, asked.parallel_tool_calls or False)
        settings = settings_for(
            gateway.device_settings,
            asked,
            own,
            gateway.distances,
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        )
        prediction = prediction_of(asked.prediction)
        grammar = calls or grammar_of(asked.response_format)
        more = bool(tools), prediction is not None, asks_for_trace(own, asked)
        answer = Answer(gateway, holder, CHAT, asked, settings, *more)
        return answer, conversation_of(asked.messages, gateway, grammar, tools, prediction)

    answer, make_ready = await gateway.read(request, holder, parse_chat)
    return await answer.respond(request, make_ready)


async def completions(request: Request) -> Response:
    """Go on from a text as it stands."""
    gateway: Gateway = request.app.state.gateway
    holder = gateway.admit(request)
    own = own_headers(request.headers)

    async def parse_completion(data: bytes) -> tuple[Answer, str]:
        asked, fields = parse(data, CompletionRequest)
        refuse_unknown(fields)
        if not isinstance(asked.prompt, str):
            raise BadRequest("prompt is a list and this gateway takes one text at a time: give a string", "prompt")
        gateway.require_short(asked.prompt)
        more = {"raw": True, "top_logprobs": asked.logprobs}
        settings = settings_for(gateway.device_settings, asked, own, gateway.distances, **more)
        return Answer(gateway, holder, BARE, asked, settings, has_trace=asks_for_trace(own, asked)), asked.prompt

    answer, prompt = await gateway.read(request, holder, parse_completion)

    async def make_ready(settings: DeviceSettings) -> Write:
        return gateway.writing(await gateway.client.ready(prompt, settings))

    return await answer.respond(request, make_ready)


def grammar_of(response_format: Mapping[str, Any] | None) -> Grammar | None:
    """What an answer in this format follows; None: nothing.

    Raises:
        BadRequest: the format is unknown, or has no schema.
    """
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return json_object()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return json_schema(schema)
        case {"type": "json_schema", "schema": dict(schema)}:
            return json_schema(schema)
    raise BadRequest(
        f"response_format is {dict(response_format)!r}; expected type text, json_object, or json_schema with a schema",
        "response_format",
    )


class Answer:
    """The answer to one request for texts.

    Args:
        may_call: the text may be calls of tools, which shows at its end.
        has_prediction: the app said what it expects.
        has_trace: it wants to know how the text came about.
    """

    def __init__(
        self,
        gateway: Gateway,
        holder: Holder,
        shape: Shape,
        asked: SamplingRequest,
        settings: DeviceSettings,
        may_call: bool = False,
        has_prediction: bool = False,
        has_trace: bool = False,
    ) -> None:
        self._has_trace = has_trace
        self._has_prediction = has_prediction
        self._may_call = may_call
        self._gateway = gateway
        self._holder = holder
        self._shape = shape
        self._asked = asked
        self._settings = seeded(settings, asked.n or 1)
        self._id = shape.prefix + secrets.token_hex(12)
        self._created = int(time.time())

    async def respond(self, request: Request, make_ready: MakeReady) -> Response:
        """Raises: SkydraftError: before anything was written."""
        if not self._asked.stream:
            return await unless_hung_up(request.receive, self._whole(make_ready))
        return await begin_stream(request.receive, self._events(make_ready))

    async def _whole(self, make_ready: MakeReady) -> Response:
        with self._gateway.place(self._holder, len(self._settings)):
            write = await self._gateway.made_ready(self._holder, make_ready, self._settings[0])
            reports = await write_all(write, self._settings)
        choices = [self._whole_choice(index, report) for index, report in enumerate(reports)]
        body = {**self._head(self._shape.whole), "choices": choices, **self._totals(reports)}
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def _events(self, make_ready: MakeReady) -> AsyncGenerator[bytes, None]:
        reports: dict[int, Report] = {}
        has_begun = set[int]()
        try:
            with self._gateway.place(self._holder, len(self._settings)):
                write = await self._gateway.made_ready(self._holder, make_ready, self._settings[0])
                async for index, piece, report in grow(write, self._settings):
                    if index not in has_begun and self._shape is CHAT:
                        yield self._chunk(index, None)
                    has_begun.add(index)
                    if piece is not None and not self._may_call:
                        traced = facts_of_piece(piece, self._has_trace)
                        yield self._chunk(index, piece.text, more=traced, tokens=piece.tokens)
                    if report is not None and self._may_call:
                        yield self._called(index, report)
                    if report is not None:
                        reports[index] = report
                        more = self._totals(list(reports.values())) if len(reports) == len(self._settings) else {}
                        more.pop("usage", None)
                        yield self._chunk(index, "", self._finish(report), more)
        except SkydraftError as error:
            if not has_begun:
                raise
            self._gateway.metrics.refused(problem_of(error).status)
            yield event(problem_of(error).body())
            return
        if self._includes_usage:
            head = self._head(self._shape.chunk)
            yield event({**head, "choices": [], "usage": self._totals(list(reports.values()))["usage"]})
        yield DONE

    def _whole_choice(self, index: int, report: Report) -> JsonFields:
        choice = {**self._choice(index, self._finish(report), report.tokens), **self._shape.text(report.text)}
        if calls := self._calls(report):
            choice["message"] |= {"content": None, "tool_calls": calls}
        return choice

    def _called(self, index: int, report: Report) -> bytes:
        """All of a text, as one piece, or the calls that it is made of."""
        calls = self._calls(report)
        if not calls:
            return self._chunk(index, report.text, tokens=report.tokens)
        delta = {"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]}
        choice = {**self._choice(index, None, report.tokens), "delta": delta}
        return event({**self._head(self._shape.chunk), "choices": [choice]})

    def _calls(self, report: Report) -> list[JsonFields]:
        return calls_in(report.text) if self._may_call else []

    def _finish(self, report: Report) -> str:
        return "tool_calls" if self._calls(report) else finish_of(report)

    def _chunk(
        self,
        index: int,
        text: str | None,
        finish: str | None = None,
        more: JsonFields | None = None,
        tokens: Sequence[Token] = (),
    ) -> bytes:
        choice = {**self._choice(index, finish, tokens), **self._shape.delta(text)}
        usage_so_far = {"usage": None} if self._includes_usage else {}
        return event({**self._head(self._shape.chunk), "choices": [choice], **usage_so_far, **(more or {})})

    def _head(self, kind: str) -> JsonFields:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._gateway.model}

    def _choice(self, index: int, finish: str | None, tokens: Sequence[Token]) -> JsonFields:
        logprobs = self._shape.logprobs(tokens, self._gateway.device.tokenizer)
        return {"index": index, "logprobs": logprobs, "finish_reason": finish}

    def _totals(self, reports: Sequence[Report]) -> JsonFields:
        return {"usage": usage(reports, self._has_prediction), **facts_of_texts(reports, self._has_trace)}

    @property
    def _includes_usage(self) -> bool:
        options = self._asked.stream_options
        return options is not None and options.include_usage


def finish_of(report: Report) -> str:
    """Why a text ended, in OpenAI's words."""
    return "stop" if report.finish is Finish.STOP else "length"
