"""Devices that come, write a text, lose their connection, come back, or never do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from bench.replay import write_alone
from skydraft.config import DeviceSettings
from skydraft.core import Mode, SamplingParams, ShareLevel, TextPiece, tokens_of
from skydraft.edge.device import Device
from skydraft.edge.report import Report
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.errors import SkydraftError
from skydraft.tasks.chat import chat_prompts
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address

TARGET = "table:vocab=64,seed=3,order=2"
MODEL = f"paced:step_ms=2:{TARGET}"  # so that a text takes long enough to be cut off
DRAFT = f"{TARGET},noise=0.8"
DEVICES, SLOTS = 8, 4
GRACE_S = 1.0  # short: some sessions are forgotten before their device is back
MAX_TOKENS = 120
MAX_PROMPT_WORDS = 200
SHARE_CUT, SHARE_VANISH = 0.3, 0.15
MAX_CUTS = 3  # of one text
MAX_REFUSE_S = 0.2  # after a cut
PATIENCE_S = 60.0
GONE_S = 1e6


def cloud_flags() -> tuple[str, ...]:
    """What the cloud is started with: fewer slots than devices, so that they are taken from one another."""
    return ("--slots", str(SLOTS), "--grace", f"{GRACE_S:g}")


@dataclass
class Tally:
    """What has happened so far.

    different: texts that are not the cloud's own, in words. errors: that ended a text, by their sentence.
    """

    num_done: int = 0
    num_cuts: int = 0
    num_vanished: int = 0
    different: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Fate:
    """One text. cuts: after how many tokens its connection breaks off. vanishes: at the last of these for good."""

    settings: DeviceSettings
    prompt: str
    cuts: tuple[int, ...]
    vanishes: bool


class Churn:
    """Several devices at once at one cloud.

    Args:
        url: of the cloud.
        seed: of what is written and what befalls it.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.tally = Tally()
        self._upstream = Address.parse(url.removeprefix("ws://"))
        self._rng = Random(seed)
        self._target = load_engine(TARGET, "target")
        self._tokenizer = load_tokenizer(DRAFT, "draft")

    async def run(self, seconds: float) -> None:
        """Let devices come for so long, and those that are there finish."""
        deadline_s = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(DEVICES):
                group.create_task(self._one_after_another(deadline_s))

    async def _one_after_another(self, deadline_s: float) -> None:
        engine, loop = load_engine(DRAFT, "draft"), asyncio.get_running_loop()
        while loop.time() < deadline_s:
            async with Link(self._upstream) as link:
                fate = self._fate(link)
                with Device(fate.settings, engine, self._tokenizer) as device:
                    await self._live(device, fate, link)

    def _fate(self, link: Link) -> Fate:
        rng = self._rng
        settings = DeviceSettings(
            draft=DRAFT,
            cloud=f"ws://{link.address}",
            mode=rng.choice((Mode.HYBRID, Mode.CLOUD)),
            way=rng.choice(("auto", "auto", "wait:4", "tree", "free")),
            temperature=rng.choice((0.0, 1.0)),
            seed=rng.randrange(2**32),
            max_tokens=rng.randrange(10, MAX_TOKENS),
            offline_wait_s=PATIENCE_S,
        )
        tokens = self._tokenizer.vocabulary.tokens
        words = [rng.choice(tokens) or "" for _ in range(rng.randrange(1, MAX_PROMPT_WORDS))]
        chance = rng.random()
        num_cuts = rng.randrange(1, MAX_CUTS + 1) if chance < SHARE_CUT + SHARE_VANISH else 0
        cuts = sorted(rng.sample(range(1, settings.max_tokens), num_cuts))
        return Fate(settings, " ".join(words), tuple(cuts), vanishes=chance < SHARE_VANISH)

    async def _live(self, device: Device, fate: Fate, link: Link) -> None:
        gone = asyncio.Event()
        writing = asyncio.create_task(device.generate(fate.prompt, self._trouble(fate, link, gone.set)))
        leaving = asyncio.create_task(gone.wait())
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (leaving, writing):
                task.cancel()  # of a text that is done it changes nothing
            await asyncio.wait((writing,))
        if gone.is_set():
            self.tally.num_vanished += 1
            if not writing.cancelled():
                writing.exception()  # is nobody's concern any more
        else:
            self._note(writing, fate)

    def _note(self, writing: asyncio.Task[Report], fate: Fate) -> None:
        try:
            token_ids = [token.token_id for token in writing.result().tokens]
        except SkydraftError as error:
            self.tally.errors[str(error)] += 1
        else:
            self._compare(token_ids, fate)

    def _trouble(self, fate: Fate, link: Link, vanish: Callable[[], None]) -> Callable[[Sequence[TextPiece]], None]:
        """Counts tokens, and breaks the connection off where it is due."""
        due = list(fate.cuts)
        num_tokens = 0

        def count(pieces: Sequence[TextPiece]) -> None:
            nonlocal num_tokens
            num_tokens += len(tokens_of(pieces))
            while due and num_tokens >= due[0]:
                due.pop(0)
                is_last = fate.vanishes and not due
                link.cut(GONE_S if is_last else self._rng.uniform(0, MAX_REFUSE_S))
                self.tally.num_cuts += 1
                if is_last:
                    vanish()

        return count

    def _compare(self, token_ids: list[int], fate: Fate) -> None:
        settings = fate.settings
        sampling = SamplingParams(
            temperature=settings.temperature,
            seed=settings.seed or 0,
            max_tokens=settings.max_tokens,
            end_ids=self._tokenizer.vocabulary.end_ids,
        )
        prompt = chat_prompts(self._tokenizer, fate.prompt, ShareLevel.TOKENS).cloud
        assert prompt is not None
        self.tally.num_done += 1
        if token_ids != write_alone(self._target, prompt, sampling):
            self.tally.different.append(f"{settings.mode} way {settings.way} seed {settings.seed} cuts {fate.cuts}")
