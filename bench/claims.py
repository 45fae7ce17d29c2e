"""How a bench says what it measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Claim(NamedTuple):
    """One number. n: how many measurements are behind it."""

    claim: str
    value: float
    unit: str
    n: int


def parse_arguments(description: str) -> argparse.Namespace:
    """Of a bench without flags of its own."""
    return argument_parser(description).parse_args()


def argument_parser(description: str) -> argparse.ArgumentParser:
    """--quick: within a minute. --json: one object a claim."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="measure less, within a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim")
    return parser


def show(claims: Iterable[Claim], as_json: bool) -> None:
    """Print claims, for a program or for a person."""
    if not as_json:
        print(f"# {machine()}")
    for claim in claims:
        if as_json:
            print(json.dumps(claim._asdict()))
        else:
            print(f"{claim.claim:24} {claim.value:10.4g} {claim.unit:14} n={claim.n}")


def write_results(path: Path, module: str, content: dict[str, Any]) -> None:
    """Keep what a bench measured, with the command and the machine."""
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"command": command, "machine": machine(), **content}, indent=1) + "\n")


def machine() -> str:
    """What the numbers come from."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def pin(core: int) -> None:
    """Keep this process to one core, where the system lets it and has that core."""
    if hasattr(os, "sched_setaffinity") and core < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {core})
