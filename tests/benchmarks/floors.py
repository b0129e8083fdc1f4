"""The raw floors: what the operating system and the standard library do with no scheduler around them.

Each is called in clean processes (`processes.in_processes`) and returns plain figures.
"""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from multiprocessing.queues import Queue
from typing import Any, NamedTuple

import msgspec

from .jobs import slow_fib

__all__ = [
    "Appended",
    "append_flock",
    "append_sqlite",
    "fork_each",
    "keep_appending",
    "prepare_sqlite",
    "queue_and_append",
    "sleep_to_second",
    "sleep_until",
    "spawn_each",
]

_LINE = (
    b'{"timestamp":"2026-11-23T15:05:00.123456Z","event":"run_started","seq":123456,"host":"host.example",'
    b'"pid":12345,"run_id":"report.20261123T1505Z","attempt":1,"starttime":123456,"n":1}\n'
)


class Appended(NamedTuple):
    """What one writer did: when it began and ended (monotonic), how many appends, and its longest one in seconds."""

    began: float
    ended: float
    appends: int
    worst_s: float


def keep_appending(append: Callable[[], object], duration_s: float) -> Appended:
    """Append for a time."""
    began = last = time.monotonic()
    deadline = began + duration_s
    count, worst_s = 0, 0.0
    while last < deadline:
        append()
        now = time.monotonic()
        worst_s = max(worst_s, now - last)
        last = now
        count += 1
    return Appended(began, last, count, worst_s)


def append_flock(path: str, duration_s: float, sync: bool) -> Appended:
    """Append an encoded line under flock on kept descriptors, with fdatasync under the lock if `sync`."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o644)

    def append() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(log, _LINE)
        if sync:
            os.fdatasync(log)
        fcntl.flock(lock, fcntl.LOCK_UN)

    return keep_appending(append, duration_s)


def append_sqlite(path: str, duration_s: float, synchronous: str) -> Appended:
    """Insert an encoded line into the table of `prepare_sqlite`, one commit each, synchronous NORMAL or FULL."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
        database.execute(f"PRAGMA synchronous={synchronous}")
        line = _LINE.decode()
        return keep_appending(lambda: database.execute("INSERT INTO events VALUES (?)", (line,)), duration_s)


def prepare_sqlite(path: str) -> None:
    """Make a database in WAL mode with a table for lines: two processes cannot switch one to WAL at the same time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE events (line TEXT)")


def queue_and_append(path: str, jobs: int, workers: int) -> float:
    """Return the seconds for `jobs` messages through mp.Queue to workers that append a line each, and back."""
    context = multiprocessing.get_context("fork")
    inbox: Queue[Any] = context.Queue()
    results: Queue[Any] = context.Queue()
    started = [context.Process(target=_answer, args=(path, inbox, results)) for _ in range(workers)]
    for process in started:
        process.start()
    for _ in started:
        inbox.put(0)
    for _ in started:
        results.get()
    began = time.perf_counter()
    for number in range(1, jobs + 1):
        inbox.put(number)
    for _ in range(jobs):
        results.get()
    elapsed_s = time.perf_counter() - began
    for _ in started:
        inbox.put(None)
    for process in started:
        process.join()
    return elapsed_s


def _answer(path: str, inbox: Queue[Any], results: Queue[Any]) -> None:
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    encode = msgspec.json.Encoder().encode
    while (number := inbox.get()) is not None:
        os.write(log, encode({"event": "run_finished", "status": "success", "seq": number}) + b"\n")
        results.put(number)


def spawn_each(count: int, in_flight: int) -> float:
    """Return the seconds for `count` times posix_spawn of `true` and its wait, `in_flight` at once."""
    running: deque[int] = deque()
    began = time.perf_counter()
    for _ in range(count):
        if len(running) >= in_flight:
            running.remove(os.waitpid(-1, 0)[0])
        running.append(os.posix_spawn("/bin/true", ["true"], os.environ))
    while running:
        os.waitpid(running.popleft(), 0)
    return time.perf_counter() - began


def fork_each(count: int, n: int) -> float:
    """Return the seconds for `count` forks in turn, each computing fib(n) and ending, waited for (n=0: nothing)."""
    began = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            slow_fib(n)
            os._exit(0)
        os.waitpid(pid, 0)
    return time.perf_counter() - began


def sleep_until(moments: list[float]) -> list[float]:
    """Sleep until each moment of the wall clock; return by how many seconds each was late."""
    late = []
    for moment in moments:
        time.sleep(max(0.0, moment - time.time()))
        late.append(time.time() - moment)
    return late


def sleep_to_second() -> float:
    """Sleep until the next whole second but one of the wall clock; return by how many seconds that was late."""
    return sleep_until([math.ceil(time.time()) + 1])[0]
