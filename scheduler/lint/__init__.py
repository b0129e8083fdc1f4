"""Lint: what a schedule says that nobody means, each with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from scheduler.durations import Durations
from workers.errors import Fault

from .reading import Remark, place, read_for_lint
from .rules import RULES, find

__all__ = ["RULES", "Lint", "Remark", "lint"]


class Lint(NamedTuple):
    """What lint found: `schedules` were looked at, `faults` are what keeps others from being read."""

    schedules: int
    remarks: list[Remark]
    faults: list[Fault]


def lint(directory: Path, now: datetime, durations: Mapping[str, Durations], max_parallel: int) -> Lint:
    """Look at the schedules of a directory. Raises NoSchedules."""
    reading = read_for_lint(directory)
    findings = [*reading.findings, *find(reading.schedules, now, durations, max_parallel)]
    return Lint(len(reading.schedules), place(findings), reading.faults)
