"""Processes that attack a log: each function here is the whole life of one, and stops, tears or races where it says."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.event_log import EventLog
from workers.lock import LockTimeout
from workers.segments import LogReader

_HERE = Path(__file__).resolve().parent
PLACES = ("before the decision", "before the write", "within the write", "after the write", "within a rotation")


def start(function: Callable[..., None], *args: object, **options: Any) -> subprocess.Popen[str]:
    """Start a process that calls `function(*args)`; it is told by lines on its stdin and answers by lines."""
    name = function.__module__
    code = f"import {name}; {name}.{function.__name__}(*{tuple(args)!r})"
    search = os.pathsep.join([str(_HERE), str(_HERE.parent), str(_HERE.parents[1])])
    environ = {**os.environ, "PYTHONPATH": search, **options.pop("environ", {})}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environ, **pipes, **options)


def ask(process: subprocess.Popen[str], line: str) -> str:
    """Tell the process a line; return its answer."""
    tell(process, line)
    return answer(process)


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Tell the process a line."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    """Return the next line the process answers."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def end(*processes: subprocess.Popen[str]) -> None:
    """Kill the processes and close their pipes."""
    for process in processes:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the process to end well; return what is left of its answers."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return said


# -- the processes ---------------------------------------------------------------------------------------------------


def append_as_told(path: str) -> None:
    """Append for each line; answer with the seq, or with the refusal. `fresh` opens the log anew."""
    log = EventLog(path, fsync="off", lock_timeout_s=0.2)
    for line in sys.stdin:
        if line.strip() == "fresh":
            log.close()
            log = EventLog(path, fsync="off", lock_timeout_s=0.2)
        try:
            print(log.append({"event": "tested", "by": "follower"})[0]["seq"], flush=True)
        except LockTimeout as error:
            print(error, flush=True)


def append_stopping(path: str, by: str = "stopped") -> None:
    """Append for each line, and be stopped by SIGSTOP at the place of `PLACES` that the line names."""
    log = EventLog(path, fsync="off")
    log.append({"event": "opened"})
    write, rename = os.write, os.rename
    place = ""

    def stop(here: str) -> None:
        if place == here:
            os.kill(os.getpid(), signal.SIGSTOP)

    def write_stopping(fd: int, data: bytes) -> int:
        if b'"event":"' not in data:
            return write(fd, data)
        stop("before the write")
        half = len(data) // 2 if place == "within the write" else 0
        written = write(fd, data[:half]) if half else 0
        stop("within the write")
        written += write(fd, data[half:])
        stop("after the write")
        return written

    def rename_stopping(source: Any, target: Any) -> None:
        stop("within a rotation")
        rename(source, target)

    def decide(_new: object) -> list[dict[str, str]]:
        stop("before the decision")
        return [{"event": "tested", "by": by}]

    os.write, os.rename = write_stopping, rename_stopping
    for line in sys.stdin:
        place = line.strip()
        if place == "within a rotation":
            log.rotate(0, lambda _new: [])
        print(log.transact(decide)[0]["seq"], flush=True)


def tear_writes(path: str, acknowledged: str, kills: int, seed: int) -> None:
    """Fork writers one after the other, each killed by SIGKILL with a part of its last line written.

    What an append acknowledged is noted in `acknowledged` before anything else is done.
    """
    chance = random.Random(seed)
    notes = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in range(kills):
        whole, part = chance.randrange(1, 5), chance.random()
        batch = chance.choice([1, 1, 3])
        child = os.fork()
        if child == 0:
            _append_and_tear(path, notes, f"{seed}.{number}", whole, part, batch)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    os.close(notes)
    EventLog(path, fsync="off").append({"event": "last"})


def _append_and_tear(path: str, notes: int, name: str, whole: int, part: float, batch: int) -> None:
    log, write = EventLog(path, fsync="off"), os.write
    for number in range(whole):
        keys = [f"{name}.{number}.{place}" for place in range(batch)]
        log.append(*({"event": "tested", "key": key, "text": "x" * 200} for key in keys))
        write(notes, "".join(f"{key}\n" for key in keys).encode())

    def torn_write(fd: int, data: bytes) -> int:
        if b'"event":"tested"' not in data:  # a tail of another one that is mended first
            return write(fd, data)
        write(fd, data[: 1 + int(part * (len(data) - 1))])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    os.write = torn_write
    log.append(*({"event": "tested", "key": f"{name}.torn.{place}"} for place in range(batch)))


def rotate_and_be_killed(path: str, flag: str, seed: int) -> None:
    """Rotate again and again, in forks that are killed by SIGKILL after some milliseconds, until `flag` is there.

    Print how many were killed.
    """
    import filelock  # noqa: F401 - once, and not anew in each fork: it takes longer than a fork lives

    chance, kills = random.Random(seed), 0
    while not os.path.exists(flag):
        child = os.fork()
        if child == 0:
            log, reader = EventLog(path, fsync="off"), LogReader(path)
            while True:
                log.rotate(20_000, lambda _new: [{"event": "checkpoint"}], reader)
        signal.sigtimedwait([], chance.uniform(0.001, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    print(kills)


def follow_until(path: str, flag: str) -> None:
    """Follow the log from its first line until `flag` is there; print how many lines came, or what came wrong."""
    reader, next_seq, reads = LogReader(path, from_start=True), 1, 0
    numbers: dict[str, int] = {}
    is_over = False
    while True:
        for event in reader.read():
            assert event["seq"] == next_seq, (event, next_seq)
            next_seq += 1
            if "number" in event:
                assert event["number"] == numbers.get(event["by"], 0), event
                numbers[event["by"]] = event["number"] + 1
        reads += 1
        if is_over:
            break
        is_over = os.path.exists(flag)
    assert reader.corrupt == 0
    print(next_seq - 1, sum(numbers.values()), reads)
