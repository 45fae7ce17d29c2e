"""What a call costs in counts that are the same on every machine, where a time would be the machine's."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple


class Effort(NamedTuple):
    """num_steps: instructions of Python's interpreter. peak_bytes: of memory beyond what was held before."""

    num_steps: int
    peak_bytes: int


def effort_of(call: Callable[[], object]) -> Effort:
    """Run a call and count. What compiled code does within an instruction shows in memory only."""
    num_steps = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal num_steps
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        num_steps += event == "opcode"
        return trace

    before = sys.gettrace()  # of a debugger, or of the measurement of coverage
    tracemalloc.start()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return Effort(num_steps, peak_bytes)
