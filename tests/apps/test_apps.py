"""Clients that people have, unchanged, against `skydraft serve`: `make test-clients`."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("openai") is None:
    pytest.skip("needs the clients: make test-clients", allow_module_level=True)

import openai

pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's packages
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is fetched from the network
PYTHON = os.environ.get("SKYDRAFT_PYTHON", sys.executable)  # of an environment that has skydraft and its models
ANNOUNCEMENT = "skydraft serves apps at "
TARGET = "table:vocab=64,seed=3,order=2,end=5"
LETTERS = "table:vocab=97,letters=1,seed=3,order=2,end=96"
SPELLING = ("--draft", f"{LETTERS},noise=0.5", "--target", LETTERS, "--max-tokens", "120")
READING = ("--draft", f"{TARGET},noise=0.7", "--target", TARGET)
HEARING = ("--draft", "embedded", "--mode", "edge", "--share", "none")
ASKED = "ba de"
CLIP = next((Path(__file__).parents[2] / "src" / "skydraft" / "audio" / "clips").glob("*.flac"))


def serve(*flags: str) -> Iterator[str]:
    arguments = [PYTHON, "-m", "skydraft", "serve", "--port", "0", *flags]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCEMENT), line
            yield line.removeprefix(ANNOUNCEMENT).strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def reading() -> Iterator[str]:
    yield from serve(*READING)


@pytest.fixture(scope="module")
def spelling() -> Iterator[str]:
    yield from serve(*SPELLING)


@pytest.fixture(scope="module")
def hearing() -> Iterator[str]:
    yield from serve(*HEARING)


@pytest.fixture(scope="module")
def client(reading: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=reading, api_key="none")


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    (only,) = client.models.list().data
    return str(only.id)


def said(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def silence() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(32000))
    return file.getvalue()


def test_openai_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=said(ASKED), max_completion_tokens=20, seed=1)
    text = answer.choices[0].message.content
    assert text
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 20
    stream = client.chat.completions.create(
        model=model, messages=said(ASKED), max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    with client.chat.completions.stream(model=model, messages=said(ASKED)) as helped:
        final = helped.get_final_completion()
    assert (final.choices[0].message.content or "").startswith(text)


def test_openai_completions(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=ASKED, max_tokens=20)
    chunks = client.completions.create(model=model, prompt=ASKED, max_tokens=20, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text


def test_openai_responses(client: openai.OpenAI, model: str) -> None:
    answer = client.responses.create(model=model, input=ASKED, instructions="mo", max_output_tokens=20)
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens <= 20
    events = list(
        client.responses.create(model=model, input=ASKED, instructions="mo", max_output_tokens=20, stream=True)
    )
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with client.responses.stream(model=model, input=ASKED, instructions="mo", max_output_tokens=20) as stream:
        for _ in stream:
            pass


def test_openai_responses_are_kept_and_gone_on_from(client: openai.OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input=ASKED, max_output_tokens=20)
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(model=model, input="mo", previous_response_id=first.id, max_output_tokens=20)
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_openai_responses_call_functions(spelling: str) -> None:
    client = openai.OpenAI(base_url=spelling, api_key="none")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    tool: Any = {"type": "function", "name": "f", "parameters": schema, "strict": True}
    asked: Any = {"model": "any", "input": ASKED, "tools": [tool], "tool_choice": "required"}
    asked["max_output_tokens"] = 600  # this model writes as many blanks as it may
    answer = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        final = stream.get_final_response()
    for each in (answer, final):
        (call,) = each.output
        assert call.type == "function_call"
        assert json.loads(call.arguments)["n"] in (1, 2)
    output: Any = {"type": "function_call_output", "call_id": answer.output[0].call_id, "output": "3"}
    assert client.responses.create(model="any", input=[output], previous_response_id=answer.id).output


async def test_openai_many_at_once(reading: str, model: str) -> None:
    import asyncio

    async with openai.AsyncOpenAI(base_url=reading, api_key="none") as client:

        async def text(seed: int) -> str:
            answer = await client.chat.completions.create(
                model=model, messages=said(ASKED), max_tokens=20, temperature=0.9, seed=seed
            )
            return str(answer.choices[0].message.content)

        once = await asyncio.gather(*map(text, range(12)))
        assert once == [await text(seed) for seed in range(12)]


def test_openai_errors_are_its_own(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature is 400"):
        client.chat.completions.create(model=model, messages=said(ASKED), temperature=400)
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.models.retrieve("gpt-9")
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(silence()).decode(), "format": "wav"}}
    with pytest.raises(openai.BadRequestError, match="cannot hear"):
        client.chat.completions.create(model=model, messages=said([sound]))


def test_openai_schemas_and_tools(spelling: str) -> None:
    client = openai.OpenAI(base_url=spelling, api_key="none")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    asked: Any = {"model": "any", "messages": said(ASKED), "logit_bias": {"0": -100, "1": -100}}  # without spaces
    answer = client.chat.completions.create(**asked, response_format=form)
    assert json.loads(answer.choices[0].message.content or "")["n"] in (1, 2)
    tools: Any = [{"type": "function", "function": {"name": "count", "parameters": schema}}]
    called = client.chat.completions.create(**asked, tools=tools, tool_choice="required")
    call: Any
    (call,) = list(called.choices[0].message.tool_calls or [])
    assert (call.function.name, json.loads(call.function.arguments)["n"] in (1, 2)) == ("count", True)
    with client.chat.completions.stream(**asked, tools=tools, tool_choice="required") as stream:
        streamed: Any
        (streamed,) = list(stream.get_final_completion().choices[0].message.tool_calls or [])
    assert streamed.function.arguments == call.function.arguments


def test_openai_audio(hearing: str) -> None:
    client = openai.OpenAI(base_url=hearing, api_key="none")
    sound = CLIP.read_bytes()
    heard = client.audio.transcriptions.create(model="any", file=("clip.flac", sound))
    assert heard.text
    plain = client.audio.transcriptions.create(model="any", file=("clip.flac", sound), response_format="text")
    assert str(plain).strip() == heard.text
    subtitles = client.audio.transcriptions.create(model="any", file=("clip.flac", sound), response_format="srt")
    assert "00:00:00,000 -->" in str(subtitles)
    verbose = client.audio.transcriptions.create(model="any", file=("clip.flac", sound), response_format="verbose_json")
    assert verbose.text == heard.text
    assert verbose.duration > 0
    events = client.audio.transcriptions.create(model="any", file=("clip.flac", sound), stream=True)
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == heard.text
    quiet = client.audio.transcriptions.create(model="any", file=("quiet.wav", silence()))
    assert quiet.text == ""


def test_litellm(reading: str, model: str) -> None:
    litellm = pytest.importorskip("litellm")
    options = {"api_base": reading, "api_key": "none", "max_tokens": 20}
    for provider in ("openai", "hosted_vllm"):
        answer = litellm.completion(f"{provider}/{model}", said(ASKED), **options)
        text = answer.choices[0].message.content
        assert text
        chunks = list(litellm.completion(f"{provider}/{model}", said(ASKED), stream=True, **options))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
        assert litellm.stream_chunk_builder(chunks).choices[0].message.content == text


def test_langchain(reading: str, model: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(base_url=reading, api_key="none", model=model, max_tokens=20)
    answer = chat.invoke(ASKED)
    assert answer.content
    assert "".join(chunk.content for chunk in chat.stream(ASKED)) == answer.content
    assert answer.usage_metadata["output_tokens"] <= 20
