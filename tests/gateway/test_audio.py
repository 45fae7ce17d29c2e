"""Sound: in forms and in messages, with a table that hears, and with one that does not."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from skydraft.client import Client
from tests.audio.sounds import RATE_HZ, tone
from tests.gateway.running import Served, served
from tests.waiting import PATIENCE_S

HEARING = "table:vocab=200,seed=3,order=3,tensors=1"
ALONE: dict[str, Any] = {"draft": HEARING, "mode": "edge", "share": "none", "max_tokens": 9, "any_sound": True}


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format="WAV", subtype="FLOAT")
    return file.getvalue()


VOICE, SILENCE = wav(tone(0.5)), wav(np.zeros(RATE_HZ, np.float32))
LONG = wav(np.concatenate([tone(1.0), np.zeros(40 * RATE_HZ, np.float32), tone(1.0, pitch_hz=300)]))


@pytest.fixture(scope="module")
def hearing() -> Iterator[Served]:
    with served(**ALONE) as running:
        yield running


@pytest.fixture(scope="module")
def truth() -> str:
    with Client(**ALONE) as client:
        return client.caption(VOICE).text


def transcribe(gateway: Served, data: bytes, path: str = "/audio/transcriptions", **fields: str) -> httpx.Response:
    files = {"file": ("voice.wav", data)}
    return httpx.post(f"{gateway.url}{path}", files=files, data={"model": "any", **fields}, timeout=PATIENCE_S)


def said(*parts: object) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": list(parts)}]}


def sound(data: bytes, form: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}


@pytest.mark.parametrize("path", ["/audio/transcriptions", "/audio/captions"])
def test_a_form_with_a_sound_is_answered(hearing: Served, truth: str, path: str) -> None:
    answer = transcribe(hearing, VOICE, path).json()
    assert answer["text"] == truth
    assert transcribe(hearing, VOICE, path, response_format="text").text == truth + "\n"
    verbose = transcribe(hearing, VOICE, path, response_format="verbose_json", temperature="0").json()
    (segment,) = verbose["segments"]
    subtitles = transcribe(hearing, VOICE, path, response_format="srt")
    assert subtitles.text.startswith(f"1\n00:00:00,000 --> 00:00:00,500\n{truth}")
    assert transcribe(hearing, VOICE, path, response_format="vtt").text.startswith("WEBVTT")
    assert (verbose["text"], segment["text"], segment["start"], segment["end"]) == (truth, truth, 0.0, 0.5)
    assert (segment["emotion"], segment["confidence"], segment["is_sure"]) == (None, None, None)  # of a made-up model


def test_a_stream_gives_it_in_pieces(hearing: Served, truth: str) -> None:
    lines = transcribe(hearing, VOICE, stream="true").text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert "".join(event["delta"] for event in events[:-1]) == truth == events[-1]["text"]
    assert events[-1]["type"] == "transcript.text.done"


def test_windows_of_a_long_sound_are_one_text(hearing: Served) -> None:
    with Client(**ALONE) as client:
        expected = client.caption(LONG)
    verbose = transcribe(hearing, LONG, response_format="verbose_json").json()
    assert verbose["text"] == expected.text
    assert len(verbose["segments"]) == len(expected.windows) > 1
    lines = transcribe(hearing, LONG, stream="true").text.splitlines()
    deltas = [json.loads(line.removeprefix("data: ")).get("delta", "") for line in lines if line]
    assert "".join(deltas) == expected.text


def test_of_silence_nothing_is_said(hearing: Served) -> None:
    response = transcribe(hearing, SILENCE)
    assert (response.status_code, response.json()["text"]) == (200, "")
    verbose = transcribe(hearing, SILENCE, response_format="verbose_json").json()
    assert verbose["segments"] == []


@pytest.mark.parametrize(
    ("data", "fields", "sentence"),
    [
        (b"nonsense", {}, "not a sound file"),
        (VOICE, {"response_format": "braille"}, "unknown response_format 'braille'"),
        (VOICE, {"temperature": "hot"}, "must be a number"),
    ],
)
def test_what_is_no_sound_is_refused(hearing: Served, data: bytes, fields: dict[str, str], sentence: str) -> None:
    for is_streamed in ("false", "true"):
        response = transcribe(hearing, data, stream=is_streamed, **fields)
        assert response.status_code == 400
        assert sentence in response.json()["error"]["message"]


def test_a_form_without_a_file_is_refused(hearing: Served) -> None:
    url = f"{hearing.url}/audio/transcriptions"
    all_options: list[dict[str, Any]] = [
        {"data": {"model": "x"}, "files": {"other": b"x"}},
        {"json": {"file": "x"}},
        {"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
    ]
    for options in all_options:
        response = httpx.post(url, timeout=PATIENCE_S, **options)
        assert response.status_code == 400, response.text


def test_a_sound_in_a_message_is_heard(hearing: Served, truth: str) -> None:
    answer = hearing.post("/chat/completions", said(sound(VOICE))).json()
    assert answer["choices"][0]["message"]["content"] == truth
    other = hearing.post("/chat/completions", said({"type": "text", "text": "Who speaks?"}, sound(VOICE))).json()
    assert other["choices"][0]["message"]["content"] != truth
    silent = hearing.post("/chat/completions", said(sound(SILENCE))).json()
    assert silent["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (sound(VOICE, "ogg"), "format 'ogg'"),
        ({"type": "input_audio", "input_audio": {"data": "!!", "format": "wav"}}, "not base64"),
        ({"type": "input_audio"}, "has no data"),
        (sound(b"nonsense"), "not a sound file"),
    ],
)
def test_a_part_that_is_no_sound_is_refused(hearing: Served, part: dict[str, Any], sentence: str) -> None:
    response = hearing.post("/chat/completions", said(part))
    assert response.status_code == 400
    assert sentence in response.json()["error"]["message"]


def test_of_several_sounds_each_has_a_line_in_the_order_of_the_parts(hearing: Served, truth: str) -> None:
    parts = [sound(VOICE), sound(SILENCE), sound(LONG), sound(VOICE)]
    long = hearing.post("/chat/completions", said(sound(LONG))).json()["choices"][0]["message"]["content"]
    answer = hearing.post("/chat/completions", said(*parts)).json()
    assert answer["choices"][0]["message"]["content"] == f"{truth}\n\n{long}\n{truth}"
    chunks = hearing.chunks("/chat/completions", {**said(*parts), "stream": True})
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == answer["choices"][0]["message"]["content"]


def test_sounds_in_a_conversation_are_refused(hearing: Served) -> None:
    body = said(sound(VOICE))
    body["messages"] *= 3
    response = hearing.post("/chat/completions", body)
    assert response.status_code == 400
    assert "a conversation of 3 messages" in response.json()["error"]["message"]


def test_a_model_that_cannot_hear_says_so(gateway: Served) -> None:
    assert "cannot hear" in transcribe(gateway, VOICE).json()["error"]["message"]
    assert "cannot hear" in gateway.post("/chat/completions", said(sound(VOICE))).json()["error"]["message"]


def test_the_embedded_models_answer_no_text() -> None:
    with served(draft="embedded", mode="edge", share="none") as running:
        response = running.post("/completions", {"prompt": "Hello", "model": "any"})
    assert response.status_code == 400
    assert "can only caption audio" in response.json()["error"]["message"]
