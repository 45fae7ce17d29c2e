from __future__ import annotations

import pytest

from skydraft.cli.stage import _starts_cloud
from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel


@pytest.mark.parametrize(
    ("settings", "is_started"),
    [
        (DeviceSettings(), True),
        (DeviceSettings(mode=Mode.AUTO), True),
        (DeviceSettings(cloud="ws://127.0.0.1:8471"), False),
        (DeviceSettings(mode=Mode.EDGE), False),
        (DeviceSettings(mode=Mode.AUTO, share=ShareLevel.NONE), False),
    ],
)
def test_a_cloud_is_started_where_one_is_needed_and_none_is_named(settings: DeviceSettings, is_started: bool) -> None:
    assert _starts_cloud(settings) == is_started
