"""`skydraft demo`: two acts, live: what drafting does to speed, and what a caption makes leave the device."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import Clip, read_clip
from skydraft.cli.demo_privacy import privacy_act
from skydraft.cli.demo_speed import speed_act
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import legend
from skydraft.config import DeviceSettings
from skydraft.core import ShareLevel
from skydraft.edge.device import Device
from skydraft.edge.local_cloud import local_cloud
from skydraft.text.checkpoint import EMBEDDED, STORIES
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from skydraft.transport.link.shaping import LinkSettings, PathSettings

CLIPS = ("sad", "happy")  # of one the device is sure, of the other it is not
NEXT = (
    ("chat --draft stories --target stories", "type: Once upon a time,"),
    ("serve --draft stories --target stories", "a page"),
    ("demo --round-trip 200", "over a far link"),
)


class Stage(NamedTuple):
    """What is emulated. round_trip_ms: of the link. step_ms: in which the cloud writes a token."""

    round_trip_ms: int = 50
    step_ms: int = 40


def run_demo(clip_file: Path | None, stage: Stage) -> None:
    """Play both acts.

    Raises:
        SkydraftError: the clip cannot be read, or a cloud does not start.
    """
    bundled = {path.stem: path for path in bundled_clips()}
    clips = [read_clip(clip_file)] if clip_file else [read_clip(bundled[name]) for name in CLIPS]
    asyncio.run(play(clips, clip_file is None, stage, Screen()))


async def play(clips: list[Clip], any_voice: bool, stage: Stage, screen: Screen) -> None:
    """Both acts, and what to try next.

    Args:
        any_voice: whether the models know such voices or not: nobody speaks in the clips that come with skydraft.
    """
    screen.show(legend())
    screen.show(Text.assemble(("1 Speed", "bold"), f"  {_where(stage)}"))
    async with playing(STORIES, 2, stage, screen) as (device, clouds):
        await speed_act(device, clouds, screen)
    screen.show()
    screen.show(Text.assemble(("2 Privacy", "bold"), "  the same link and cloud; a voice is captioned on this device"))
    async with playing(EMBEDDED, 1, stage, screen) as (device, clouds):
        await privacy_act(device, clouds[0], clips, any_voice, screen)
    screen.show()
    following = Table.grid(padding=(0, 2, 0, 0))
    for command, what in NEXT:
        following.add_row(Text(f"{program()} {command}", "bold"), Text(what, "dim"))
    screen.show(following)


@asynccontextmanager
async def playing(model: str, num_clouds: int, stage: Stage, screen: Screen) -> AsyncIterator[tuple[Device, list[str]]]:
    """A device, and clouds with the pace of a large model at the far end of a link; their addresses here."""
    target = f"paced:step_ms={stage.step_ms}:{model}"
    settings = DeviceSettings(draft=model, share=ShareLevel.FEATURES, num_threads=1)
    async with AsyncExitStack() as stack:
        with screen.busy("Starting the device and a cloud ..."):
            starting = [
                asyncio.create_task(
                    stack.enter_async_context(local_cloud(target, "--slots", "1", "--threads", "1", "--no-self-test"))
                )
                for _ in range(num_clouds)
            ]
            device = await asyncio.to_thread(Device.load, settings)
            clouds = await asyncio.gather(*starting)
            links = [await stack.enter_async_context(_link_to(cloud, stage)) for cloud in clouds]
        yield stack.enter_context(device), [f"ws://{link.address}" for link in links]


def _link_to(cloud: str, stage: Stage) -> Link:
    url, path = urlsplit(cloud), PathSettings(delay_ms=stage.round_trip_ms / 2)
    return Link(Address(url.hostname or "", url.port or 0), LinkSettings(up=path, down=path))


def program() -> str:
    """What starts skydraft from this shell, as one would type it."""
    typed, known = Path(sys.argv[0]), shutil.which("skydraft")
    if typed.stem != "skydraft":
        return f"{sys.executable} -m skydraft"
    if known and typed.resolve() == Path(known).resolve():
        return "skydraft"
    return str(typed.relative_to(Path.cwd())) if typed.is_relative_to(Path.cwd()) else str(typed)


def _where(stage: Stage) -> str:
    """What is emulated, in words."""
    return f"a cloud that takes {stage.step_ms} ms a token, over a link of {stage.round_trip_ms} ms (both emulated)"
