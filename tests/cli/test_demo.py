import numpy as np

from skydraft.cli.demo import LOUDNESS, loudness, variants_of, with_seed
from skydraft.config import DeviceSettings, with_flags
from skydraft.core import Evidence, Mode, ShareLevel


def test_the_demo_compares_four_ways() -> None:
    hybrid, edge, cloud, exact = (variant.settings for variant in variants_of(DeviceSettings()))
    assert hybrid == DeviceSettings(share=ShareLevel.FEATURES, evidence=Evidence.UNSURE)
    assert edge.mode is Mode.EDGE
    assert (cloud.mode, cloud.share) == (Mode.CLOUD, ShareLevel.FEATURES)
    assert (exact.mode, exact.share, exact.accept) == (Mode.HYBRID, ShareLevel.FEATURES, "exact")
    assert cloud.evidence is exact.evidence is Evidence.ALWAYS


def test_the_exact_way_judges_every_block_whatever_the_settings_file_says() -> None:
    assert variants_of(DeviceSettings(gate="entropy"))[3].settings.gate == "always"


def test_the_first_way_is_as_asked() -> None:
    for asked, heading in (
        (DeviceSettings(share=ShareLevel.FEATURES, accept="rank:5"), "share if unsure"),
        (DeviceSettings(share=ShareLevel.FEATURES, gate="always", accept="rank:5"), "share features"),
        (DeviceSettings(accept="rank:5"), "share tokens"),
    ):
        assert variants_of(asked)[0].settings == asked
        assert variants_of(asked)[0].heading(1) == f"1 hybrid\n{heading}"


def test_the_exact_way_is_not_shown_twice() -> None:
    asked = DeviceSettings(share=ShareLevel.FEATURES, evidence=Evidence.ALWAYS)
    assert len(variants_of(asked)) == len(variants_of(with_flags(asked, accept="exact", gate="always"))) == 3
    assert len(variants_of(with_flags(asked, accept="rank:5"))) == 4


def test_every_heading_has_two_lines() -> None:
    for number, variant in enumerate(variants_of(DeviceSettings()), 1):
        assert variant.heading(number).count("\n") == 1


def test_loudness_is_a_bar_for_each_stretch() -> None:
    samples = np.concatenate([np.zeros(100), np.full(100, 0.5), np.ones(100)]).astype(np.float32)
    bars = loudness(samples, 6)
    assert bars == LOUDNESS[0] * 2 + LOUDNESS[4] * 2 + LOUDNESS[-1] * 2


def test_loudness_of_a_clip_shorter_than_the_line() -> None:
    assert len(loudness(np.ones(3, np.float32), 30)) == 3
    assert loudness(np.zeros(30, np.float32), 3) == LOUDNESS[0] * 3


def test_all_ways_of_the_demo_write_with_one_seed() -> None:
    settings = with_seed(DeviceSettings(temperature=1.0))
    assert settings.seed is not None
    assert {variant.settings.seed for variant in variants_of(settings)} == {settings.seed}
    assert with_seed(DeviceSettings(seed=3)).seed == 3
