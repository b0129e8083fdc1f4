"""Every error tickpool raises, under one root.

An error is built from values and writes its own sentence, so it survives pickling (its `args` are those values)
and says what was wrong, where, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .terminal import clean

__all__ = ["Fault", "InvalidFile", "TickpoolError", "did_you_mean"]

# So many names are named: there may be ten thousand schedules.
_NAMED = 50


class TickpoolError(Exception):
    """The root: something a person can mend, told in one line."""


class Fault(NamedTuple):
    """One thing wrong in one file. `line` and `col` count from 1; 0 means the file as a whole."""

    path: str
    line: int
    col: int
    message: str

    def __str__(self) -> str:
        # The name of a file may hold anything but a slash and NUL; a fault is one line all the same.
        place = clean(f"{self.path}:{self.line}:{self.col}" if self.line else self.path)
        return f"{place}: {clean(self.message)}"


class InvalidFile(TickpoolError):
    """A file that cannot be used, with every fault found in it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `; did you mean `x`?` for the nearest valid name, or what is allowed when none is near."""
    import difflib  # only here, on the way to an error: it costs every command 2 ms

    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"; allowed: {', '.join(names[:_NAMED])}{more}" if names else ""
