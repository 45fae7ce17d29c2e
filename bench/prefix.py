"""What a prefix cache saves: turns of a conversation, and a system message that several share, with the real pair.

Each text is asked of a cloud (or, with --alone, of a device) that keeps what it read, and of one that keeps nothing, in
turns in one run.

Claims:
    turn_N_ratio: time to the first token of turn N of a conversation, over that of the one that keeps nothing.
    system_ratio: the same, of the first turn of another conversation with the same system message.
    turn_N_reused, system_reused: share of the prompt's tokens that the cloud need not read, as it says.
    texts_equal: share of the texts that are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections import defaultdict
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

from bench.claims import Claim, show
from bench.observed import observed_cloud
from bench.real.pair import PairMissing, find_pair
from skydraft.client import AsyncClient
from skydraft.core import Mode
from skydraft.edge.report import Report
from skydraft.errors import TransportError

FLAGS = ("--slots", "2", "--max-length", "2048", "--threads", "1", "--no-self-test")
RULES = (
    "You are the assistant of a small library. You answer in one or two plain sentences, and only from these rules. "
    "Members may borrow six books for three weeks, and renew each of them twice unless somebody else waits for it. "
    "Films and games are lent for one week and cannot be renewed. The library is open from ten to six on weekdays, "
    "from ten to two on Saturdays, and closed on Sundays and public holidays. Rooms for up to eight people can be "
    "booked at the desk or by telephone, for two hours a day. A fine of twenty cents is due for each day that a book "
    "is late, at most five euros for each book. Lost books are paid for at their price when new. Children under twelve "
    "pay no fines. Printing costs ten cents a page, thirty in colour. Members pay twenty euros a year, students eight."
)
QUESTIONS = (
    "How long may I keep a book, and what happens if I am late?",
    "And for my daughter, who is nine?",
    "Can I book a room for Sunday with ten friends?",
    "What would it cost me to print forty pages, half of them in colour?",
)
OTHERS = ("May I renew a film?", "When can I come on Saturday?", "I lost a book. What now?")
NUM_TOKENS = 24


class Times(NamedTuple):
    """Seconds to the first token, of one that keeps what it read and one that does not."""

    kept: float
    read: float


async def measure(kept: AsyncClient, read: AsyncClient, num_rounds: int) -> list[Claim]:
    """Several conversations; system messages differ from round to round, so that each begins with nothing kept."""
    times, reused, equal = defaultdict[str, list[Times]](list), defaultdict[str, list[float]](list), list[bool]()

    async def ask(name: str, conversation: list[dict[str, str]]) -> str:
        reports = [await _answer(client, conversation) for client in (kept, read)]
        times[name].append(Times(*(report.first_token_s for report in reports)))
        reused[name].append(reports[0].num_prompt_reused / reports[0].num_prompt_tokens)
        equal.append(reports[0].text == reports[1].text)
        return reports[0].text

    for number in range(num_rounds):
        system = {"role": "system", "content": f"Branch {number}. {RULES}"}
        talk = [system]
        for turn, question in enumerate(QUESTIONS, 1):
            talk.append({"role": "user", "content": question})
            talk.append({"role": "assistant", "content": await ask(f"turn_{turn}", talk)})
        for question in OTHERS:
            await ask("system", [system, {"role": "user", "content": question}])
    ratios = {name: [each.kept / each.read for each in of_name] for name, of_name in times.items()}
    seconds = {name: [each.kept for each in of_name] for name, of_name in times.items()}
    return [
        *(Claim(f"{name}_ratio", statistics.median(each), "ratio", len(each)) for name, each in ratios.items()),
        *(Claim(f"{name}_reused", statistics.median(each), "share", len(each)) for name, each in reused.items()),
        *(Claim(f"{name}_s", statistics.median(each), "s", len(each)) for name, each in seconds.items()),
        Claim("texts_equal", statistics.mean(equal), "share", len(equal)),
    ]


async def _answer(client: AsyncClient, conversation: list[dict[str, str]]) -> Report:
    return await client.chat(conversation, temperature=0.8, seed=7, max_tokens=NUM_TOKENS)


async def run(alone: bool, num_rounds: int) -> list[Claim]:
    """Raises: PairMissing, TransportError."""
    pair = find_pair()
    with ExitStack() as stack:
        async with AsyncExitStack() as clients:
            sites = []
            for num_bytes in (2**28, 0):
                if alone:
                    client = AsyncClient(draft=pair.draft, mode=Mode.EDGE, num_threads=1, max_prefix_bytes=num_bytes)
                else:
                    flags = (*FLAGS, "--prefix-cache", str(num_bytes))
                    cloud = await asyncio.to_thread(stack.enter_context, observed_cloud(pair.target, *flags))
                    client = AsyncClient(draft=pair.draft, cloud=cloud.url, mode=Mode.CLOUD)
                sites.append(await clients.enter_async_context(client))
            kept, read = sites
            return await measure(kept, read, num_rounds)


def main() -> None:
    """python -m bench.prefix [--alone] [--quick] [--json]"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help="a device with the draft model, in place of a cloud")
    parser.add_argument("--quick", action="store_true", help="one conversation")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim")
    arguments = parser.parse_args()
    try:
        claims = asyncio.run(run(arguments.alone, 1 if arguments.quick else 3))
    except (PairMissing, TransportError) as error:
        raise SystemExit(str(error)) from None
    show(claims, arguments.json)


if __name__ == "__main__":
    main()
