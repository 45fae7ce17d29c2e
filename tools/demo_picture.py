"""Makes docs/pictures/demo.svg, the picture of `skydraft demo` in the README: make pictures

It is what a terminal of 80 columns and 24 lines shows when the demo has ended.
"""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

from rich.console import Console

from tools.recorded_terminal import COLUMNS, RecordedTerminal

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "demo.svg"


def main() -> None:
    terminal = RecordedTerminal()
    commands = Path(sys.executable).parent
    terminal.run([str(commands / "skydraft"), "demo"], PATH=f"{commands}{os.pathsep}{os.environ['PATH']}")
    PICTURE.write_text(picture_of(terminal), encoding="utf-8")


def picture_of(terminal: RecordedTerminal) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, color_system="truecolor")
    for line in terminal.lines():
        console.print(line, soft_wrap=True)
    picture = console.export_svg(title="skydraft demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # nothing is loaded from elsewhere


if __name__ == "__main__":
    main()
