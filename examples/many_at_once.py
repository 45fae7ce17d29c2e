"""Several texts at the same time share the draft model and the cloud."""

import asyncio
import sys

from skydraft import AsyncClient


async def main(draft: str, target: str) -> None:
    async with AsyncClient(draft=draft, target=target, max_tokens=40) as client:
        stories = [f"Once upon a time, there was a {animal}" for animal in ("cat", "dog", "bird", "fish")]
        for prompt, report in zip(stories, await client.generate_many(stories), strict=True):
            print(prompt + report.text)


asyncio.run(main(*sys.argv[1:]))
