"""The benchmark command; what it measures is no test's business."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    # Without coverage's variables: its tracing would make figures of another program.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *words],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_benchmark_command_prints_a_table_whose_ratios_are_numbers() -> None:
    done = _run("--quick", "--only", "append,tick")
    assert done.returncode == 0, done.stderr

    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert _cells(lines[0]) == ["row", "what", "ours", "floor, same run", "ours / floor", "target", "met"]
    rows = [_cells(line) for line in lines[2:]]
    assert {row[0] for row in rows} == {"append", "tick"}
    for row in rows:
        assert float(row[4].removesuffix("x").replace(",", "")) > 0, row
        assert row[6] in ("yes", "**no**", "-"), row
    assert "append: 4 writing to our log, pass 1 of 1" in done.stderr


def test_the_benchmark_command_names_the_benchmarks_when_it_is_given_one_that_is_none() -> None:
    done = _run("--only", "apend")
    assert done.returncode == 2
    assert done.stderr.startswith("no benchmark `apend`; there are: append, fsync, ")
