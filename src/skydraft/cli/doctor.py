"""`skydraft doctor`: what this machine, its draft model and a cloud can do, and what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skydraft.cli.exit_status import FAILED
from skydraft.cli.results import JsonObject
from skydraft.cli.screen import Screen
from skydraft.cli.terminal_text import counted, safe_line
from skydraft.config import DeviceSettings
from skydraft.edge.doctor.checkup import Checkup, FindingState, check_up
from skydraft.edge.machine import MATMUL_SIZE, Machine, Speed
from skydraft.policies.known_models import DraftProposal
from skydraft.transport.address import exposure

GIB = 2**30
STYLES = {FindingState.OK: "color(64)", FindingState.WEAK: "color(166)", FindingState.FAILED: "bold color(160)"}
LABEL_WIDTH = 18  # of the longest: failed cloud alone

Line = tuple[Text, str]  # label and sentence


def run_doctor(settings: DeviceSettings, is_json: bool) -> int:
    """Measure and print the findings.

    Returns:
        The exit status: FAILED if something is wrong.
    """
    screen = Screen()
    if warning := None if settings.cloud is None else exposure(settings.cloud, has_key=bool(settings.key)):
        screen.warn(warning)
    with screen.busy("Measuring for some seconds ..."):
        checkup = asyncio.run(check_up(settings))
    if is_json:
        screen.json(as_json(checkup))
    else:
        show(checkup, screen)
    return 0 if checkup.is_well else FAILED


def show(checkup: Checkup, screen: Screen) -> None:
    """Print the findings for a person."""
    sections = {
        "This machine": _machine_lines(checkup),
        "Checks": _check_lines(checkup),
        "Advice": _advice_lines(checkup),
    }
    for title, lines in filter(lambda section: section[1], sections.items()):
        screen.show(Text(f" {title}", style="bold"))
        screen.show(Padding(_table(lines), (0, 0, 1, 2)))


def as_json(checkup: Checkup) -> JsonObject:
    """Make the object that --json prints: all measurements, None for those that were not made."""
    return {"is_well": checkup.is_well, **msgspec.to_builtins(checkup)}


def _table(lines: Iterable[Line]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=LABEL_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for label, sentence in lines:
        table.add_row(label, Text(safe_line(sentence)))
    return table


def _machine_lines(checkup: Checkup) -> list[Line]:
    machine, speed, proposal = checkup.machine, checkup.speed, checkup.proposal
    lines = [
        ("system", _system(machine)),
        ("memory", f"{machine.memory_bytes / GIB:.1f} GiB, {machine.free_memory_bytes / GIB:.1f} GiB free"),
        ("battery", _battery(machine)),
        ("speed", _speed(speed)),
        ("guesses", _guesses(machine)),
        ("tier", f"{proposal.tier.value}: {proposal.reason}"),
        ("draft with", _draft_with(checkup)),
        ("its part", proposal.work),
    ]
    return [(Text(label, "dim"), sentence) for label, sentence in lines]


def _system(machine: Machine) -> str:
    cores = f"{machine.system}, {counted(machine.num_cores, 'core')}"
    accelerator = machine.accelerator
    return f"{cores}, {accelerator.name} (--device {accelerator.device})" if accelerator else f"{cores}, no accelerator"


def _battery(machine: Machine) -> str:
    if machine.battery_share is None:
        return "none"
    return f"{machine.battery_share:.0%}, {'plugged in' if machine.is_plugged else 'not plugged in'}"


def _speed(speed: Speed) -> str:
    gflops = 2 * MATMUL_SIZE**3 / speed.matmul_s / 1e9
    sentence = f"reads {speed.memory_bytes_per_s / 1e9:.1f} GB/s, multiplies {gflops:.0f} GFLOP/s (float32)"
    if speed.accelerator_bytes_per_s is None:
        return sentence
    return f"{sentence}; its accelerator reads {speed.accelerator_bytes_per_s / 1e9:.0f} GB/s"


def _guesses(machine: Machine) -> str:
    if machine.has_kernel:
        return "compiled"
    return "by numpy, up to a millisecond each: with a C compiler here (cc, gcc, clang) they would be compiled"


def _draft_with(checkup: Checkup) -> str:
    size, precision = checkup.proposal.size, checkup.proposal.precision
    if size is None or precision is None:
        return "nothing"
    return f"a model like {size.example}, {size.num_params / 1e6:,.0f} million parameters ({precision.flags})"


def _check_lines(checkup: Checkup) -> list[Line]:
    return [
        (Text.assemble((f"{finding.state.value:<7}", STYLES[finding.state]), finding.check), finding.sentence)
        for finding in checkup.findings
    ]


def _advice_lines(checkup: Checkup) -> list[Line]:
    known = checkup.known_draft
    lines = [] if known is None else [(Text("draft"), known.sentence + _requantized(known))]
    return lines + _mode_lines(checkup)


def _requantized(known: DraftProposal) -> str:
    """What drafts in Q4_0 gain, where a proposed one has other weights; measured with one of 0.5 billion parameters."""
    if known.pair.draft.quantization == "Q4_0":
        return ""
    return "; requantized to Q4_0 it drafts in two thirds of the time (docs/engines.md says how)"


def _mode_lines(checkup: Checkup) -> list[Line]:
    if checkup.decision is None:
        return []
    # The trial's prompt went to both; a cloud that lacks the evidence cannot write alone, however fast it is.
    scope = ", where the cloud sees all that the device does" if checkup.rounds is not None else ""
    return [(Text("mode"), f"--mode {checkup.decision.mode.value}{scope}: {checkup.decision.reason}")]
