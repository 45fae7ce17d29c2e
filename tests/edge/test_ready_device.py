from __future__ import annotations

from itertools import pairwise

import pytest

from skydraft.cli.ready_device import ready_device
from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings
from skydraft.core import Mode, Objective, ShareLevel
from skydraft.edge.ready_device import _cloud_arguments, _sharing_cores, starts_cloud
from skydraft.engines.settings import num_cores
from skydraft.errors import TransportError
from tests.cli.made_up import console


@pytest.mark.parametrize(
    ("settings", "is_started"),
    [
        (DeviceSettings(), True),
        (DeviceSettings(mode=Mode.AUTO), True),
        (DeviceSettings(cloud="ws://127.0.0.1:8471"), False),
        (DeviceSettings(mode=Mode.EDGE), False),
        (DeviceSettings(mode=Mode.AUTO, share=ShareLevel.NONE), False),
        (DeviceSettings(mode=Mode.AUTO, objective=Objective.PRIVACY), False),
    ],
)
def test_a_cloud_is_started_where_one_is_needed_and_none_is_named(settings: DeviceSettings, is_started: bool) -> None:
    assert starts_cloud(settings) == is_started


async def test_a_device_that_needs_no_cloud_starts_none_and_knocks_at_none() -> None:
    model = "table:vocab=64"
    nowhere = DeviceSettings(cloud="ws://127.0.0.1:9", draft=model, target="table:vocab=8", mode=Mode.AUTO)
    screen = Screen(console(), console())
    async with ready_device(nowhere, screen, is_alone=True) as device:
        assert device.settings == nowhere
    with pytest.raises(TransportError):
        async with ready_device(nowhere, screen):
            pass


def test_a_cloud_that_is_started_holds_texts_as_long_as_the_device_does() -> None:
    arguments = _cloud_arguments(DeviceSettings(max_length=600))
    assert dict(pairwise(arguments)).items() >= {"--slots": "4", "--max-length": "600"}.items()
    assert "--max-length" not in _cloud_arguments(DeviceSettings())


def test_device_and_a_cloud_on_the_same_machine_share_its_cores() -> None:
    assert _sharing_cores(DeviceSettings()).num_threads == max(1, num_cores() // 2)
    assert _sharing_cores(DeviceSettings(num_threads=7)).num_threads == 7
