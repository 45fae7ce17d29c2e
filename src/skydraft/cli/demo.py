"""`skydraft demo`: captions one clip with device and cloud together, and with each alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.align import Align
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import Clip, read_clip
from skydraft.audio.samples import Samples
from skydraft.cli.live_text import LiveText
from skydraft.cli.ready_device import ready_device
from skydraft.cli.results import Result, result_of_clip
from skydraft.cli.screen import Screen
from skydraft.cli.summaries import STYLES, Column, comparison, disclosure, legend
from skydraft.cli.terminal_text import safe_line, seconds
from skydraft.config import DeviceSettings, with_flags
from skydraft.core import Evidence, Origin, ShareLevel
from skydraft.edge.device import Device, draw_seed

WARM_UP_TOKENS = 4
LOUDNESS = "▁▂▃▄▅▆▇█"
WIDTHS = (38, 14, 26)  # of the device, the link and the cloud: 80 columns with the margins
INDENT = 3


class Variant(NamedTuple):
    """One way to caption the clip.

    title, subtitle: its name. description: what happens, for the user.
    """

    title: str
    subtitle: str
    description: str
    settings: DeviceSettings

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.title, self.subtitle)))

    def heading(self, number: int) -> str:
        """The heading of its column: two lines."""
        title = f"{number} {self.title}"
        return f"{title}\n{self.subtitle}" if self.subtitle else "\n".join(title.rsplit(" ", 1))


def run_demo(clip_file: Path | None, settings: DeviceSettings) -> None:
    """Run the demo.

    Raises:
        SkydraftError: the clip cannot be read, a model cannot be loaded, or the cloud does not start.
    """
    clip = read_clip(clip_file or bundled_clips()[0])
    asyncio.run(caption_variants(clip, with_flags(settings, mode="hybrid"), Screen()))


async def caption_variants(clip: Clip, settings: DeviceSettings, screen: Screen) -> None:
    """Caption the clip in each way and compare, whether the models know such voices or not: nobody speaks in ours."""
    settings = with_flags(settings, any_voice=True)
    async with ready_device(settings, screen) as device:
        variants = variants_of(with_seed(device.settings))
        with screen.busy("Warming up ..."):
            await _warm_up(device, clip, variants)
        _show_heading(clip, device.settings, screen)
        results = [await _caption(number, variant, device, clip, screen) for number, variant in enumerate(variants, 1)]
    _show_comparison(variants, results, screen)


def with_seed(settings: DeviceSettings) -> DeviceSettings:
    """Fix the seed, so that all variants can give the same text."""
    return settings if settings.seed is not None else with_flags(settings, seed=draw_seed())


def variants_of(settings: DeviceSettings) -> list[Variant]:
    """The variants that the demo compares: the settings, in mode hybrid, and two or three others.

    Where the settings would leave the cloud unasked, the features may leave when the device is unsure.
    """
    heard = with_flags(settings, share="features")
    exact = with_flags(heard, accept="exact", gate="always", evidence="always")
    cloud = with_flags(heard, mode="cloud", evidence="always")
    if settings.captions_alone:
        settings = with_flags(heard, evidence="unsure")
    is_exact = settings.evidence_leaves is Evidence.ALWAYS and settings.accept in (None, "exact")
    variants = [
        Variant("hybrid", _subtitle(settings), _describe(settings), settings),
        Variant("edge only", "", "the small model by itself", with_flags(settings, mode="edge")),
        Variant("cloud only", "share features", "the large model by itself", cloud),
    ]
    if not is_exact:
        variants.append(
            Variant("hybrid exact", "share features", "drafted, and still the text of the cloud alone", exact)
        )
    return variants


def loudness(samples: Samples, num_columns: int) -> str:
    """Draw the loudness of a clip, one bar for each part of it."""
    parts = np.array_split(samples.astype(np.float64), min(num_columns, len(samples)))
    levels = [float(np.sqrt(np.square(part).mean())) for part in parts]
    loudest, top = max(levels) or 1.0, len(LOUDNESS) - 1
    return "".join(LOUDNESS[round(level / loudest * top)] for level in levels)


def _subtitle(settings: DeviceSettings) -> str:
    is_unsure = settings.evidence_leaves is Evidence.UNSURE
    return "share if unsure" if is_unsure else f"share {settings.share.value}"


def _describe(settings: DeviceSettings) -> str:
    if settings.evidence_leaves is Evidence.UNSURE:
        return "the device writes, the cloud where it is unsure"
    if settings.share is ShareLevel.FEATURES:
        return "the device drafts, the cloud verifies"
    return "the device drafts, the cloud corrects unlikely tokens"


async def _warm_up(device: Device, clip: Clip, variants: Sequence[Variant]) -> None:
    """Run each variant briefly: the first forward pass of a model takes longer than later ones."""
    for variant in variants:
        device.settings = with_flags(variant.settings, max_tokens=WARM_UP_TOKENS)
        await device.caption(clip)


async def _caption(number: int, variant: Variant, device: Device, clip: Clip, screen: Screen) -> Result:
    screen.show(Text.assemble((f" {number} {variant.name}", "bold"), (f"  {variant.description}", "dim")))
    device.settings = variant.settings
    with LiveText(screen, indent=INDENT) as live:
        captioned = await device.caption(clip, live.add, screen.warn, live.next_window)
        result = result_of_clip(captioned)
    screen.show()
    return result


def _show_heading(clip: Clip, settings: DeviceSettings, screen: Screen) -> None:
    link = Align(Text("←── tokens ──→", "dim"), "center", vertical="middle", width=WIDTHS[1], height=4)
    bars = Text(loudness(clip.samples, WIDTHS[0] - 4), STYLES[Origin.EDGE], no_wrap=True)
    name = Text(f"{safe_line(clip.name)}, {seconds(clip.duration_s)}", no_wrap=True, overflow="ellipsis")
    address = Text(safe_line(settings.cloud or ""), no_wrap=True, overflow="ellipsis")
    device = _panel("device", settings.draft, Group(bars, name), WIDTHS[0])
    cloud = _panel("cloud", settings.target, Group(Text("another process"), address), WIDTHS[2])
    heading = Table.grid()
    heading.add_row(device, link, cloud)
    screen.show(Padding(heading, (1, 0, 1, 1)))
    screen.show(Padding(legend(), (0, 0, 1, INDENT)))


def _panel(title: str, model: str, body: Group, width: int) -> Panel:
    heading = Text.assemble((title, "bold"), f" {safe_line(model)}", no_wrap=True, overflow="ellipsis")
    return Panel(body, title=heading, title_align="left", width=width, border_style="dim")


def _show_comparison(variants: Sequence[Variant], results: Sequence[Result], screen: Screen) -> None:
    pairs = zip(variants, results, strict=True)
    columns = [Column(variant.heading(number), result) for number, (variant, result) in enumerate(pairs, 1)]
    screen.show(Padding(comparison(columns), (0, 0, 1, 1)))
    remarks = Table.grid(padding=(0, 1))
    remarks.add_row(Text("1", style="bold"), disclosure(results[0]))
    remarks.add_row(Text("3", style="bold"), disclosure(results[2]))
    if len(results) > 3:  # whether the rule exact gave the cloud's text
        cloud, hybrid = ([piece.token_id for piece in result.pieces] for result in results[2:4])
        sameness = f"The text {'is' if cloud == hybrid else 'is NOT'}, token for token, that of the cloud alone."
        remarks.add_row(Text("4", style="bold"), f"The same data left the device. {sameness}")
    screen.show(Padding(remarks, (0, 0, 1, 1)))
