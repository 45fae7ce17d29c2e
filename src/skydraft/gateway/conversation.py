"""Messages as apps write them -> what the device is to write."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from skydraft.config import DeviceSettings
from skydraft.core import Grammar, TextPiece
from skydraft.edge.job import OnText
from skydraft.edge.report import Report, joined
from skydraft.edge.text_pace import TextPace
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.hearing import caption_of_clip, clip_of_sound, report_of
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.requests import ChatMessage, Content
from skydraft.gateway.texts import MakeReady, Write
from skydraft.tasks.caption import INSTRUCTION
from skydraft.tasks.chat import Tools
from skydraft.text.private_text import words_in

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
SOUND_FORMATS = ("wav", "mp3")
BETWEEN_SOUNDS = "\n"
CANNOT_HEAR = "this gateway's model reads text only and cannot hear: leave the audio out, or serve a model that hears"


def conversation_of(
    messages: Sequence[ChatMessage],
    gateway: Gateway,
    grammar: Grammar | None = None,
    tools: Tools = (),
    prediction: str | None = None,
) -> MakeReady:
    """What makes an answer to a conversation ready to be written.

    Args:
        grammar, tools, prediction: of the answer; as `AsyncClient.write`.
    Raises:
        BadRequest: a message is not as it should be, or the model has no sense for a part of it.
    """
    turns: list[dict[str, Any]] = []
    sounds: list[bytes] = []
    for message in messages:
        if message.role not in ROLES:
            raise BadRequest(f"unknown role {message.role!r}; expected one of {', '.join(ROLES)}", "messages")
        text, heard = _read(message.content)
        sounds += heard
        calls = None if message.tool_calls is None else [_readable(call) for call in message.tool_calls]
        more = {"name": message.name, "tool_calls": calls, "tool_call_id": message.tool_call_id}
        given = {name: value for name, value in more.items() if value is not None}
        turns.append({"role": ROLES[message.role], "content": text, **given})
    gateway.require_short(*words_in([*turns, *tools]), prediction)
    if sounds:
        if grammar is not None:
            raise BadRequest("what is said of a sound follows no grammar: leave response_format out", "response_format")
        return _about_sound(turns, sounds, gateway)

    async def make_ready(settings: DeviceSettings) -> Write:
        return gateway.writing(
            await gateway.client.ready(turns, settings, prediction=prediction, grammar=grammar, tools=tools)
        )

    return make_ready


def _about_sound(turns: Sequence[Mapping[str, Any]], sounds: Sequence[bytes], gateway: Gateway) -> MakeReady:
    if not gateway.device.can_hear:
        raise BadRequest(CANNOT_HEAR, "messages")
    spoken = [turn for turn in turns if turn["role"] != "system"]
    if len(spoken) > 1:
        raise BadRequest(
            f"there are sounds in a conversation of {len(spoken)} messages, and this model hears those of one message: "
            "send the last one alone",
            "messages",
        )
    instruction = "\n\n".join(turn["content"] for turn in turns if turn["content"].strip()) or INSTRUCTION

    async def make_ready(_: DeviceSettings) -> Write:
        clips = [await clip_of_sound(sound) for sound in sounds]

        async def write(settings: DeviceSettings, on_text: OnText, pace: TextPace) -> Report:
            reports: list[Report] = []
            for clip in clips:  # each by itself: the model's format has room for one
                if reports:
                    on_text([TextPiece(BETWEEN_SOUNDS, ())])
                caption = await caption_of_clip(gateway, clip, settings, on_text, pace, instruction)
                reports.append(report_of(caption, settings))
            return joined(reports, BETWEEN_SOUNDS)

        return write

    return make_ready


def prediction_of(prediction: Mapping[str, Any] | None) -> str | None:
    """What an app expects the answer to be.

    Raises:
        BadRequest: it is no text.
    """
    if prediction is None:
        return None
    content = prediction.get("content")
    if prediction.get("type", "content") != "content" or not isinstance(content, str | list):
        raise BadRequest('prediction is no text: give {"type": "content", "content": TEXT}', "prediction")
    text, sounds = _read(content)
    if sounds:
        raise BadRequest("prediction has a sound in it: give a text", "prediction")
    return text or None


def _readable(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as chat formats want it: its arguments are an object and no text."""
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(arguments := function.get("arguments"), str):
        return dict(call)
    try:
        return {**call, "function": {**function, "arguments": json.loads(arguments or "{}")}}
    except ValueError as error:
        raise BadRequest(f"the arguments of a tool call are no JSON: {error}", "messages") from None


def _read(content: Content) -> tuple[str, list[bytes]]:
    """The text and the sounds of a message."""
    if not isinstance(content, list):
        return content or "", []
    texts, sounds = list[str](), list[bytes]()
    for part in content:
        kind = part.get("type")
        if kind in TEXT_PARTS and isinstance(text := part.get("text", part.get("refusal")), str):
            texts.append(text)
        elif kind == "input_audio":
            sounds.append(_sound(part.get("input_audio")))
        else:
            raise BadRequest(
                f"a part of type {kind!r} is not understood; expected one of text and input_audio", "messages"
            )
    return "".join(texts), sounds


def _sound(audio: object) -> bytes:
    if not isinstance(audio, Mapping) or not isinstance(data := audio.get("data"), str):
        raise BadRequest('an input_audio part has no data: give {"data": BASE64, "format": "wav"}', "messages")
    if audio.get("format") not in SOUND_FORMATS:
        raise BadRequest(f"input_audio is in format {audio.get('format')!r}; expected one of wav, mp3", "messages")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadRequest(f"the data of an input_audio part is not base64: {error}", "messages") from None
