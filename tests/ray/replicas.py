"""Ray's processes below one of ours."""

from __future__ import annotations

import psutil


def commands(process_id: int) -> dict[int, list[str]]:
    """The command lines of all that a process has started and that has not ended, by process id."""
    found = {}
    for process in psutil.Process(process_id).children(recursive=True):
        try:
            found[process.pid] = process.cmdline()
        except psutil.Error:  # it has just ended
            continue
    return found


def replicas(process_id: int) -> list[int]:
    """Process ids of replicas."""
    return [number for number, command in commands(process_id).items() if "ServeReplica" in " ".join(command)]
