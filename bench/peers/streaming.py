"""A text out of an OpenAI-compatible server, as it comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import httpx

from bench.network.device import Arrivals

TIMEOUT_S = 300.0


async def stream_text(
    client: httpx.AsyncClient, url: str, prompt: str, num_tokens: int, count: Callable[[str], int]
) -> tuple[str, Arrivals]:
    """Ask for a greedy text, until it has num_tokens tokens or ends.

    Args:
        prompt: in the model's chat format.
        count: how many tokens a text has: what arrives is text, in pieces of one token or several.
    Raises:
        httpx.HTTPError: there is no answer.
    """
    text, arrivals = "", Arrivals(None)
    body = {"prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "stream": True}
    async with client.stream("POST", f"{url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
        response.raise_for_status()
        async for piece in pieces(response.aiter_lines()):
            text += piece
            arrivals.note(count(text) - sum(arrivals.counts))
            if sum(arrivals.counts) >= num_tokens:
                break
    return text, arrivals


async def pieces(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """What the events of a stream add to the text; empty ones are left out."""
    async for line in lines:
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        if piece := json.loads(data)["choices"][0]["text"]:
            yield piece
