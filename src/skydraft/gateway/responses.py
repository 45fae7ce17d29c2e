"""POST /v1/responses (Open Responses): a conversation as items, and events with names while it is written.

Nothing is kept of a response: an app that goes on sends what was said.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from skydraft.cloud.access.keys import Holder
from skydraft.config import DeviceSettings
from skydraft.edge.report import Report
from skydraft.errors import SkydraftError
from skydraft.gateway.completions import finish_of, grammar_of
from skydraft.gateway.conversation import conversation_of
from skydraft.gateway.counts import own_facts, timings
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.problems import BadRequest, problem_of
from skydraft.gateway.requests import ChatMessage, ResponsesRequest, SamplingRequest, parse
from skydraft.gateway.sampling import own_headers, refuse_unknown, settings_for
from skydraft.gateway.sse import begin_stream, event, unless_hung_up
from skydraft.gateway.texts import Write, grow, write_all

JsonFields = dict[str, Any]


async def responses(request: Request) -> Response:
    """Say what comes next in a conversation."""
    gateway: Gateway = request.app.state.gateway
    holder = gateway.admit(request)
    asked, fields = parse(await gateway.body(request, holder), ResponsesRequest)
    refuse_unknown(fields)
    _refuse_memory(asked)
    sampling = SamplingRequest(temperature=asked.temperature, top_p=asked.top_p, skydraft=asked.skydraft)
    own = own_headers(request.headers)
    settings = settings_for(
        gateway.device_settings, sampling, own, gateway.distances, max_tokens=asked.max_output_tokens
    )
    answer = ResponseAnswer(gateway, holder, asked, settings)
    grammar = grammar_of((asked.text or {}).get("format"))
    return await answer.respond(request, conversation_of(messages_of(asked), gateway, grammar))


def messages_of(asked: ResponsesRequest) -> list[ChatMessage]:
    """The conversation of a request.

    Raises:
        BadRequest: an item is no message, or not as it should be.
    """
    messages = [] if asked.instructions is None else [ChatMessage("system", asked.instructions)]
    if isinstance(asked.input, str):
        return [*messages, ChatMessage("user", asked.input)]
    for item in asked.input:
        kind = item.get("type", "message")
        if kind == "reasoning":  # of another model: no part of what was said
            continue
        if kind != "message":
            raise BadRequest(f"an input item of type {kind!r} is not understood; expected messages", "input")
        try:
            messages.append(msgspec.convert({name: item.get(name) for name in ("role", "content")}, ChatMessage))
        except msgspec.ValidationError as error:
            raise BadRequest(f"an input item is not as it should be: {error}", "input") from None
    if not messages:
        raise BadRequest("input is empty: give a text or a message", "input")
    return messages


def _refuse_memory(asked: ResponsesRequest) -> None:
    if asked.previous_response_id is not None or asked.conversation is not None:
        raise BadRequest(
            "this gateway keeps no responses: send what was said in input, in place of previous_response_id",
            "previous_response_id",
        )
    if asked.background:
        raise BadRequest("this gateway keeps no responses, so that nothing can be written in background", "background")
    if asked.tool_choice != "none" and any(tool.get("type") == "function" for tool in asked.tools or ()):
        raise BadRequest("tools are not supported: leave them out, or set tool_choice to none", "tools")
    if asked.top_logprobs:
        raise BadRequest("top_logprobs is not supported in responses: leave it out", "top_logprobs")


class ResponseAnswer:
    """The answer to one request."""

    def __init__(self, gateway: Gateway, holder: Holder, asked: ResponsesRequest, settings: DeviceSettings) -> None:
        self._gateway = gateway
        self._holder = holder
        self._asked = asked
        self._settings = settings
        self._id = f"resp_{secrets.token_hex(16)}"
        self._item_id = f"msg_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._num_events = 0

    async def respond(self, request: Request, write: Write) -> Response:
        """Raises: SkydraftError: before anything was written."""
        write = self._gateway.charged(self._holder, write)
        if not self._asked.stream:
            return await unless_hung_up(request.receive, self._whole(write))
        return await begin_stream(request.receive, self._events(write))

    async def _whole(self, write: Write) -> Response:
        with self._gateway.place(self._holder):
            (report,) = await write_all(write, [self._settings])
        return Response(msgspec.json.encode(self._ended(report)), media_type="application/json")

    async def _events(self, write: Write) -> AsyncGenerator[bytes, None]:
        text, is_begun = "", False
        try:
            with self._gateway.place(self._holder):
                async for growth in grow(write, [self._settings]):
                    if not is_begun:
                        is_begun = True
                        for opening in self._opening():
                            yield opening
                    if growth.piece is not None and growth.piece.text:
                        text += growth.piece.text
                        delta = {**self._place, "delta": growth.piece.text, "logprobs": []}
                        yield self._event("output_text.delta", delta)
                    if growth.report is not None:
                        for closing in self._closing(text, growth.report):
                            yield closing
        except SkydraftError as error:
            if not is_begun:
                raise
            problem = problem_of(error)
            self._gateway.metrics.refused(problem.status)
            failure = {"code": problem.code or "server_error", "message": problem.sentence}
            yield self._event("failed", {"response": self._response("failed", [], None, failure)})

    def _opening(self) -> list[bytes]:
        response = self._response("in_progress", [], None)
        return [
            self._event("created", {"response": response}),
            self._event("in_progress", {"response": response}),
            self._event("output_item.added", {"output_index": 0, "item": self._item("in_progress", [])}),
            self._event("content_part.added", {**self._place, "part": _part("")}),
        ]

    def _closing(self, text: str, report: Report) -> list[bytes]:
        ended = self._ended(report)
        return [
            self._event("output_text.done", {**self._place, "text": text, "logprobs": []}),
            self._event("content_part.done", {**self._place, "part": _part(text)}),
            self._event("output_item.done", {"output_index": 0, "item": ended["output"][0]}),
            self._event(ended["status"], {"response": ended}),
        ]

    @property
    def _place(self) -> JsonFields:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _event(self, name: str, fields: Mapping[str, object]) -> bytes:
        kind = f"response.{name}"
        self._num_events += 1
        return event({"type": kind, "sequence_number": self._num_events - 1, **fields}, kind)

    def _ended(self, report: Report) -> JsonFields:
        status = "completed" if finish_of(report) == "stop" else "incomplete"
        return self._response(status, [self._item(status, [_part(report.text)])], report)

    def _item(self, status: str, content: list[JsonFields]) -> JsonFields:
        return {"type": "message", "id": self._item_id, "status": status, "role": "assistant", "content": content}

    def _response(
        self, status: str, output: list[JsonFields], report: Report | None, failure: JsonFields | None = None
    ) -> JsonFields:
        asked, settings = self._asked, self._settings
        response: JsonFields = {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": None if report is None else int(time.time()),
            "status": status,
            "background": False,
            "error": failure,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self._gateway.model,
            "output": output,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": None,
            "service_tier": "default",
            "store": False,
            "temperature": settings.temperature,
            "text": asked.text or {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": settings.top_p,
            "truncation": "disabled",
            "usage": None,
        }
        if report is not None:
            num_prompt, num_written = report.num_prompt_tokens, len(report.tokens)
            response["usage"] = {
                "input_tokens": num_prompt,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": num_written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": num_prompt + num_written,
            }
            response["timings"], response["skydraft"] = timings([report]), own_facts([report])
        return response


def _part(text: str) -> JsonFields:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
