"""Makes docs/pictures/demo.svg, the picture of `skydraft demo` in the README: make pictures"""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

from rich.console import Console

from skydraft.audio.clips import bundled_clips
from skydraft.audio.read import read_clip
from skydraft.cli.demo import caption_variants
from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings

COLUMNS = 80
PICTURE = Path(__file__).with_name("demo.svg")


def main() -> None:
    """Perform the demo on a console that is recorded."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, color_system="truecolor")
    asyncio.run(caption_variants(read_clip(bundled_clips()[0]), DeviceSettings(), Screen(console)))
    picture = console.export_svg(title="skydraft demo")
    alone = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # nothing is loaded from elsewhere
    PICTURE.write_text(alone, encoding="utf-8")


if __name__ == "__main__":
    main()
