import numpy as np

from skydraft.cli.demo import LOUDNESS, loudness, plan, seeded
from skydraft.config import DeviceSettings
from skydraft.core import Mode, ShareLevel


def test_the_demo_compares_four_ways():
    hybrid, edge, cloud, exact = (act.settings for act in plan(DeviceSettings()))
    assert hybrid == DeviceSettings()
    assert edge.mode is Mode.EDGE
    assert (cloud.mode, cloud.share) == (Mode.CLOUD, ShareLevel.FEATURES)
    assert (exact.mode, exact.share, exact.accept) == (Mode.HYBRID, ShareLevel.FEATURES, "exact")


def test_the_exact_way_judges_every_block_whatever_the_settings_file_says():
    assert plan(DeviceSettings(gate="entropy"))[3].settings.gate == "always"


def test_the_first_way_is_as_asked():
    asked = DeviceSettings(share=ShareLevel.FEATURES, accept="rank:5")
    assert plan(asked)[0].settings == asked
    assert plan(asked)[0].heading(1) == "1 hybrid\nshare features"


def test_the_exact_way_is_not_shown_twice():
    asked = DeviceSettings(share=ShareLevel.FEATURES, accept="exact")
    assert len(plan(asked)) == len(plan(DeviceSettings(share=ShareLevel.FEATURES))) == 3


def test_every_heading_has_two_lines():
    assert [act.heading(n).count("\n") for n, act in enumerate(plan(DeviceSettings()), 1)] == [1, 1, 1, 1]


def test_loudness_is_a_bar_for_each_stretch():
    samples = np.concatenate([np.zeros(100), np.full(100, 0.5), np.ones(100)]).astype(np.float32)
    bars = loudness(samples, 6)
    assert bars == LOUDNESS[0] * 2 + LOUDNESS[4] * 2 + LOUDNESS[-1] * 2


def test_loudness_of_a_clip_shorter_than_the_line():
    assert len(loudness(np.ones(3, np.float32), 30)) == 3
    assert loudness(np.zeros(30, np.float32), 3) == LOUDNESS[0] * 3


def test_all_ways_of_the_demo_write_with_one_seed():
    settings = seeded(DeviceSettings(temperature=1.0))
    assert settings.seed is not None
    assert {act.settings.seed for act in plan(settings)} == {settings.seed}
    assert seeded(DeviceSettings(seed=3)).seed == 3
