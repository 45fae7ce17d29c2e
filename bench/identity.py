"""Is the hybrid text the cloud's own? Real speech, the embedded pair, a cloud in a process of its own, real sockets.

Every clip of the unseen actors, --share features --evidence always --accept exact, greedy and at temperature 0.8 with
three seeds: the text of the device and the cloud together, the same with a draft model of random weights, and the same
over a link that is cut at a random moment of every clip, each against the text of the cloud alone.

Claims: the share of texts that are equal, token for token: identical_drafted, identical_random_draft, identical_cut.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from msgspec.structs import replace

from bench.claims import Claim, parse_arguments, show
from skydraft.audio.read import read_clip
from skydraft.config import DeviceSettings
from skydraft.core import Evidence, Mode, ShareLevel
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine, load_tokenizer
from skydraft.engines.log_mel import load_log_mel
from skydraft.engines.settings import EngineSettings
from skydraft.models import embedded_path
from skydraft.text.checkpoint import find_checkpoint
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings

SPEECH = Path(__file__).parents[2] / "shared" / "speech"
UNSEEN_ACTORS = (19, 20)
TEMPERATURES_AND_SEEDS = ((0.0, 0), (0.8, 1), (0.8, 2), (0.8, 3))
LAST_BYTES = 1500  # what passes after the features: half of the cuts fall there


@dataclass
class Tally:
    """How many texts were compared, and which differ."""

    num_texts: int = 0
    num_reconnects: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def share_equal(self) -> float:
        return 1 - len(self.different) / self.num_texts


class Bench:
    """Devices with different drafts, one cloud, and a link to it."""

    def __init__(self, link: Link, drafts: dict[str, Engine], rng: Random) -> None:
        self.tallies = {name: Tally() for name in (*drafts, "cut")}
        self._link = link
        self._drafts = drafts
        self._rng = rng
        self._tokenizer = load_tokenizer("embedded", "draft")
        self._hear = load_log_mel(find_checkpoint("embedded", "draft"))

    async def compare(self, path: Path, temperature: float, seed: int) -> None:
        """Write one clip's caption in every way."""
        settings = DeviceSettings(
            cloud=str(self._link.address),
            share=ShareLevel.FEATURES,
            evidence=Evidence.ALWAYS,
            accept="exact",
            temperature=temperature,
            seed=seed,
        )
        before = sum(self._link.carried[:2])
        truth, _ = await self._write(path, replace(settings, mode=Mode.CLOUD), None)
        num_bytes = sum(self._link.carried[:2]) - before
        for name, engine in self._drafts.items():
            self._note(name, path, settings, truth, await self._write(path, settings, engine))
        self._link.apply(LinkSettings(cut_after_bytes=self._moment(num_bytes)))
        engine = next(iter(self._drafts.values()))
        self._note("cut", path, settings, truth, await self._write(path, settings, engine))
        self._link.apply(LinkSettings())

    def _moment(self, num_bytes: int) -> int:
        first = 0 if self._rng.random() < 0.5 else max(0, num_bytes - LAST_BYTES)
        return self._rng.randint(first, num_bytes)

    async def _write(self, path: Path, settings: DeviceSettings, engine: Engine | None) -> tuple[list[int], int]:
        with Device(settings, engine, self._tokenizer, self._hear) as device:
            (window,) = await device.caption(read_clip(path))
        return [token.token_id for token in window.report.tokens], window.report.reconnects

    def _note(
        self, name: str, path: Path, settings: DeviceSettings, truth: list[int], written: tuple[list[int], int]
    ) -> None:
        tally = self.tallies[name]
        tally.num_texts += 1
        tally.num_reconnects += written[1]
        if written[0] != truth:
            tally.different.append(f"{path.name} at temperature {settings.temperature} with seed {settings.seed}")


@asynccontextmanager
async def open_bench(seed: int = 0) -> AsyncIterator[Bench]:
    """Start the cloud and the link, load the drafts."""
    one_thread = EngineSettings(num_threads=1)  # the cloud and the device share two cores
    async with (
        local_cloud("embedded", "--threads", "1") as url,
        Link(Address.parse(url.removeprefix("ws://"))) as link,
    ):
        with tempfile.TemporaryDirectory() as folder:
            drafts = {
                "drafted": load_engine("embedded", "draft", one_thread),
                "random_draft": load_engine(str(_random_draft(Path(folder))), "draft", one_thread),
            }
        yield Bench(link, drafts, Random(seed))


def _random_draft(folder: Path) -> Path:
    """A model like the embedded draft, with random weights."""
    import torch
    from transformers import AutoConfig, Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(0)
    source = embedded_path("draft")
    Qwen2_5OmniThinkerForConditionalGeneration(AutoConfig.from_pretrained(source)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


def unseen_clips(speech: Path = SPEECH) -> list[Path]:
    """The clips of the actors that the embedded pair has never heard."""
    rows = [json.loads(line) for line in (speech / "labels.jsonl").read_text().splitlines()]
    return [speech / row["file"] for row in rows if row["actor"] in UNSEEN_ACTORS]


async def _run(clips: Sequence[Path]) -> Iterable[Claim]:
    async with open_bench() as bench:
        for clip in clips:
            for temperature, seed in TEMPERATURES_AND_SEEDS:
                await bench.compare(clip, temperature, seed)
    return [
        Claim(f"identical_{name}", tally.share_equal, "of texts", tally.num_texts)
        for name, tally in bench.tallies.items()
    ] + [Claim("reconnects", bench.tallies["cut"].num_reconnects, "times", bench.tallies["cut"].num_texts)]


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    if not SPEECH.is_dir():
        raise SystemExit(f"bench.identity needs the recordings in {SPEECH}; see README.md for where they are from")
    clips = unseen_clips()
    show(asyncio.run(_run(clips[::40] if arguments.quick else clips)), arguments.json)


if __name__ == "__main__":
    main()
