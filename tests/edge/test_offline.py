"""What a device does by itself: private prompts stay on it, and where nobody can write it answers what it knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from skydraft.config import CloudSettings, DeviceSettings
from skydraft.core import Mode, Origin, ShareLevel, TextPiece, Token
from skydraft.edge.device import Device
from skydraft.edge.review import stretches
from skydraft.engines.emulated.paced import Pace
from skydraft.errors import ConfigError, DisclosureError, TransportError
from tests.cloud.running import running
from tests.linked import table
from tests.virtual_cloud import in_pace, virtual_cloud
from tests.virtual_time import in_virtual_time

TARGET = "table:vocab=64,seed=5,order=2"
DRAFT = "table:vocab=64,seed=5,order=2,noise=1"
NOBODY = "ws://127.0.0.1:9"
PRIVATE = "ba de ana@mail.example"


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with running(CloudSettings(port=0), lambda: table(TARGET)) as cloud:
        yield cloud.address


def settings(**changes: Any) -> DeviceSettings:
    return DeviceSettings(**{"draft": DRAFT, "max_tokens": 20, **changes})


async def test_a_private_prompt_stays_on_the_device_which_says_why(cloud: str) -> None:
    said: list[str] = []
    with Device.load(settings(cloud=cloud, keep_home=True)) as device:
        home = await device.generate(PRIVATE, notify=said.append)
        away = await device.generate("ba de", notify=said.append)
    (sentence,) = said
    assert sentence.startswith("the prompt has something private in it (an e-mail address) and is not sent")
    assert {token.origin for token in home.tokens} == {Origin.EDGE}
    assert not home.disclosure.up
    assert away.disclosure.up["prompt"]
    with Device.load(settings(mode=Mode.EDGE, share=ShareLevel.NONE)) as device:
        assert (await device.generate(PRIVATE)).text == home.text


@pytest.mark.parametrize(
    ("given", "share", "stays"),
    [
        ({"context": PRIVATE}, ShareLevel.FEATURES, True),
        ({"context": PRIVATE}, ShareLevel.TOKENS, False),  # it stays anyway
        ({"prediction": PRIVATE}, ShareLevel.TOKENS, True),
        ({}, ShareLevel.TOKENS, False),
    ],
)
async def test_whatever_would_leave_is_looked_through(
    cloud: str, given: dict[str, Any], share: ShareLevel, stays: bool
) -> None:
    with Device.load(settings(cloud=cloud, keep_home=True, share=share)) as device:
        report = await device.generate("ba de", **given)
    assert (not report.disclosure.up) is stays


async def test_stop_strings_and_calls_of_tools_are_looked_through_too(cloud: str) -> None:
    call = {"function": {"name": "send", "arguments": {"to": [PRIVATE]}}}
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "ba de"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    with Device.load(settings(cloud=cloud, keep_home=True)) as device:
        assert not (await device.chat(talk)).disclosure.up
        assert (await device.chat(talk[:1])).disclosure.up
        stopped = settings(cloud=device.settings.cloud, keep_home=True, stop=(PRIVATE,))
        assert not (await device.generate("ba de", settings=stopped)).disclosure.up


async def test_a_users_own_patterns_count_and_a_device_without_a_model_refuses(cloud: str) -> None:
    own = settings(cloud=cloud, keep_home=True, private_patterns=("ba",))
    with Device(own, None, Device.load(own).tokenizer) as device, pytest.raises(DisclosureError, match="'ba' finds"):
        await device.generate("ba de")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"private_patterns": ("(",)}, "private pattern .* is no regular expression"),
        ({"keep_home": True, "draft": "lookup"}, "keep_home true the device is to write by itself"),
        ({"keep_home": True, "strict": True}, "offline wait and keep_home the device may write alone"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(**changes)


async def test_a_question_that_was_answered_before_is_answered_again_where_nobody_can_write(
    cloud: str, tmp_path: Path
) -> None:
    kept = settings(cloud=cloud, draft=f"lookup:{DRAFT}", history=str(tmp_path / "texts"), offline="fail")
    with Device.load(kept) as device:
        before = await device.generate("ba de")
    said: list[str] = []
    shown: list[TextPiece] = []
    lost = replace(kept, cloud=NOBODY, share=ShareLevel.FEATURES)
    with Device.load(lost) as device:
        again = await device.generate("  BA de", shown.extend, said.append)
        with pytest.raises(TransportError):
            await device.generate("ba fi")
        with pytest.raises(TransportError):  # it may have been about something else
            await device.generate("ba de", context="la")
    assert (again.text, again.is_repeated, again.is_cloud_text) == (before.text, True, False)
    assert tuple(shown) == again.pieces
    assert not again.disclosure.up
    (sentence,) = said
    assert sentence.endswith("this is how the same question was answered before")


def test_a_text_that_was_written_before_is_drafted_whole(tmp_path: Path) -> None:
    @in_virtual_time
    async def write_twice() -> None:
        async with virtual_cloud(in_pace(table(TARGET), Pace(step_ms=30))) as url:
            kept = settings(cloud=url, draft=f"lookup:{DRAFT}", history=str(tmp_path / "texts"), max_tokens=60)
            with Device.load(kept) as device:
                first, second = [await device.generate("ba de") for _ in range(2)]
        assert second.text == first.text
        assert second.num_by_origin[Origin.ACCEPTED] > 40
        assert second.total_s < first.total_s / 3

    write_twice()
    assert len((tmp_path / "texts").read_text().splitlines()) == 2


async def test_what_no_cloud_was_told_is_not_kept(cloud: str, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    for changes in (
        {"mode": Mode.EDGE, "share": ShareLevel.NONE},
        {"cloud": cloud, "keep_home": True},
    ):
        with Device.load(settings(history=str(path), **changes)) as device:
            await device.generate(PRIVATE)
    with Device.load(settings(cloud=cloud, history=str(path))) as device:
        await device.generate("ba de", context="la")
    assert not path.exists()


async def test_a_review_says_what_the_cloud_would_have_written_and_changes_nothing(cloud: str) -> None:
    with Device.load(settings(cloud=NOBODY, offline="edge", temperature=0.8, seed=3)) as device:
        alone = await device.generate("ba de")
    with Device.load(settings(cloud=cloud, temperature=0.8, seed=3)) as device:
        together = await device.generate("ba de")
        (review,) = await device.review("ba de", alone)
        assert await device.review("ba de", together) == []
    assert (review.start, review.end, review.text) == (0, 20, alone.text)
    assert review.cloud_text == together.text != alone.text
    assert not review.is_same
    agreed = [a.token_id == b.token_id for a, b in zip(alone.tokens, together.tokens, strict=True)]
    assert review.num_agreed == agreed.index(False)
    with (
        Device.load(settings(mode=Mode.EDGE, share=ShareLevel.NONE)) as device,
        pytest.raises(ConfigError, match="no cloud may be asked"),
    ):
        await device.review("ba de", alone)


def test_stretches_are_where_the_device_wrote_alone() -> None:
    def tokens(origins: str) -> Sequence[Token]:
        kinds = {"e": Origin.EDGE, "c": Origin.CLOUD, "a": Origin.ACCEPTED}
        return [Token(1, kinds[letter]) for letter in origins]

    assert list(stretches(tokens("ccaeeaaec"))) == [(3, 5), (7, 8)]
    assert list(stretches(tokens("ee"))) == [(0, 2)]
    assert list(stretches(tokens(""))) == []
