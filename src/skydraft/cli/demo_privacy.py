"""The second act of the demo: captions written on the device, which asks the cloud only where it is unsure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace
from rich.text import Text

from skydraft.audio.read import Clip
from skydraft.cli.live_text import LiveText
from skydraft.cli.results import Result, result_of_clip
from skydraft.cli.screen import Screen
from skydraft.cli.terminal_text import safe_line, seconds
from skydraft.core import Mode, Origin
from skydraft.edge.device import Device

WAY = "wait:8"  # the device drafts blocks and has each judged, so that what is corrected is seen
INDENT = 2


async def privacy_act(device: Device, cloud: str, clips: Sequence[Clip], any_voice: bool, screen: Screen) -> None:
    """Caption each clip, and say what left the device for it."""
    device.settings = replace(device.settings, any_voice=any_voice)
    for number, clip in enumerate(clips, 1):
        name = f"voice {number}, {seconds(clip.duration_s)}" if len(clips) > 1 else safe_line(clip.name)
        device.settings = replace(device.settings, cloud=cloud, mode=Mode.EDGE, way=WAY)
        with screen.busy(f"Listening to {name} ..."):
            unaided = result_of_clip(await device.caption(clip))
        device.settings = replace(device.settings, mode=Mode.HYBRID)
        with LiveText(screen, f"{name}: ", indent=INDENT) as live:
            result = result_of_clip(await device.caption(clip, live.add, screen.warn, live.next_window))
        screen.show(Text(f"{' ' * INDENT}{what_left(result, unaided)}", "bold"))


def what_left(result: Result, unaided: Result) -> str:
    """Say what left the device for a caption, and why.

    Args:
        unaided: what the device says of the clip by itself.
    """
    num_bytes = result.up.total()
    if not num_bytes:
        return "The device was sure. 0 bytes left; the voice did not."
    if not result.shared_evidence:
        return f"{num_bytes:,} bytes left; the voice did not."
    return f"Unsure{_correction(result, unaided)}. {num_bytes:,} bytes left: features of the voice."


def _correction(result: Result, unaided: Result) -> str:
    """The first word that the cloud corrected, with the device's own."""
    for index, piece in enumerate(result.pieces[: len(unaided.pieces)]):
        own = unaided.pieces[index]
        if piece.origin is Origin.CORRECTED and own.token_id != piece.token_id:
            return f' of "{own.text.strip()}"; the cloud: "{piece.text.strip()}"'
        if own.token_id != piece.token_id:
            break
    return ", and the cloud agrees"
