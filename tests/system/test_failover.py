"""A cloud that dies and one that has fewer slots than devices: texts stay the cloud's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from skydraft.config import DeviceSettings
from skydraft.core import Mode, tokens_of
from skydraft.edge.device import Device
from skydraft.edge.report import Report
from tests.system.processes import free_port, running_cloud
from tests.waiting import PATIENCE_S, until

TARGET = "table:vocab=64,seed=3,order=2"
DRAFT = f"{TARGET},noise=0.8"
SLOW = "paced:step_ms=20:"
NUM_TOKENS = 300  # six seconds at the pace of the cloud that dies
NUM_BEFORE = 6  # tokens that each device has when the cloud dies
MODES = (Mode.HYBRID, Mode.CLOUD) * 4


def settings(number: int, cloud: str) -> DeviceSettings:
    return DeviceSettings(
        draft=DRAFT,
        cloud=cloud,
        mode=MODES[number],
        max_tokens=NUM_TOKENS,
        temperature=1.0,
        seed=number,
        offline="wait",
        offline_wait_s=PATIENCE_S,
    )


async def write(settings: DeviceSettings, on_tokens: Callable[[int], None] = lambda _: None) -> Report:
    with Device.load(settings) as device:
        return await device.generate("ba de fi", lambda pieces: on_tokens(len(tokens_of(pieces))))


def ids(report: Report) -> list[int]:
    return [token.token_id for token in report.tokens]


async def truths(cloud: str) -> list[list[int]]:
    """What the cloud writes alone for each device."""
    alone = [replace(settings(number, cloud), mode=Mode.CLOUD) for number in range(len(MODES))]
    return [ids(await write(one)) for one in alone]


async def test_every_device_finishes_its_text_with_another_cloud_when_its_own_is_killed() -> None:
    port, num_tokens = free_port(), [0] * len(MODES)
    devices = []
    with running_cloud(SLOW + TARGET, port) as (process, _):
        for number in range(len(MODES)):

            def count(num_new: int, number: int = number) -> None:
                num_tokens[number] += num_new

            devices.append(asyncio.create_task(write(settings(number, f"127.0.0.1:{port}"), count)))
        await until(lambda: min(num_tokens) >= NUM_BEFORE or any(device.done() for device in devices))
        process.kill()
        process.wait()
        assert max(num_tokens) < NUM_TOKENS
    with running_cloud(TARGET, port) as (_, address):  # it knows nothing of what the other did
        async with asyncio.timeout(PATIENCE_S):
            reports = await asyncio.gather(*devices)
        assert [ids(report) for report in reports] == await truths(address)
    assert [report.is_alone for report in reports] == [False] * len(MODES)
    assert min(report.reconnects for report in reports) >= 1


async def test_devices_that_share_a_slot_notice_nothing_but_time() -> None:
    with running_cloud(TARGET, 0, "--slots", "1") as (_, address):
        reports = await asyncio.gather(*(write(settings(number, address)) for number in range(len(MODES))))
        assert [ids(report) for report in reports] == await truths(address)
    assert [report.reconnects for report in reports] == [0] * len(MODES)
