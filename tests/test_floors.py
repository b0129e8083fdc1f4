"""The floors that docs/ARCHITECTURE.md draws: imports only point down, and each module keeps its size and manners."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted(file for place in ("", "faults/") for file in (ROOT / "tests").glob(f"{place}*.py"))
LONGEST_FILE = 350
LONGEST_FUNCTION = 50
# One job each, and no seam to split it at.
LONGER = {"workers.runner.run_dag": 58}

PRINTING = ("scheduler.cli", "workers.__main__")
# The edges of a process: whatever comes out there is recorded, and goes no further. Others raise again.
EDGES = {
    "scheduler.supervisor._try",
    "scheduler.web.feed.run",
    "workers.process._become_task",
    "workers.tasks.call._call",
    "workers.tasks.imports.preload",
    "workers.worker._run",
}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for package in ("scheduler", "workers") for file in (ROOT / package).rglob("*.py")}


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def imports_of(module: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Return the modules of ours that these nodes import."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom):
            steps = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*steps, *([node.module] if node.module else [])])
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or ({source} & MODULES.keys())
    return found


def at_module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what runs on import, without what only a type checker sees."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from ast.walk(node) if not isinstance(node, ast.FunctionDef) else ()


def floors() -> dict[str, int]:
    """Return the floor of each module, counted from the roof, as the document draws them."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    match = re.search(r"^## Floors\n.*?^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert match, "docs/ARCHITECTURE.md has no drawing under `## Floors`"
    drawn: dict[str, int] = {}
    package = ""
    for number, line in enumerate(match[1].splitlines()):
        if line.startswith("---"):
            continue
        package = line[:11].strip() or package
        # The names stand three spaces apart; what they do begins in column 58.
        for name in line[11:57].split():
            drawn[f"{package}.{name.rstrip('/')}"] = number
    return drawn


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_module_stands_on_a_floor_and_every_floor_is_real() -> None:
    drawn = floors()
    packages = {"scheduler", "workers"}
    inner = {name for name in MODULES if any(name.startswith(f"{other}.") for other in drawn)}
    assert MODULES.keys() - drawn.keys() - packages - inner == set()
    assert drawn.keys() - MODULES.keys() == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    drawn = floors()

    def floor(name: str) -> int:
        while name not in drawn and "." in name:
            name = name.rpartition(".")[0]
        return drawn.get(name, -1)

    for other in imports_of(module, ast.walk(tree_of(MODULES[module]))):
        if other == "workers" or module == "scheduler" or floor(other) < 0:
            continue  # a package's door leads to all of it; one without a floor is told by the test above
        assert floor(other) >= floor(module), f"{module} imports {other}, which stands above it"


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {
        module: imports_of(module, at_module_level(tree_of(file))) - {module, "scheduler", "workers"}
        for module, file in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES) - 2


def test_the_workers_know_no_schedule() -> None:
    for module, file in MODULES.items():
        if not module.startswith("workers"):
            continue
        tree = tree_of(file)
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        named |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        named |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        named |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        # The id of whoever asked is passed through as plain data.
        assert {name for name in named if "schedule" in name.lower()} <= {"schedule_id", "SCHEDULE_ID"}, module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_two_faces_print(module: str) -> None:
    for node in ast.walk(tree_of(MODULES[module])):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            # What names its file goes there, and not to whoever looks at the terminal.
            names_file = any(word.arg == "file" for word in node.keywords)
            assert names_file or module.startswith(PRINTING), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_everything_is_caught_at_the_edges_only(module: str) -> None:
    for function in functions_of(tree_of(MODULES[module])):
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{module}:{node.lineno}: a bare except"
                caught = ast.unparse(node.type)
                if re.search(r"\b(Base)?Exception\b", caught) and not isinstance(node.body[-1], ast.Raise):
                    assert f"{module}.{function.name}" in EDGES, f"{module}:{node.lineno}: except {caught}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_and_functions_keep_their_size(module: str) -> None:
    file = MODULES[module]
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= LONGER.get(module, LONGEST_FILE)
    for function in functions_of(tree_of(file)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= LONGER.get(f"{module}.{function.name}", LONGEST_FUNCTION), f"{module}.{function.name}"


@pytest.mark.parametrize("file", [file for file in TESTS if file.name != "conftest.py"], ids=lambda file: file.name)
def test_tests_do_not_sleep(file: Path) -> None:
    for node in ast.walk(tree_of(file)):
        assert not (isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in ast.unparse(node))
        assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"), f"{file.name}:{node.lineno}"
