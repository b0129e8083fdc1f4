"""The processes of one selftest: what it started and all that descends from it, and no other."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from workers.process import Stat
from workers.process_tree import find, reap_orphans, send
from workers.worker import WORKER_NAME

__all__ = ["Member", "kill", "kill_all", "members"]

_GONE_WITHIN_S = 20.0
_POLL_S = 0.005


class Member(NamedTuple):
    """A live process of the family. `kind` is `service`, `tick`, `fork server`, `worker`, `task` or `other`."""

    kind: str
    stat: Stat


def members(root: Path, started: dict[int, str]) -> list[Member]:
    """Return the live descendants of this process that work in `root`; `started` names the kinds of some pids.

    Whoever calls is a subreaper, so what lost its parent is still a descendant.
    """
    stats = find(lambda _: True)
    below: dict[int, list[Stat]] = {}
    for stat in stats:
        below.setdefault(stat.ppid, []).append(stat)
    kinds = {os.getpid(): "selftest"}
    found: list[Member] = []
    left = [os.getpid()]
    while left:
        parent = left.pop()
        for stat in below.get(parent, ()):
            kinds[stat.pid] = started.get(stat.pid) or _kind(stat, kinds[parent])
            left.append(stat.pid)
            if _works_in(stat.pid, root):
                found.append(Member(kinds[stat.pid], stat))
    return found


def kill(member: Member) -> bool:
    """Send SIGKILL to exactly this process; return whether it was still there."""
    pidfd = send(member.stat, signal.SIGKILL)
    if pidfd is None:
        return False
    os.close(pidfd)
    return True


def kill_all(root: Path) -> None:
    """Kill the family round by round until nobody is left, and take their ends."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    # A second Ctrl+C must not leave some of them behind.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        while (left := members(root, {})) and time.monotonic() < deadline:
            for member in left:
                kill(member)
            time.sleep(_POLL_S)
        reap_orphans()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _kind(stat: Stat, of_parent: str) -> str:
    if of_parent in ("worker", "task"):
        return "task"
    if of_parent == "fork server":
        return "worker"
    name, words = _read(stat.pid, "comm"), _read(stat.pid, "cmdline")
    if name.startswith(WORKER_NAME):
        return "worker"
    if "multiprocessing.forkserver" in words:
        return "fork server"
    return "task" if "TICKPOOL_RUN=" in _read(stat.pid, "environ") else "other"


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
    return ""


def _works_in(pid: int, root: Path) -> bool:
    try:
        place = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return place == root or root in place.parents
