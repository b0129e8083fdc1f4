"""A disk that may lose power: what a process did to its files, and all that may be found of it afterwards.

The model is the pessimistic one of POSIX (and of Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):
a file's bytes are sure once it was flushed, a name once its directory was; of the rest anything may be missing, in any
order, or be there as zeros.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from workers.event_log import EventLog

Trace = list[list[Any]]
Found = dict[str, bytes | None]


# -- in the process that is watched ----------------------------------------------------------------------------------


def record(root: str, trace: str, life: Callable[[Path, Callable[[str], None]], None], dies_after: int = 0) -> None:
    """Fork a process that lives `life(root, acknowledge)` and writes its calls to `trace`; it may be killed in it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    signal.alarm(60)
    notes = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    write, calls = os.write, 0

    def note(*row: object) -> None:
        nonlocal calls
        write(notes, (json.dumps(row) + "\n").encode())
        calls += 1
        if calls == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(root, note)
    life(Path(root), lambda key: note("ack", key))
    os._exit(0)


def _watch(root: str, note: Callable[..., None]) -> None:
    """Let every call that changes a file below `root` be noted once it is done."""

    def name(path: Any) -> str:
        return os.path.relpath(path, root)

    def ours(fd: int) -> bool:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(root)

    def on_open(done: Any, _before: Any, path: Any, flags: int, *_rest: Any) -> None:
        if flags & os.O_CREAT and not _before and str(path).startswith(root):
            note("create", name(path), os.fstat(done).st_ino)

    def on_flush(_done: Any, _before: Any, fd: int) -> None:
        place = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isdir(place):
            note("flush names", name(place))
        else:
            note("flush", os.fstat(fd).st_ino)

    def on_write(done: int, _before: Any, fd: int, data: bytes) -> None:
        if ours(fd):
            note("write", os.fstat(fd).st_ino, data[:done].decode("latin-1"))

    after: dict[str, Callable[..., None]] = {
        "open": on_open,
        "write": on_write,
        "ftruncate": lambda _d, _b, fd, size: note("cut", os.fstat(fd).st_ino, size),
        "fsync": on_flush,
        "fdatasync": on_flush,
        "link": lambda _d, _b, source, target: note("link", name(source), name(target)),
        "rename": lambda _d, _b, source, target: note("rename", name(source), name(target)),
        "unlink": lambda _d, _b, path: note("unlink", name(path)),
        "mkdir": lambda _d, _b, path, *_mode: note("mkdir", name(path)),
    }
    for call, noted in after.items():
        setattr(os, call, _wrapped(getattr(os, call), noted))


def _wrapped(call: Callable[..., Any], noted: Callable[..., None]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        was_there = call.__name__ == "open" and os.path.lexists(args[0])
        done = call(*args, **options)
        noted(done, was_there, *args)
        return done

    return wrapped


def append_and_rotate(root: Path, acknowledge: Callable[[str], None]) -> None:
    """Append with every append flushed, one and several at a time, and rotate twice."""
    log = EventLog(root / "logs" / "log.jsonl", fsync="always")
    for number in range(9):
        keys = [f"{number}.{place}" for place in range(1 + 2 * (number % 2))]
        log.append(*({"event": "tested", "key": key, "text": "x" * 50} for key in keys))
        for key in keys:
            acknowledge(key)
        if number in (3, 6):
            log.rotate(0, lambda _new: [{"event": "checkpoint"}])


def append_after(root: Path, acknowledge: Callable[[str], None]) -> None:
    """Append twice, as the next process does."""
    log = EventLog(root / "logs" / "log.jsonl", fsync="always")
    for key in ("after.1", "after.2"):
        log.append({"event": "tested", "key": key})
        acknowledge(key)


# -- what is found ---------------------------------------------------------------------------------------------------


class Disk:
    """What is sure of a disk after some calls, and what is on its way."""

    def __init__(self) -> None:
        self.sure: dict[int, bytes] = {}
        self.now: dict[int, bytes] = {}
        self.names: dict[str, int | None] = {}
        self.names_now: dict[str, int | None] = {}
        self.pending: list[dict[str, Any]] = []
        self.acknowledged: list[str] = []

    def do(self, call: str, *args: Any) -> None:
        """Do one call of a trace."""
        getattr(self, "_" + call.replace(" ", "_"))(*args)

    def after_power_loss(self) -> Iterator[Found]:
        """Yield each state that may be found: path -> content, None for a directory."""
        seen = set()
        rows = range(len(self.pending))
        for size in range(len(self.pending) + 1):
            for kept in combinations(rows, size):
                names = dict(self.names)
                for row in kept:
                    for name, inode in self.pending[row].items():
                        names.pop(name, None) if inode == "gone" else names.__setitem__(name, inode)
                for how in ("sure", "all", "half", "zeros"):
                    found = self._found(names, how)
                    key = hash(frozenset(found.items()))
                    if key not in seen:
                        seen.add(key)
                        yield found

    def _found(self, names: dict[str, int | None], how: str) -> Found:
        found: Found = {}
        for name in sorted(names):
            parent = os.path.dirname(name)
            inode = names[name]
            if not parent or parent in found:
                found[name] = None if inode is None else self._content(inode, how)
        return found

    def _content(self, inode: int, how: str) -> bytes:
        sure, now = self.sure[inode], self.now[inode]
        common = len(sure) if now.startswith(sure) else 0
        ends = {"sure": sure, "all": now, "half": now[: (common + len(now)) // 2]}
        return ends.get(how, now[:common] + b"\0" * (len(now) - common))

    def _change(self, changed: dict[str, Any]) -> None:
        self.pending.append(changed)
        for name, inode in changed.items():
            if inode == "gone":
                self.names_now.pop(name, None)
            else:
                self.names_now[name] = inode

    def _create(self, name: str, inode: int) -> None:
        self.sure[inode] = self.now[inode] = b""
        self._change({name: inode})

    def _mkdir(self, name: str) -> None:
        self._change({name: None})

    def _link(self, source: str, target: str) -> None:
        self._change({target: self.names_now[source]})

    def _rename(self, source: str, target: str) -> None:
        self._change({target: self.names_now[source], source: "gone"})

    def _unlink(self, name: str) -> None:
        self._change({name: "gone"})

    def _write(self, inode: int, data: str) -> None:
        self.now[inode] += data.encode("latin-1")

    def _cut(self, inode: int, size: int) -> None:
        self.now[inode] = self.now[inode][:size]

    def _flush(self, inode: int) -> None:
        self.sure[inode] = self.now[inode]

    def _flush_names(self, directory: str) -> None:
        place = "" if directory == "." else directory
        left = []
        for changed in self.pending:
            if all(os.path.dirname(name) == place for name in changed):
                for name, inode in changed.items():
                    self.names.pop(name, None) if inode == "gone" else self.names.__setitem__(name, inode)
            else:
                left.append(changed)
        self.pending = left

    def _ack(self, key: str) -> None:
        self.acknowledged.append(key)
