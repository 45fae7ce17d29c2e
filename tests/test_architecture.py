"""What docs/design.md and CONTRIBUTING.md promise of the code, beside the contracts of import-linter."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from skydraft.core import acceptance

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "skydraft"
RULES = {rule.__name__ for rule in acceptance.RULES}
KNOW_RULES = {"core/acceptance.py", "sampling/acceptance.py"}

# Two classes of one name: the list may only become shorter.
SHARED_NAMES: set[str] = set()


def modules() -> dict[str, ast.Module]:
    """By path within the package."""
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


MODULES = modules()


def name_of(path: str) -> str:
    """Of a module, as it is imported."""
    parts = Path("skydraft", path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that are imported when this one is, those for type checking included."""
    for node in tree.body:
        inner = node.body if isinstance(node, ast.If) else [node]
        for statement in inner:
            if isinstance(statement, ast.Import):
                yield from (alias.name for alias in statement.names if alias.name in NAMES)
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                for alias in statement.names:
                    whole = f"{statement.module}.{alias.name}"
                    yield whole if whole in NAMES else statement.module


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: {other for other in imports(MODULES[path]) if other in NAMES} for name, path in NAMES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_only_two_files_ask_which_acceptance_rule_it_is() -> None:
    asking = set()
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                found = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            elif isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
                found = {node.cls.id}
            else:
                continue
            if found & RULES:
                asking.add(path)
    assert asking <= KNOW_RULES


def test_a_class_name_means_one_thing() -> None:
    where = defaultdict(list)
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(path)
    shared = {name for name, paths in where.items() if len(paths) > 1}
    assert shared == SHARED_NAMES, f"{ {name: where[name] for name in shared ^ SHARED_NAMES} }"


def test_the_package_imports_no_bench_and_no_test() -> None:
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("bench", "tests", "training") for name in names), path


def test_the_files_that_contributing_names_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    named = {name for name in re.findall(r"`([\w./-]+)`", page) if "/" in name and not name.startswith("--")}
    assert len(named) > 20
    missing = {name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()}
    assert not missing
