"""The book of effects: what the tasks wrote themselves, against what the log says of their runs.

An effect is a line `RUN_ID ATTEMPT`, with anything behind it, that a task appends to a file when it does its work:
`echo "$RUN_ID $ATTEMPT" >> effects`. It is a witness that the log has not heard of.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from workers.errors import TickpoolError

from .report import Ledger, Place, shown
from .runs import RunBook

__all__ = ["EffectsUnreadable", "compare_effects"]


class EffectsUnreadable(TickpoolError):
    """A file of effects that cannot be read: (path, the reason)."""

    def __str__(self) -> str:
        return f"{self.args[0]}: cannot be read: {self.args[1]}"


def compare_effects(file: Path, runs: RunBook, ledger: Ledger, schedules: Collection[str]) -> None:
    """Demand one effect for each attempt that succeeded, at most one an attempt, and none without a start.

    `schedules` are those whose runs write effects; when it is empty every run does. Raises EffectsUnreadable.
    """
    seen: dict[tuple[str, int], Place] = {}
    ledger.path, ledger.line = file, 0
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for ledger.line, line in enumerate(lines, 1):
                _take(line, seen, runs, ledger)
    except OSError as error:
        raise EffectsUnreadable(str(file), error.strerror) from None
    ledger.line = 0
    for (run_id, attempt), status in runs.outcomes.items():
        is_due = not schedules or runs.schedule_of.get(run_id) in schedules
        if status == "success" and is_due and (run_id, attempt) not in seen:
            ledger.violate("effects", f"run `{run_id}` attempt {attempt} is success, and has no effect")


def _take(line: str, seen: dict[tuple[str, int], Place], runs: RunBook, ledger: Ledger) -> None:
    words = line.split()
    if len(words) < 2 or not words[1].isdecimal() or not line.endswith("\n"):
        ledger.violate("effects", f"{line.rstrip()!r:.80} is no line `RUN_ID ATTEMPT`")
        return
    key = (words[0], int(words[1]))
    ledger.count("effects", "effects")
    if key in seen:
        ledger.violate("effects", f"run `{key[0]}` attempt {key[1]} has a second effect; the first: {shown(seen[key])}")
    elif key not in runs.outcomes:
        ledger.violate("effects", f"run `{key[0]}` attempt {key[1]} has an effect, and no start on record")
    seen[key] = ledger.place
