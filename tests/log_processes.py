"""What other processes do to a log in the tests: each function here is the whole life of one process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.event_log import EventLog, LogUnwritable
from workers.lock import Lock
from workers.segments import LogReader

_TESTS = Path(__file__).resolve().parent


def start(function: Callable[..., None], *args: object) -> subprocess.Popen[str]:
    """Start a process that calls `function(*args)`; the arguments are strings and numbers."""
    code = f"import log_processes; log_processes.{function.__name__}(*{tuple(args)!r})"
    search = os.pathsep.join([str(_TESTS), str(_TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": search}, stdout=subprocess.PIPE, text=True
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for the processes to end well; return what each printed."""
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the next line the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    """Kill the process and forget it."""
    process.kill()
    process.communicate()


def append_many(path: str, name: str, count: int) -> None:
    log = EventLog(path, fsync="off")
    for number in range(count):
        log.append({"event": "tested", "by": name, "number": number})


def rotate_until(path: str, flag: str) -> None:
    """Rotate again and again until the file `flag` is there; print how often it was done."""
    log, reader, times = EventLog(path, fsync="off"), LogReader(path), 0
    while not os.path.exists(flag):
        times += log.rotate(20_000, lambda _new: [{"event": "checkpoint"}], reader)
    print(times)


def claim_keys(path: str, name: str, count: int) -> None:
    """Try to claim every key, each only if nobody has; print how many were had."""
    log, reader = EventLog(path, fsync="off"), LogReader(path, from_start=True)
    seen: set[int] = set()
    had = 0

    def is_free(new: list[dict[str, Any]]) -> bool:
        seen.update(event["key"] for event in new)
        return key not in seen

    for key in range(count):
        won = log.append_if(is_free, [{"event": "claimed", "key": key, "by": name}], reader)
        seen.update(event["key"] for event in won)
        had += len(won)
    print(had)


def hold(path: str) -> None:
    """Hold the lock until killed."""
    lock = Lock(Path(path))
    lock.acquire(5)
    print("held", flush=True)
    signal.pause()


def hold_beside_a_child(path: str) -> None:
    """Hold the lock until killed, with a forked child that outlives this process."""
    lock = Lock(Path(path))
    lock.acquire(5)
    child = os.fork()
    if child == 0:
        signal.pause()
    print(child, flush=True)
    signal.pause()


def die_in_rotation(path: str, call: str) -> None:
    """Be killed by SIGKILL at the moment the rotation makes the system call `os.<call>`."""
    log, reader = EventLog(path, fsync="off"), LogReader(path)
    log.append({"event": "before"})
    setattr(os, call, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
    log.rotate(0, lambda _new: [{"event": "checkpoint"}], reader)


def meet_a_size_limit(path: str, limit: int) -> None:
    """Append where a file may grow to `limit` bytes; print what the append says."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        EventLog(path, fsync="off").append({"event": "tested", "text": "x" * 300})
    except LogUnwritable as error:
        print(error)


def follow_from(path: str, segment: int, offset: int) -> None:
    """Print the seqs behind a position."""
    from workers.segments import Position

    print(*(event["seq"] for event in LogReader(path, Position(segment, offset)).read()))
