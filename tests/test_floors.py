"""The floors: an import only ever points down, and each module keeps to its size and manners."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scheduler", "workers")
LONGEST_FILE = 350
LONGEST_FUNCTION = 50

# From the roof to the ground. What stands on one line may not import what stands beside it, except along BESIDE.
FLOORS = """
scheduler: __main__
scheduler: cli
scheduler: supervisor once drain
scheduler: dispatch
scheduler: reload status status_text
scheduler: ticker run_queue recovery notify_systemd clock wakeup
scheduler: schedules state_store
scheduler: history dag_files
scheduler: verdicts cron
scheduler: cron_fields cron_text cron_times
workers: __main__
workers: pool
workers: worker
workers: run_request runner
"""
"""Only the order of the scheduler's own modules is fixed line by line; see `test_imports_point_down`."""


def modules() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
