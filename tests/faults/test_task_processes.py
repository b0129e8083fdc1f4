"""What a task's process may do: end in every way there is, refuse to end, and print without measure."""

from __future__ import annotations

import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service import WITHOUT_COVERAGE, Service, is_running

from workers.segments import LogReader

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]

MIB = 1 << 20
LIMIT = MIB
TAIL = 64 * 1024
# Signals whose default is to do nothing or to stop a process (signal(7)).
_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
# Python sets these to be ignored at its start, and a forked Python task is such a Python.
_IGNORED_BY_PYTHON = {"SIGPIPE", "SIGXFSZ"}


def _name(number: int) -> str:
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")


def _deadly() -> list[int]:
    return [number for number in sorted(signal.valid_signals()) if _name(number) not in _HARMLESS]


def _run(service: Service, wait_for: WaitFor, dag: str, timeout: float = 60) -> dict[str, dict[str, Any]]:
    """Run a DAG on a service; return the `task_finished` of each task."""
    asked = service.ask(dag)
    service.start()
    wait_for(lambda: service.has_ended(asked), timeout=timeout, what="the end of the run")
    return _ends(service, asked)


def _ends(service: Service, run_id: str) -> dict[str, dict[str, Any]]:
    ended = [e for e in _task_events(service) if e["event"] == "task_finished" and e["run_id"] == run_id]
    assert len({event["task_id"] for event in ended}) == len(ended)
    return {event["task_id"]: event for event in ended}


def _task_events(service: Service) -> list[dict[str, Any]]:
    reader = LogReader(service.log.with_name("orchestrator_events.jsonl"), from_start=True)
    events = reader.read()
    reader.close()
    return events


def _told(ends: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(end[key] for key in ("status", "exit_code", "signal", "reason")) for name, end in ends.items()}


# -- how it ends -----------------------------------------------------------------------------------------------------

CODES = """
import os, signal, sys

def leave(code):
    sys.exit(code)

def drop(code):
    os._exit(code)

def die(number):
    os.kill(os.getpid(), number)
    raise AssertionError("it lives on")
"""


def test_every_exit_code_is_recorded_as_it_was(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    (service.root / "codes.py").write_text(CODES, "ascii")
    codes = sorted({0, 1, 2, 126, 127, 128, 137, 143, 254, 255} | set(range(0, 256, count(64, 1))))
    tasks = [
        task
        for code in codes
        for task in (
            {"id": f"sh{code}", "run": f"exit {code}"},
            {"id": f"exit{code}", "call": "codes:leave", "args": {"code": code}},
            {"id": f"drop{code}", "call": "codes:drop", "args": {"code": code}},
        )
    ]
    told = _told(_run(service, wait_for, service.tasks("codes", *tasks)))
    for code in codes:
        assert told[f"sh{code}"] == (
            ("failed", code, None, f"exit code {code}") if code else ("success", 0, None, None)
        )
        says = ("failed", code, None, f"SystemExit: {code}") if code else ("success", 0, None, None)
        assert told[f"exit{code}"] == says
        # One that leaves by os._exit has no word for what it returned, and so did not succeed even with 0.
        gone = "it ended without returning (os._exit or a fork that returned?)"
        assert told[f"drop{code}"] == ("failed", code, None, f"exit code {code}" if code else gone)
    figure(f"{len(codes)} exit codes in shell tasks, by sys.exit and by os._exit: {len(told)} recorded exactly")


def test_every_signal_that_kills_a_task_is_recorded_by_its_number_and_name(
    service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    (service.root / "codes.py").write_text(CODES, "ascii")
    deadly = _deadly()
    shell = [{"id": f"sh{number}", "run": f"ulimit -c 0; kill -{number} $$; sleep 9"} for number in deadly]
    in_python = [number for number in deadly if _name(number) not in _IGNORED_BY_PYTHON]
    calls = [{"id": f"call{n}", "call": "codes:die", "args": {"number": n}} for n in in_python]
    told = _told(_run(service, wait_for, service.tasks("signals", *shell, *calls)))
    for number in deadly:
        assert told[f"sh{number}"] == ("failed", None, number, f"killed by {_name(number)}")
    for number in in_python:
        assert told[f"call{number}"] == ("failed", None, number, f"killed by {_name(number)}")
    figure(f"{len(deadly)} signals in shell tasks and {len(in_python)} in Python tasks recorded exactly")


MEMORY = """
import resource

def limit():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))

def in_one_piece():
    limit()
    return len(bytearray(1 << 30))

def in_small_pieces():
    limit()
    kept = []
    while True:
        kept.append(bytes(1000) + str(len(kept)).encode())
"""


def test_a_task_that_runs_out_of_memory_is_recorded_as_just_that(
    service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    service.environ |= WITHOUT_COVERAGE
    (service.root / "memory.py").write_text(MEMORY, "ascii")
    dag = service.tasks(
        "memory",
        *({"id": name, "call": f"memory:{name}"} for name in ("in_one_piece", "in_small_pieces")),
        # It keeps what has no newline, and finds no room for it.
        {"id": "sh", "run": "ulimit -v 65536; head -c 200000000 /dev/zero | tail -n 1 > /dev/null"},
        {"id": "exec", "run": "ulimit -v 1000; exec /bin/sleep 1"},
        {"id": "after", "run": "echo fine"},
    )
    ends = _run(service, wait_for, dag)
    told = _told(ends)
    assert told["in_one_piece"] == ("failed", 1, None, "MemoryError")
    assert told["in_small_pieces"] == ("failed", 1, None, "MemoryError")
    assert told["sh"] == ("failed", 1, None, "exit code 1")
    assert "memory exhausted" in Path(ends["sh"]["log"]).read_text("utf-8")
    status, code, number, reason = told["exec"]
    assert status == "failed"
    assert (code in (126, 127)) != (number is not None)
    assert told["after"][0] == "success"
    assert service.events("worker_exited") == []
    figure(f"Python: {told['in_small_pieces'][3]}; shell: {told['sh'][3]}; a program that cannot load: {reason}")


# -- when it will not end --------------------------------------------------------------------------------------------

DEAF = """
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 0.1; done' &
(setsid sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 0.1; done' &)
echo $$ >> pids
while :; do sleep 0.1; done
"""
# The first process goes at once; what it started does not.
HALF_DEAF = """
(trap '' TERM; setsid sh -c 'echo $$ >> pids; while :; do sleep 0.1; done') &
trap 'exit 0' TERM
echo $$ >> pids
while :; do sleep 0.02; done
"""
DEAF_PYTHON = """
import os, signal, time

def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            break
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(300)
"""
GRACE_S = 0.7


def test_a_tree_that_ignores_term_is_dead_at_its_timeout_and_the_grace(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    (service.root / "deaf.py").write_text(DEAF_PYTHON, "ascii")
    times = count(2, 20)
    kinds = {"deaf": {"run": DEAF}, "half": {"run": HALF_DEAF}, "python": {"call": "deaf:main"}}
    tasks = [
        {"id": f"{name}{n}", "timeout": "1s", "needs": [f"{name}{n - 1}"] if n else [], "trigger_rule": "all_done"}
        | kind
        for n in range(times)
        for name, kind in kinds.items()
    ]
    service.environ["TASK_GRACE_S"] = str(GRACE_S)
    ends = _run(service, wait_for, service.tasks("deaf", *tasks), timeout=10 + 3 * times)
    pids = [int(word) for word in (service.root / "pids").read_text("ascii").split()]
    assert len(pids) == times * (3 + 2 + 3)
    assert [pid for pid in pids if is_running(pid)] == []
    due_s = 1 + GRACE_S
    off_s = [end["duration_s"] - due_s for end in ends.values()]
    assert len(off_s) == 3 * times
    assert {(end["status"], end["reason"]) for end in ends.values()} == {("timeout", "timed out after 1s")}
    # Never early; nine of ten to the half second, and the rest late only by what a busy machine takes.
    in_time = [each for each in off_s if -0.05 <= each <= 0.5]
    assert len(in_time) >= 0.9 * len(off_s)
    assert min(off_s) >= -0.05
    assert max(off_s) <= 3
    figure(
        f"{len(off_s)} trees: dead {min(off_s):+.3f} to {max(off_s):+.3f} s off timeout + grace "
        f"(median {statistics.median(off_s):+.3f} s), 0 survivors"
    )


# -- what it prints --------------------------------------------------------------------------------------------------

LINES = 'i = 0\nwhile left > 0:\n    i += 1\n    left -= out.write(b"%015d\\n" % i * 4096)'
BINARY = "block = bytes(range(256)) * 256\nwhile left > 0:\n    left -= out.write(block)"
ANSI = 'block = b"\\x1b[2J\\x1b[31m\\x1b]0;title\\x07\\r\\b" * 4096\nwhile left > 0:\n    left -= out.write(block)'
NO_NEWLINE = 'block = b"x" * 65536\nwhile left > 0:\n    left -= out.write(block)'
TINY = 'left //= 64\nwhile left > 0:\n    left -= out.write(b"x")'
PRINTS = {"lines": LINES, "binary": BINARY, "ansi": ANSI, "no_newline": NO_NEWLINE, "tiny_writes": TINY}
_HEAD = 'import sys\nout, left = open(1, "wb", buffering=0, closefd=False), int(sys.argv[1])\nout.write(b"first")\n'
_FOOT = '\nout.write(b"last")\n'


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", PRINTS)
def test_a_task_that_prints_without_measure_fills_neither_memory_nor_disk(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure, kind: str
) -> None:
    size = count(64 * MIB, 1024 * MIB)
    (service.root / "prints.py").write_text(_HEAD + PRINTS[kind] + _FOOT, "ascii")
    quiet = service.dag("quiet", "echo quiet")
    loud = service.dag("loud", f"exec python3 prints.py {size}")
    service.start(SCHED_MAX_PARALLEL="1", TASK_LOG_SIZE="1MiB")
    before = service.ask(quiet)
    wait_for(lambda: service.has_ended(before))
    worker = service.events("run_started", before)[0]["pid"]
    before_kib = _peak_kib(worker)
    asked = service.ask(loud)
    wait_for(lambda: service.has_ended(asked), timeout=200, what="the end of the run")
    after_kib = _peak_kib(worker)
    (end,) = _ends(service, asked).values()
    assert (end["status"], end["reason"]) == ("success", None)
    assert service.events("run_started", asked)[0]["pid"] == worker
    printed = _check_log(Path(end["log"]), size // 64 if kind == "tiny_writes" else size)
    times = Path(end["log"] + ".times").stat().st_size
    assert times < MIB
    assert after_kib - before_kib < 8 * 1024
    figure(
        f"{kind}: {printed / MIB:.1f} MiB in {end['duration_s']:.1f} s; the worker's peak {before_kib // 1024} -> "
        f"{after_kib // 1024} MiB; log {Path(end['log']).stat().st_size / MIB:.2f} MiB + {times // 1024} KiB of times"
    )


def _check_log(log: Path, least: int) -> int:
    """Check the first and last bytes of a log and what it says of the rest; return how much was printed."""
    data = log.read_bytes()
    head, tail = data[:LIMIT], data[-TAIL:]
    assert head.startswith(b"first")
    assert tail.endswith(b"last")
    note = data[LIMIT:-TAIL]
    if not note:  # it fits
        return len(data)
    words = note.lstrip(b"\n").split(b" ", 2)
    assert (words[0], words[2]) == (b"[tickpool:", b"bytes left out]\n")
    assert len(data) <= LIMIT + TAIL + 64
    printed = LIMIT + int(words[1]) + TAIL
    assert printed >= least
    return printed
