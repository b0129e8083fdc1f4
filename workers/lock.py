"""A cross-process lock on a file of its own, taken with a deadline, that can name who holds it.

The lock is the kernel's (`flock` through filelock), so a process that dies in any way releases it. The lock file is
never removed: unlinking one splits its waiters across two inodes.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

from .errors import TickpoolError

__all__ = ["Lock", "LockTimeout", "NetworkFilesystem", "refuse_network_filesystem"]

_TRIES = 4
_PAUSE_S = 0.0001
_LONGEST_PAUSE_S = 0.005
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.glusterfs", "afs", "9p")


class LockTimeout(TickpoolError):
    """A lock that could not be had in time: (path, seconds waited, pid of the holder or None)."""

    def __str__(self) -> str:
        path, waited_s, pid = self.args
        holder = f"process {pid} holds it" if pid else "its holder is not visible from here"
        return f"{path}: the lock was not free within {waited_s:g} s; {holder}"


class NetworkFilesystem(TickpoolError):
    """A state file where locks do not hold: (path, type of the file system)."""

    def __str__(self) -> str:
        path, kind = self.args
        return f"{path}: lies on a network file system ({kind}), where locks are not reliable; use a local disk"


class Lock:
    """An exclusive lock on `path`; usable from one thread at a time, free again in a forked child."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path.parent)) / path.name
        self._name = str(self.path)
        self._fd = -1
        _locks.add(self)

    def acquire(self, timeout_s: float) -> None:
        """Take the lock. Raises LockTimeout after `timeout_s` seconds, OSError when the file cannot be opened."""
        if self.try_acquire():
            return
        deadline = time.monotonic() + timeout_s
        pause_s = _PAUSE_S
        # Several looks each time: a busy writer leaves the lock free for a microsecond or two.
        while not any(self.try_acquire() for _ in range(_TRIES)):
            if time.monotonic() >= deadline:
                raise LockTimeout(str(self.path), timeout_s, self.holder())
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.05, _LONGEST_PAUSE_S)

    def try_acquire(self) -> bool:
        """Take the lock if it is free; return whether it is now held."""
        while True:
            fd = self._fd if self._fd >= 0 else self._open()
            if not self._take(fd, blocking=False):
                return False
            try:
                is_linked = os.fstat(fd).st_nlink > 0
            except OSError:
                self.close()
                raise
            if is_linked:
                return True
            # Unlinked or replaced behind our back: others lock what has the path now.
            self.close()

    def release(self) -> None:
        """Give the lock back."""
        if self._fd >= 0:
            try:
                self._give(self._fd)
            except OSError:
                self.close()

    def close(self) -> None:
        """Close the descriptor, which releases the lock unless a forked child kept it."""
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def holder(self) -> int | None:
        """Return the pid that holds the lock, from /proc/locks, or None."""
        try:
            stat = os.fstat(self._fd) if self._fd >= 0 else os.stat(self._name)
            table = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        rows = [row.split() for row in table.splitlines() if "FLOCK" in row and "->" not in row]
        pids = {columns[5]: int(columns[4]) for columns in rows if columns[5].endswith(f":{stat.st_ino}")}
        device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
        # btrfs shows another device number there than stat does.
        pid = pids.get(device, next(iter(pids.values()), 0) if len(pids) == 1 else 0)
        return pid if pid > 0 else None

    def _open(self) -> int:
        # Imported here because readers never lock and filelock costs 40 ms to import.
        from filelock import lock_descriptor, unlock_descriptor

        self._take, self._give = lock_descriptor, unlock_descriptor
        # For reading is enough for flock, so that another user's lock file does as well.
        # A link in its place would have a file made wherever it leads to.
        self._fd = os.open(self._name, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        return self._fd


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _close_all() -> None:
    for lock in list(_locks):
        lock.close()


# flock belongs to the open file description, which fork shares: a forked task that outlived its killed worker would
# keep the log locked for as long as it runs (measured; see also tox-dev/filelock#634).
os.register_at_fork(after_in_child=_close_all)


def refuse_network_filesystem(path: Path) -> None:
    """Raise NetworkFilesystem when `path` lies on a file system whose locks cannot be trusted."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    place = os.path.realpath(path)
    best, kind = "", ""
    for row in mounts.splitlines():
        point, fstype = row.split()[1:3]
        point = point.replace("\\040", " ")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    if kind in _NETWORK:
        raise NetworkFilesystem(str(path), kind)
