"""What an audit finds: a verdict a guarantee, with counts, and each violation with its place in the log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = ["TITLES", "Finding", "Ledger", "Place", "Report", "Violation", "shown"]

# What of docs/GUARANTEES.md a log can show. The others are properties of processes at work; tests prove those.
TITLES = {
    "G1": "no attempt starts twice",
    "G2": "every start has its request and its end",
    "G3": "every fire time has its verdict",
    "G4": "what was appended stays",
    "G5": "what was queued is started",
    "G6": "the death of a worker is contained",
    "G8": "a stop leaves nothing open",
    "G11": "a clock that is set runs nothing twice",
    "overlap": "runs of a schedule overlap only where it says so",
    "limits": "pools and tenants keep to their limits",
    "lateness": "what may start starts in time",
    "deadline": "a deadline that passes is told, once",
    "effects": "an effect for each success, one at most an attempt",
}
# No part of every log: nothing is said of them where there are none.
_ASKED_FOR = ("limits", "effects")
_KEPT = 1000
Place = tuple[Path | str, int]


def shown(place: Place) -> str:
    """Return a place as `file:line`, or `file` for its end."""
    path, line = place
    return f"{path}:{line}" if line else str(path)


class Violation(msgspec.Struct, frozen=True):
    """Where a guarantee does not hold. `place` is `file:line`, or `file` when something is missing at its end."""

    guarantee: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.guarantee}: {self.text}"


class Finding(msgspec.Struct, frozen=True):
    """The verdict on one guarantee; `unproven` when the log holds nothing that it speaks of."""

    guarantee: str
    title: str
    verdict: Literal["proved", "refuted", "unproven"]
    counts: dict[str, int]
    violations: int


class Report(msgspec.Struct, frozen=True):
    """What the audit of one log came to. Of more than 1,000 violations the first are kept; the findings count all.

    `notes` are what is no violation and should be known: how far the proof reaches.
    """

    log: str
    read_at: str
    lines: int
    first_seq: int
    last_seq: int
    seconds: float
    findings: list[Finding]
    violations: list[Violation]
    notes: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether no guarantee was refuted."""
        return not any(finding.violations for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"is_clean": self.is_clean, **msgspec.to_builtins(self)}


class Ledger:
    """Where the books write down what they counted and what they found wrong, at the line that is being read."""

    def __init__(self) -> None:
        self.path: Path | str = ""
        self.line = 0
        self.violations: list[Violation] = []
        self.notes: list[str] = []
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in TITLES}
        self._wrong: Counter[str] = Counter()

    @property
    def place(self) -> Place:
        """The line that is being read; kept as it is, because nearly none of them is ever shown."""
        return self.path, self.line

    def count(self, guarantee: str, what: str, number: int = 1) -> None:
        """Count something that a guarantee speaks of."""
        self._counts[guarantee][what] += number

    def violate(self, guarantee: str, text: str, place: Place | None = None) -> None:
        """Write down that a guarantee does not hold, here or at `place`."""
        self._wrong[guarantee] += 1
        if len(self.violations) < _KEPT:
            self.violations.append(Violation(guarantee, shown(place or self.place), text))

    def findings(self) -> list[Finding]:
        """Return the verdicts on what was looked at."""
        return [
            Finding(name, title, self._verdict(name), dict(self._counts[name]), self._wrong[name])
            for name, title in TITLES.items()
            if name not in _ASKED_FOR or self._counts[name] or self._wrong[name]
        ]

    def _verdict(self, name: str) -> Literal["proved", "refuted", "unproven"]:
        if self._wrong[name]:
            return "refuted"
        return "proved" if any(self._counts[name].values()) else "unproven"
