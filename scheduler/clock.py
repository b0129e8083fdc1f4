"""The wall clock under watch: a step of it is told apart from time that went by."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NamedTuple

from workers.events import Event, iso

__all__ = ["ClockWatch", "Jump"]

_JUMP_S = 2.0


class Jump(NamedTuple):
    """A step of the wall clock: where it stood, where it stands, and by how many seconds it moved."""

    was: datetime
    now: datetime
    seconds: float

    def event(self) -> Event:
        """Return what the log says of it."""
        jump_s = round(self.seconds, 3)
        return {"event": "clock_jumped", "from": iso(self.was), "to": iso(self.now), "jump_s": jump_s}


class ClockWatch:
    """Compares the wall clock with the boot clock, which also counts the time a machine sleeps."""

    def __init__(self) -> None:
        self._base = _read_clocks()

    def look(self) -> Jump | None:
        """Return a step of 2 s or more, again at each call until it is accepted; smaller ones are let pass."""
        wall, boot = clocks = _read_clocks()
        seconds = (wall - self._base[0]) - (boot - self._base[1])
        if abs(seconds) < _JUMP_S:
            self._base = clocks
            return None
        return Jump(datetime.fromtimestamp(wall - seconds, UTC), datetime.fromtimestamp(wall, UTC), seconds)

    def accept(self) -> None:
        """Go on from where the clock stands now."""
        self._base = _read_clocks()


def _read_clocks() -> tuple[float, float]:
    return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
