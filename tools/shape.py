"""Counts how large the house is: what a reader has to know before finding the way.

python -m tools.shape [--offer]   figures of src/skydraft; with --offer also the functions that one offer passes.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import io
import statistics
import sys
import threading
import tokenize
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from skydraft.core import acceptance

PACKAGE = Path(__file__).parent.parent / "src" / "skydraft"
RULES = {rule.__name__ for rule in acceptance.RULES}
MODEL = "table:vocab=64,seed=3"
FIRST, LAST, WARM_UP = "EdgeSession.offer", "EdgeSession.receive", 4  # of the way of an offer
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Module(NamedTuple):
    """A parsed file. code: numbers of the lines that are neither blank, comment nor docstring."""

    path: Path
    tree: ast.Module
    code: frozenset[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--offer", action="store_true", help="follow an offer from the guess tree to its verdict")
    arguments = parser.parse_args()
    for name, figure in figures([read(path) for path in sorted(PACKAGE.rglob("*.py"))]).items():
        print(f"{name:32} {figure:8,.0f}")
    if arguments.offer:
        passed = offer_path()
        print(f"{'functions that an offer passes':32} {len(passed):8}")
        print("\n".join(f"  {name}" for name in passed))


def figures(modules: list[Module]) -> dict[str, float]:
    """The figures by name."""
    nodes = [(module, node) for module in modules for node in ast.walk(module.tree)]
    lengths = sorted(_num_code_lines(module, node) for module, node in nodes if isinstance(node, FUNCTIONS))
    classes = [node.name for _, node in nodes if isinstance(node, ast.ClassDef)]
    return {
        "files": len(modules),
        "lines": sum(len(module.path.read_text().splitlines()) for module in modules),
        "lines of code": sum(len(module.code) for module in modules),
        "functions": len(lengths),
        "classes": len(classes),
        "private classes": sum(name.startswith("_") for name in classes),
        "private names": len(set(_private_names(nodes))),
        "isinstance on a rule": sum(_asks_for_rule(node) for _, node in nodes),
        "code lines of a function, median": statistics.median(lengths),
        "code lines of a function, p95": lengths[int(len(lengths) * 0.95)],
    }


def read(path: Path) -> Module:
    """Parse a file."""
    source = path.read_text()
    tree = ast.parse(source)
    code: set[int] = set()
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return Module(path, tree, frozenset(code))


def _num_code_lines(module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return sum(node.lineno <= number <= (node.end_lineno or 0) for number in module.code)


def _private_names(nodes: list[tuple[Module, ast.AST]]) -> list[str]:
    """Of functions, classes and module constants, with the file that they are in."""
    found = []
    for module, node in nodes:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            names = []
        found += [f"{module.path}:{name}" for name in names if name.startswith("_") and not name.endswith("__")]
    return found


def _asks_for_rule(node: ast.AST) -> bool:
    """Whether this is `isinstance(x, RULE)`, or a case of a match, on one of the acceptance rules."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return any(isinstance(name, ast.Name) and name.id in RULES for name in ast.walk(node.args[1]))
    return isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name) and node.cls.id in RULES


def offer_path() -> list[str]:
    """Functions of skydraft that run from an offer made by the device's session to its verdict taken in by it.

    In the code of both processes, over a real socket, table engines, when the session has warmed up.
    """
    from skydraft.config import CloudSettings, DeviceSettings
    from skydraft.edge.device import Device
    from skydraft.engines.load import load_engine
    from tests.cloud.running import running

    passed: dict[str, None] = {}
    num_begun = 0
    is_on = False

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal num_begun, is_on
        code = frame.f_code
        if not code.co_filename.startswith(str(PACKAGE)) or code.co_name.startswith("<"):
            return
        if event == "call" and code.co_qualname == FIRST:
            num_begun += 1
            is_on = num_begun == WARM_UP
        if event == "call" and is_on:
            place = ".".join(Path(code.co_filename).relative_to(PACKAGE).with_suffix("").parts)
            passed.setdefault(f"{place}: {code.co_qualname}")
        if event == "return" and code.co_qualname == LAST:
            is_on = False

    threading.setprofile(note)
    with running(CloudSettings(model=MODEL), lambda: load_engine(MODEL, "target")) as cloud:
        settings = DeviceSettings(cloud=cloud.address, draft=MODEL, way="wait:4", max_tokens=64, raw=True)
        with Device.load(settings) as device:
            sys.setprofile(note)
            asyncio.run(device.generate("ba be"))
            sys.setprofile(None)
    threading.setprofile(None)
    return list(passed)


if __name__ == "__main__":
    main()
