"""Texts of a conversation over one connection, against a cloud in a thread of this process and through a real link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
import pytest_asyncio
from msgspec.structs import replace

from skydraft.config import CloudSettings, DeviceSettings
from skydraft.edge.device import Device
from skydraft.engines.base import EngineLimits
from skydraft.engines.emulated.table_spec import load_table
from skydraft.errors import CloudFault
from skydraft.transport.link.link import Link
from skydraft.transport.link.pipe import Address
from tests.cloud.running import running
from tests.gateway.running import DRAFT, TARGET, truth
from tests.waiting import until

LIMITS = EngineLimits(8, 200)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Address]:
    with running(CloudSettings(port=0), partial(load_table, TARGET, LIMITS)) as cloud:
        yield Address("127.0.0.1", int(cloud.address.rpartition(":")[2]))


@pytest_asyncio.fixture
async def link(upstream: Address) -> AsyncIterator[Link]:
    async with Link(upstream) as link:
        yield link


@pytest.fixture
def device(link: Link) -> Iterator[Device]:
    settings = DeviceSettings(draft=DRAFT, cloud=f"ws://{link.address}", max_tokens=30, offline="fail")
    with Device.load(settings) as device:
        device.keep_connection()
        yield device


async def text(device: Device, prompt: str) -> str:
    return (await device.generate(prompt)).text


def expected(prompt: str) -> str:
    return truth(prompt, max_tokens=30)


async def test_texts_of_a_conversation_share_a_connection(device: Device, link: Link) -> None:
    for prompt in ("ba", "de mo", "ku"):
        assert await text(device, prompt) == expected(prompt)
    assert link.carried.num_connections == 1


async def test_texts_at_the_same_time_have_connections_of_their_own(device: Device, link: Link) -> None:
    assert list(await asyncio.gather(text(device, "ba"), text(device, "de"))) == [expected("ba"), expected("de")]
    assert link.carried.num_connections == 2
    assert await text(device, "ku") == expected("ku")
    assert link.carried.num_connections == 2


async def test_a_text_that_is_broken_off_leaves_the_connection_to_the_next(device: Device, link: Link) -> None:
    """What the cloud still says of the first is none of the second."""
    endless = replace(device.settings, max_tokens=150, temperature=0.1, seed=1)
    for _ in range(5):
        shown: list[object] = []
        writing = asyncio.create_task(device.generate("ba", shown.extend, settings=endless))
        await until(lambda shown=shown: shown)  # type: ignore[misc]
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert await text(device, "de") == expected("de")
    assert link.carried.num_connections == 1


async def test_a_kept_connection_that_has_ended_is_made_again_without_a_word(device: Device, link: Link) -> None:
    said: list[str] = []
    assert await text(device, "ba") == expected("ba")
    link.cut()
    report = await device.generate("de", notify=said.append)  # at once: the device need not know of the end yet
    assert (report.text, report.reconnects, said) == (expected("de"), 0, [])
    link.cut()
    kept = device._kept
    assert kept is not None
    await until(lambda: kept._kept is None or not kept._kept[1].is_open)
    assert await text(device, "ku") == expected("ku")
    assert link.carried.num_connections == 3


async def test_another_cloud_has_another_connection(device: Device, link: Link, upstream: Address) -> None:
    assert await text(device, "ba") == expected("ba")
    elsewhere = replace(device.settings, cloud=f"ws://{upstream}")
    assert (await device.generate("ba", settings=elsewhere)).text == expected("ba")
    assert await text(device, "ba") == expected("ba")
    assert link.carried.num_connections == 2


async def test_a_connection_over_which_a_fault_came_is_not_kept(device: Device, link: Link) -> None:
    assert await text(device, "ba") == expected("ba")
    with pytest.raises(CloudFault):
        await text(device, "ba " * 300)
    assert await text(device, "ba") == expected("ba")
    assert link.carried.num_connections == 2


async def test_a_device_that_pads_connects_for_each_text(device: Device, link: Link) -> None:
    device.settings = replace(device.settings, pad=True, max_tokens=4)
    for _ in range(2):
        await text(device, "ba")
    assert link.carried.num_connections == 2
