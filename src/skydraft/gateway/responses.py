"""POST /v1/responses (Open Responses): a conversation as items, and events with names while it is written.

A response is kept in memory for a time (`kept_responses`), so that it may be had again and gone on from; not where the
request says store false.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from skydraft.cloud.access.keys import Holder
from skydraft.config import DeviceSettings
from skydraft.core import TextPiece
from skydraft.edge.report import Report
from skydraft.errors import SkydraftError
from skydraft.gateway.completions import finish_of, grammar_of
from skydraft.gateway.conversation import conversation_of
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.kept_responses import KeptResponse
from skydraft.gateway.problems import BadRequest, problem_of
from skydraft.gateway.requests import ResponsesRequest, SamplingRequest, parse
from skydraft.gateway.response_items import (
    call_item,
    chat_tool_choice,
    chat_tools,
    items_of,
    message_item,
    messages_of,
    text_part,
)
from skydraft.gateway.sampling import asks_for_trace, own_headers, refuse_unknown, settings_for
from skydraft.gateway.sse import begin_stream, event, unless_hung_up
from skydraft.gateway.texts import MakeReady, grow, write_all
from skydraft.gateway.tools import calls_in, offered_tools, required_calls
from skydraft.gateway.trace import facts_of_piece, facts_of_texts

JsonFields = dict[str, Any]


async def responses(request: Request) -> Response:
    """Say what comes next in a conversation."""
    gateway: Gateway = request.app.state.gateway
    holder = gateway.admit(request)
    own = own_headers(request.headers)

    async def parse_request(data: bytes) -> tuple[ResponseAnswer, MakeReady]:
        asked, fields = parse(data, ResponsesRequest)
        refuse_unknown(fields)
        _refuse_missing(asked)
        sampling = SamplingRequest(temperature=asked.temperature, top_p=asked.top_p, skydraft=asked.skydraft)
        settings = settings_for(
            gateway.device_settings, sampling, own, gateway.distances, max_tokens=asked.max_output_tokens
        )
        choice = chat_tool_choice(asked.tool_choice)
        tools = offered_tools(chat_tools(asked.tools), choice)
        calls = required_calls(tools, choice, asked.parallel_tool_calls or False)
        items = _earlier(gateway, holder, asked.previous_response_id) + items_of(asked.input)
        messages = messages_of(items, asked.instructions)
        if not messages:
            raise BadRequest("input is empty: give a text or a message", "input")
        grammar = calls or grammar_of((asked.text or {}).get("format"))
        has_trace = asks_for_trace(own, sampling)
        answer = ResponseAnswer(gateway, holder, asked, settings, items, bool(tools), has_trace)
        return answer, conversation_of(messages, gateway, grammar, tools)

    answer, make_ready = await gateway.read(request, holder, parse_request)
    return await answer.respond(request, make_ready)


async def kept_response(request: Request) -> Response:
    """A response of before."""
    gateway: Gateway = request.app.state.gateway
    kept = _find(gateway, gateway.admit(request), request.path_params["response_id"])
    if kept is None:
        raise _unknown(request)
    return Response(kept.response, media_type="application/json")


async def forget_response(request: Request) -> Response:
    """Forget a response of before; those that went on from it stay."""
    gateway: Gateway = request.app.state.gateway
    holder, response_id = gateway.admit(request), request.path_params["response_id"]
    if not gateway.kept_responses.forget(holder, response_id, time.monotonic()):
        raise _unknown(request)
    facts = {"id": response_id, "object": "response", "deleted": True}
    return Response(msgspec.json.encode(facts), media_type="application/json")


def _find(gateway: Gateway, holder: Holder, response_id: str) -> KeptResponse | None:
    return gateway.kept_responses.find(holder, response_id, time.monotonic())


def _unknown(request: Request) -> BadRequest:
    sentence = f"there is no response {request.path_params['response_id']!r} of this key here, or not any more"
    return BadRequest(sentence, "response_id", HTTPStatus.NOT_FOUND)


def _earlier(gateway: Gateway, holder: Holder, response_id: str | None) -> list[JsonFields]:
    """What was said up to a response of before, and in it.

    Raises:
        BadRequest: there is none.
    """
    if response_id is None:
        return []
    kept = _find(gateway, holder, response_id)
    if kept is None:
        raise BadRequest(
            f"there is no response {response_id!r} of this key here, or not any more: send what was said in input",
            "previous_response_id",
            code="previous_response_not_found",
        )
    return kept.conversation


def _refuse_missing(asked: ResponsesRequest) -> None:
    if asked.conversation is not None:
        sentence = "this gateway keeps responses and no conversations: use previous_response_id, or send all in input"
        raise BadRequest(sentence, "conversation")
    if asked.background:
        raise BadRequest("nothing is written in background here: leave it out, or use stream", "background")
    if asked.top_logprobs:
        raise BadRequest("top_logprobs is not supported in responses: leave it out", "top_logprobs")


class ResponseAnswer:
    """The answer to one request.

    Args:
        items: of the conversation so far.
        may_call: the text may be calls of tools, which shows at its end.
        has_trace: the app wants to know how the text came about.
    """

    def __init__(
        self,
        gateway: Gateway,
        holder: Holder,
        asked: ResponsesRequest,
        settings: DeviceSettings,
        items: Sequence[JsonFields],
        may_call: bool,
        has_trace: bool,
    ) -> None:
        self._has_trace = has_trace
        self._gateway = gateway
        self._holder = holder
        self._asked = asked
        self._settings = settings
        self._items = items
        self._may_call = may_call
        self._is_kept = asked.store is not False
        self._id = f"resp_{secrets.token_hex(16)}"
        self._item_id = f"msg_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._num_events = 0

    async def respond(self, request: Request, make_ready: MakeReady) -> Response:
        """Raises: SkydraftError: before anything was written."""
        if not self._asked.stream:
            return await unless_hung_up(request.receive, self._whole(make_ready))
        return await begin_stream(request.receive, self._events(make_ready))

    async def _whole(self, make_ready: MakeReady) -> Response:
        with self._gateway.place(self._holder):
            write = await self._gateway.made_ready(self._holder, make_ready, self._settings)
            (report,) = await write_all(write, [self._settings])
        return Response(msgspec.json.encode(self._ended(report)), media_type="application/json")

    async def _events(self, make_ready: MakeReady) -> AsyncGenerator[bytes, None]:
        is_begun = False
        try:
            with self._gateway.place(self._holder):
                write = await self._gateway.made_ready(self._holder, make_ready, self._settings)
                async for growth in grow(write, [self._settings]):
                    if not is_begun:
                        is_begun = True
                        for opening in self._opening():
                            yield opening
                    if growth.piece is not None and growth.piece.text and not self._may_call:
                        yield self._delta(growth.piece)
                    if growth.report is not None:
                        for closing in self._closing(growth.report):
                            yield closing
        except SkydraftError as error:
            if not is_begun:
                raise
            problem = problem_of(error)
            self._gateway.metrics.refused(problem.status)
            failure = {"code": problem.code or "server_error", "message": problem.sentence}
            yield self._event("failed", {"response": self._response("failed", [], None, failure)})

    def _delta(self, piece: TextPiece) -> bytes:
        traced = facts_of_piece(piece, self._has_trace)
        return self._text_event("output_text.delta", {"delta": piece.text, "logprobs": [], **traced})

    def _opening(self) -> Iterator[bytes]:
        response = self._response("in_progress", [], None)
        yield self._event("created", {"response": response})
        yield self._event("in_progress", {"response": response})
        if not self._may_call:
            yield from self._message_begins()

    def _closing(self, report: Report) -> Iterator[bytes]:
        ended = self._ended(report)
        for index, item in enumerate(ended["output"]):
            if item["type"] == "message":
                if self._may_call:
                    yield from self._message_begins()
                    yield self._text_event("output_text.delta", {"delta": report.text, "logprobs": []})
                yield self._text_event("output_text.done", {"text": report.text, "logprobs": []})
                yield self._text_event("content_part.done", {"part": text_part(report.text)})
            else:
                yield from self._call_events(index, item)
            yield self._event("output_item.done", {"output_index": index, "item": item})
        yield self._event(ended["status"], {"response": ended})

    def _message_begins(self) -> Iterator[bytes]:
        item = message_item("", "in_progress", self._item_id)
        yield self._event("output_item.added", {"output_index": 0, "item": item})
        yield self._text_event("content_part.added", {"part": text_part("")})

    def _call_events(self, index: int, item: JsonFields) -> Iterator[bytes]:
        begun = {**item, "status": "in_progress", "arguments": ""}
        place = {"item_id": item["id"], "output_index": index}
        yield self._event("output_item.added", {"output_index": index, "item": begun})
        yield self._event("function_call_arguments.delta", {**place, "delta": item["arguments"]})
        done = {**place, "name": item["name"], "arguments": item["arguments"]}
        yield self._event("function_call_arguments.done", done)

    def _text_event(self, name: str, fields: Mapping[str, object]) -> bytes:
        return self._event(name, {"item_id": self._item_id, "output_index": 0, "content_index": 0, **fields})

    def _event(self, name: str, fields: Mapping[str, object]) -> bytes:
        kind = f"response.{name}"
        self._num_events += 1
        return event({"type": kind, "sequence_number": self._num_events - 1, **fields}, kind)

    def _ended(self, report: Report) -> JsonFields:
        """The whole response, which is kept from now on."""
        status = "completed" if finish_of(report) == "stop" else "incomplete"
        calls = calls_in(report.text) if self._may_call else []
        output = [call_item(call) for call in calls] or [message_item(report.text, status, self._item_id)]
        response = self._response("completed" if calls else status, output, report)
        if self._is_kept:
            kept, items = self._gateway.kept_responses, [*self._items, *output]
            response["store"] = kept.keep(self._holder, response, items, time.monotonic())
        return response

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
            "parallel_tool_calls": asked.parallel_tool_calls or False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": None,
            "service_tier": "default",
            "store": self._is_kept,
            "temperature": settings.temperature,
            "text": asked.text or {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": settings.top_p,
            "truncation": "disabled",
            "usage": None,
        }
        if report is not None:
            num_prompt, num_written = report.num_prompt_tokens, len(report.tokens)
            response["usage"] = {
                "input_tokens": num_prompt,
                "input_tokens_details": {"cached_tokens": min(num_prompt, report.num_prompt_reused)},
                "output_tokens": num_written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": num_prompt + num_written,
            }
            response |= facts_of_texts([report], self._has_trace)
        return response
