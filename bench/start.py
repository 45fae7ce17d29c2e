"""What it takes until a first caption with the embedded pair: time of the processor, and room on the disk.

    python -m bench.start          also into bench/results/start.json

Claims:
    start_cpu_s: of `skydraft caption --mode edge` with a clip of 3 s, in a process of its own, from its start to its
        end: user and system time, median; aim at most 1.5. Bytecode lies in files, as after a first start.
    start_with_cloud_cpu_s: of the same with `--share features --evidence always`, the cloud that it starts included.
    installed_mb: files of skydraft and of all that its plain dependencies bring; bytecode, which is written where
        something is first used, is left out; aim below 150.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

import skydraft
from bench.claims import RESULTS, Claim, parse_arguments, pin, show, write_results
from skydraft.audio.clips import bundled_clips

NUM_STARTS = 9
WAYS = {"start_cpu_s": ("--mode", "edge"), "start_with_cloud_cpu_s": ("--share", "features", "--evidence", "always")}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    pin(0)
    num_starts = 3 if arguments.quick else NUM_STARTS
    claims = [
        Claim(name, statistics.median([cpu_s(*flags) for _ in range(1 + num_starts)][1:]), "s of CPU", num_starts)
        for name, flags in WAYS.items()
    ]
    packages = sorted(brought_by("skydraft"))
    claims.append(Claim("installed_mb", sum(map(installed_bytes, packages)) / 1e6, "MB", len(packages)))
    if not arguments.quick:
        content = {"packages": {name: installed_bytes(name) for name in packages}}
        write_results(
            RESULTS / "start.json", "bench.start", content | {"claims": [claim._asdict() for claim in claims]}
        )
    show(claims, arguments.json)


def cpu_s(*flags: str) -> float:
    """Of a caption, in seconds."""
    command = [sys.executable, "-m", "skydraft", "caption", "--any-voice", *flags, str(bundled_clips()[0])]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before_s = _children_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return _children_s() - before_s


def brought_by(package: str) -> set[str]:
    """The package and all that it requires here, extras left out."""
    found, unread = {package}, [package]
    while unread:
        new = set(_required_by(unread.pop())) - found
        found |= new
        unread += new
    return found


def installed_bytes(package: str) -> int:
    """Of a package's files without bytecode; of skydraft those of its source, wherever that is."""
    if package == "skydraft":
        files = [path for path in Path(skydraft.__file__).parent.rglob("*") if path.is_file()]
    else:
        files = [Path(str(file.locate())) for file in distribution(package).files or ()]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.exists())


def _required_by(package: str) -> Iterator[str]:
    for line in distribution(package).requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield re.sub(r"[-_.]+", "-", requirement.name).lower()


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
