"""Our own code evaluates nothing: no text, no pickle and no YAML tag becomes code on the way through it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(file for package in ("scheduler", "workers") for file in (ROOT / package).rglob("*.py"))

MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "code", "codeop", "xmlrpc", "tempfile.mktemp"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "os.spawnl"),
    *("subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("yaml.unsafe_load_all", "yaml.full_load_all", "ctypes.pythonapi", "importlib.import_module"),
}
# `call: module:function` of a DAG file names code to run, as `run` names a command; whoever may write the file may.
EXCEPTIONS = {
    ("workers/tasks/imports.py", "importlib.import_module"),
    ("scheduler/__init__.py", "importlib.import_module"),  # a fixed table of our own modules, loaded when first used
}


def evaluations(tree: ast.AST) -> Iterator[str]:
    """Yield whatever could turn data into code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield node.module
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS:
                yield name
            for keyword in node.keywords:
                if keyword.arg == "shell":
                    yield "shell="
                if keyword.arg == "Loader":
                    yield "Loader="


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_data_becomes_code(file: Path) -> None:
    shown = str(file.relative_to(ROOT))
    found = {(shown, name) for name in evaluations(ast.parse(file.read_text("utf-8")))}
    assert found - EXCEPTIONS == set()


def test_the_search_finds_what_it_is_for() -> None:
    text = (
        "import pickle\nfrom marshal import loads\neval('1')\nyaml.load(x, Loader=L)\nsubprocess.run('x', shell=True)\n"
    )
    assert set(evaluations(ast.parse(text))) == {"pickle", "marshal", "eval", "yaml.load", "Loader=", "shell="}
    for shown, name in EXCEPTIONS:
        assert name in set(evaluations(ast.parse((ROOT / shown).read_text("utf-8"))))
