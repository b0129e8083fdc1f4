"""Which process is which: what /proc says of one, and a name for it that is never another's."""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Identity", "Stat", "identity", "is_alive", "read_stat", "recorded_identity", "send_signal"]


class Identity(NamedTuple):
    """A process for good: pids are used again, and wall clocks move, but these three together never repeat."""

    boot_id: str
    pid: int
    starttime: int


class Stat(NamedTuple):
    """What `/proc/PID/stat` says (proc(5)); `starttime` is in clock ticks since boot."""

    pid: int
    state: str
    ppid: int
    pgrp: int
    session: int
    starttime: int

    @property
    def is_running(self) -> bool:
        """Tell whether it still runs code: a zombie does not."""
        return self.state not in "ZXx"


@functools.cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def read_stat(pid: int) -> Stat | None:
    """Read a process's line of `/proc`, or None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        line = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # The name (field 2) may hold blanks and brackets, so fields are counted after the last `)`.
    fields = line[line.rindex(b")") + 2 :].split(None, 20)
    return Stat(pid, fields[0].decode("ascii"), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def identity(pid: int) -> Identity:
    """Name a process so that it is never mistaken for another. Raises ProcessLookupError when there is none."""
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"pid {pid}")
    return Identity(_boot_id(), pid, stat.starttime)


def recorded_identity(event: Mapping[str, Any]) -> Identity:
    """Return the process that an event of the log names. Raises KeyError, or ValueError for what can be none."""
    boot_id, pid, starttime = str(event.get("boot_id")), event["pid"], event.get("starttime") or 0
    if not type(pid) is type(starttime) is int or not 0 <= pid < 1 << 31:
        raise ValueError(pid)
    return Identity(boot_id, pid, starttime)


def is_alive(process: Identity) -> bool:
    """Tell whether this very process still runs; a zombie, or another process with its pid, does not count."""
    stat = read_stat(process.pid)
    same = stat is not None and stat.starttime == process.starttime and process.boot_id == _boot_id()
    return same and stat is not None and stat.is_running


def send_signal(process: Identity, number: int) -> bool:
    """Send a signal to this very process; say whether it was there. Raises PermissionError."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds on to whatever has the pid now; if that is the process, it stays so.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
