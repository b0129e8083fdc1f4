"""Failpoints: named places at which a process dies by SIGKILL, once the environment has armed them.

`tickpool selftest` arms them to prove that a death at the worst moment costs nothing. Where nothing is armed, a point
costs one look at a name.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import msgspec

__all__ = ["POINTS", "Failpoints", "arm", "parse_failpoints", "reach"]

POINTS = {
    "before_lock": "about to take the lock of a log",
    "inside_write": "half of the bytes are written: the torn line",
    "after_write": "the line is written, the lock still held",
    "before_put": "the request is on record, and not handed to a worker yet",
    "after_claim": "the start of the run is on record, and nothing done yet",
    "after_effect": "a task's process has ended, and nothing is recorded of it yet",
    "before_park": "all that is left of a run waits, and the log does not say so yet",
    "after_park": "that the run is parked is on record, and its worker has not told so yet",
    "before_finish": "the DAG is done, its end not on record yet",
}


class Failpoints(msgspec.Struct, frozen=True):
    """The chance of death at each armed point, and the file that takes a note of each death.

    No note, no death: taking the file away disarms every process at once.
    """

    file: str
    chances: dict[str, float]


_armed: Failpoints | None = None


def parse_failpoints(text: str) -> Failpoints | None:
    """Read `FILE|before_lock=0.01,inside_write=1`, or `off`. Raises ValueError."""
    if text == "off":
        return None
    file, bar, points = text.rpartition("|")
    if not file or not bar or "\0" in file:
        raise ValueError(text)
    chances: dict[str, float] = {}
    for point in points.split(","):
        name, _, chance = point.strip().partition("=")
        chances[name] = float(chance)
        if name not in POINTS or not 0 <= chances[name] <= 1:
            raise ValueError(text)
    return Failpoints(os.path.abspath(file), chances)


def arm(failpoints: Failpoints | None) -> None:
    """Arm the points of this process and of what it forks; None disarms them."""
    # A point is reached where no settings are at hand, and must cost next to nothing.
    global _armed
    _armed = failpoints


def reach(name: str, last_act: Callable[..., object] | None = None, *arguments: object) -> None:
    """Die here by the chance that `name` has, after `last_act(*arguments)`; else do nothing."""
    if _armed is not None:
        _perhaps_die(_armed, name, last_act, arguments)


def _perhaps_die(
    armed: Failpoints, name: str, last_act: Callable[..., object] | None, arguments: tuple[object, ...]
) -> None:
    chance = armed.chances.get(name, 0.0)
    # From the kernel: forked processes would share the state of a generator.
    if not chance or int.from_bytes(os.urandom(4)) >= chance * 2**32:
        return
    try:
        fd = os.open(armed.file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.write(fd, f"{name} {os.getpid()}\n".encode("ascii"))
    except OSError:
        return
    if last_act is not None:
        last_act(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
