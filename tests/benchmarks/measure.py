"""Measuring: passes of contenders in turn, their median and spread, and the table that compares them."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

__all__ = ["Bench", "Row", "Sample", "Target", "percentile", "seconds", "table"]

T = TypeVar("T")
_PASSES = 3


class Sample(NamedTuple):
    """The figures of one contender, one a pass, in one unit (`/s`, `ms`, `s`, `us`, `MiB`, `%`)."""

    unit: str
    values: tuple[float, ...]

    @classmethod
    def of(cls, unit: str, values: Iterable[float]) -> Sample:
        """Take the figures of all passes."""
        return cls(unit, tuple(values))

    @property
    def median(self) -> float:
        """The figure that stands for all."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f" ({_number(min(self.values))} - {_number(max(self.values))})" if len(self.values) > 1 else ""
        unit = self.unit if self.unit in ("/s", "%") else f" {self.unit}"
        return f"{_number(self.median)}{unit}{spread}"


class Target(NamedTuple):
    """What a row is to reach: a bound of ours / floor (`ratio`) or of our figure itself (`value`, in its unit)."""

    of: Literal["ratio", "value"]
    sign: Literal[">=", "<="]
    bound: float
    note: str = ""

    def is_met(self, value: float, ratio: float | None) -> bool | None:
        """Say whether a figure and its ratio reach it; None when there is no ratio to judge."""
        judged = ratio if self.of == "ratio" else value
        if judged is None or math.isnan(judged):
            return None
        return judged >= self.bound if self.sign == ">=" else judged <= self.bound

    def text(self, unit: str) -> str:
        """Write it for the table."""
        suffix = "x" if self.of == "ratio" else unit if unit in ("/s", "%") else f" {unit}"
        return f"{self.sign} {_number(self.bound)}{suffix}" + (f"; {self.note}" if self.note else "")


class Row(NamedTuple):
    """One line of the table: our figure beside a floor measured in the same run."""

    name: str
    what: str
    ours: Sample
    against: str = ""
    floor: Sample | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Ours / floor, whatever the unit; None without a floor."""
        if self.floor is None or self.floor.median == 0:
            return None
        return self.ours.median / self.floor.median

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        return self.target.is_met(self.ours.median, self.ratio) if self.target else None


class Bench:
    """What a benchmark needs to run: a directory of its own, how much to do, and where to say how far it is."""

    def __init__(self, name: str, directory: Path, *, quick: bool, began: float) -> None:
        self.name = name
        self.directory = directory
        self.quick = quick
        self.passes = 1 if quick else _PASSES
        self._began = began

    def of(self, full: int, quick: int) -> int:
        """Return a size: `full`, or `quick` in a quick run."""
        return quick if self.quick else full

    def place(self, name: str) -> Path:
        """Return a fresh directory inside the benchmark's own."""
        number = sum(1 for _ in self.directory.iterdir())
        path = self.directory / f"{name}-{number}"
        path.mkdir()
        return path

    def say(self, what: str) -> None:
        """Show on stderr what is going on."""
        line = f"[{time.monotonic() - self._began:6.1f} s] {self.name}: {what}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def race(self, contenders: dict[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Let each contender make its passes, in turn, so that a disturbance hits all; return what they returned."""
        results: dict[str, list[T]] = {label: [] for label in contenders}
        for number in range(1, self.passes + 1):
            for label, run in contenders.items():
                self.say(f"{label}, pass {number} of {self.passes}")
                results[label].append(run())
        return results


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(rows: Iterable[Row], *, judged: bool = True) -> str:
    """Write the rows as a Markdown table; without `judged` nothing is said of targets."""
    lines = ["| row | what | ours | floor, same run | ours / floor | target | met |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        floor = f"{row.against}: {row.floor}" if row.floor else row.against or "-"
        ratio = f"{_number(row.ratio)}x" if row.ratio is not None else "-"
        target = row.target.text(row.ours.unit) if row.target else "-"
        met = {True: "yes", False: "**no**", None: "-"}[row.is_met if judged else None]
        lines.append(f"| {row.name} | {row.what} | {row.ours} | {floor} | {ratio} | {target} | {met} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Write three digits that count, and no exponent."""
    if value == 0 or math.isnan(value):
        return "0" if value == 0 else "nan"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
