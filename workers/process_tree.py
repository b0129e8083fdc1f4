"""What a task leaves behind: find it by session, process group or a marker in its environment, and end it.

A process that forks without `exec` and calls `setsid` keeps the environment of the process it was forked from;
where a whole family must be found, the finder is a subreaper and looks at its own children too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator

from .process import Stat, prctl, read_stat

__all__ = ["become_subreaper", "children_left", "find", "is_subreaper", "marked_with", "reap_orphans", "send", "sweep"]

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def become_subreaper() -> None:
    """Make this process the parent of every orphan among its descendants (prctl(2)). Raises OSError."""
    if prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def is_subreaper() -> bool:
    """Tell whether orphans come to this process."""
    answer = ctypes.c_int()
    prctl()(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def children_left() -> bool:
    """Tell whether this process has any child, running or not, in one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap_orphans(known: Collection[int] = ()) -> None:
    """Take the status of dead children, each by its own pid, except the `known` ones that somebody waits for."""
    me = os.getpid()
    for stat in find(lambda stat: stat.ppid == me and not stat.is_running and stat.pid not in known, dead=True):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(stat.pid, os.WNOHANG)


def marked_with(*entries: str) -> Callable[[Stat], bool]:
    """Return a predicate: was the process started with all these `NAME=value` entries in its environment?

    False for processes of other users, whose environment cannot be read.
    """
    wanted = [b"\0" + os.fsencode(entry) + b"\0" for entry in entries]

    def is_marked(stat: Stat) -> bool:
        try:
            with open(f"/proc/{stat.pid}/environ", "rb", buffering=0) as file:
                environ = b"\0" + file.readall() + b"\0"
        except OSError:
            return False
        return all(entry in environ for entry in wanted)

    return is_marked


def find(is_wanted: Callable[[Stat], bool], *, dead: bool = False) -> list[Stat]:
    """Scan /proc for other processes than this one; the dead (zombies) only on request. Costs milliseconds."""
    return [stat for stat in _all_others() if (dead or stat.is_running) and is_wanted(stat)]


def _all_others() -> Iterator[Stat]:
    me = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != me:
            stat = read_stat(int(name))
            if stat is not None:
                yield stat


def send(stat: Stat, number: int) -> int | None:
    """Send a signal to exactly this process and return a pidfd to wait on, or None when it has gone."""
    try:
        pidfd = os.pidfd_open(stat.pid)
    except OSError:
        return None
    now = read_stat(stat.pid)
    try:
        if now is not None and now.starttime == stat.starttime and now.is_running:
            signal.pidfd_send_signal(pidfd, number)
            return pidfd
    except (ProcessLookupError, PermissionError):
        pass
    os.close(pidfd)
    return None


def sweep(
    marker: str | None = None,
    sids: Collection[int] = (),
    *,
    children_but: Collection[int] | None = None,
    timeout_s: float = 5.0,
) -> int:
    """Kill every process that carries the marker or belongs to one of the sessions, round by round until none is left.

    `marker` is the value of TICKPOOL_RUN; `sids` are pids of `task_started` events of this boot; `children_but` adds
    every child of this process except the given pids. Returns how many were killed. Gives up after `timeout_s` (a
    process in state D cannot be killed), so ask again later.
    """
    is_marked = marked_with(f"TICKPOOL_RUN={marker}") if marker is not None else None
    me = os.getpid()

    def is_left(stat: Stat) -> bool:
        ours = stat.session in sids or (children_but is not None and stat.ppid == me and stat.pid not in children_but)
        return ours or (is_marked is not None and is_marked(stat))

    deadline = time.monotonic() + timeout_s
    killed: set[tuple[int, int]] = set()
    while (left := find(is_left)) and time.monotonic() < deadline:
        killed.update((stat.pid, stat.starttime) for stat in left)
        _kill_and_wait(left, deadline)
    for pid, _ in killed:
        # Those adopted by this process; the rest have another parent.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return len(killed)


def _kill_and_wait(left: Collection[Stat], deadline: float) -> None:
    pidfds = [pidfd for stat in left if (pidfd := send(stat, signal.SIGKILL)) is not None]
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    waiting = len(pidfds)
    while waiting and (rest_s := deadline - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(rest_s * 1000):
            poll.unregister(pidfd)
            waiting -= 1
    for pidfd in pidfds:
        os.close(pidfd)
