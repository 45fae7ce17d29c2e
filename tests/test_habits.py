"""No test depends on the speed of the machine: clocks, pauses and short patience have their places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CLOCKS = {
    "time": {"sleep", "time", "monotonic", "perf_counter", "process_time", "thread_time"},
    "resource": {"getrusage"},
    "timeit": {"timeit", "repeat"},
}
WAITS = {"timeout", "wait_for", "settimeout", "wait", "join", "sleep"}  # called with seconds
SHORT_S = 60.0
# Right at any speed: they wait for what they see, or look only at what may not be too early.
MAY_LOOK_AT_CLOCKS = {
    "waiting.py": {"wait_until", "until"},
    "virtual_cloud.py": {"in_pace", "virtual_cloud"},
    "bench/test_real.py": {"*"},  # deadlines that never come
    "cloud/test_guards.py": {
        "say_until_cut",
        "test_pings_do_not_keep_a_connection_that_opens_no_session",
        "test_a_device_that_writes_a_frame_byte_by_byte_is_cut_off",
    },
    "cloud/test_serve.py": {"test_draining_ends_at_its_limit_with_texts_under_way"},
    "edge/test_cloud_http.py": {"test_one_deadline_stands_over_the_whole_answer_however_it_drips"},
}


def looks_at_a_clock(node: ast.AST) -> bool:
    """Whether it reads a clock, pauses, or waits for less than SHORT_S."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr in CLOCKS.get(node.value.id, ())
    if not isinstance(node, ast.Call):
        return False
    named = [keyword.value for keyword in node.keywords if keyword.arg in ("timeout", "timeout_s")]
    is_wait = isinstance(node.func, ast.Attribute) and node.func.attr in WAITS
    numbers = [each.value for each in (*named, *(node.args if is_wait else ())) if isinstance(each, ast.Constant)]
    return any(isinstance(number, int | float) and 0 < number < SHORT_S for number in numbers)


def is_excused(function: ast.stmt, has_virtual_time: bool) -> bool:
    """Whether its time is virtual, or it is a test of `make slow`; helpers are excused with the tests beside them."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    is_test = function.name.startswith("test_")
    return bool(decorators & {"in_virtual_time", "pytest.mark.slow"}) or (has_virtual_time and not is_test)


def offenders() -> Iterator[str]:
    for path in sorted(HERE.rglob("*.py")):
        name, tree = str(path.relative_to(HERE)), ast.parse(path.read_text())
        has_virtual_time = "import in_virtual_time" in path.read_text()
        allowed = MAY_LOOK_AT_CLOCKS.get(name, set())
        for statement in tree.body:
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if statement.name in allowed or "*" in allowed or is_excused(statement, has_virtual_time):
                continue
            if any(map(looks_at_a_clock, ast.walk(statement))):
                yield f"{name}::{statement.name}"


def test_no_test_depends_on_the_speed_of_the_machine() -> None:
    """The way out: tests/virtual_time.py, tests/effort.py, tests/waiting.py, or a clock that the product takes."""
    assert list(offenders()) == []


def test_all_that_may_look_at_clocks_does() -> None:
    for name, functions in MAY_LOOK_AT_CLOCKS.items():
        tree = ast.parse((HERE / name).read_text())
        looking = {
            statement.name
            for statement in tree.body
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and any(map(looks_at_a_clock, ast.walk(statement)))
        }
        assert looking if functions == {"*"} else functions <= looking, name
