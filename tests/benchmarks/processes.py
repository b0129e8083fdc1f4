"""Processes for benchmarks: clean children that begin together, a service, and the end of all that was started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeVar

import psutil

__all__ = ["ROOT", "Service", "clean_environ", "in_child", "in_processes", "tree_of", "wait_for"]

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = ("PYTHONDONTWRITEBYTECODE", "STATE_", "SCHED_", "ORCH_", "RUN_LOGS_DIR", "TASK_")


def in_processes(count: int, function: Callable[..., T], *args: object) -> list[T]:
    """Call `function(*args)` in `count` new processes at the same moment; return what each returned.

    They are forked from a small server that has imported what a worker has, so they are as large as a worker.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers.worker"])
    barrier = context.Barrier(count)
    started = []
    for _ in range(count):
        reading, writing = context.Pipe(duplex=False)
        process = context.Process(target=_be_child, args=(writing, barrier, function, args))
        process.start()
        writing.close()
        started.append((process, reading))
    try:
        return [_result(reading) for _, reading in started]
    finally:
        for process, _ in started:
            if process.is_alive():
                process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def in_child(function: Callable[..., T], *args: object) -> T:
    """Call `function(*args)` in a new small process: its memory is its own, and goes with it."""
    return in_processes(1, function, *args)[0]


def _be_child(results: Connection, barrier: Barrier, function: Callable[..., object], args: tuple[object, ...]) -> None:
    barrier.wait(60)
    try:
        results.send((True, function(*args)))
    except Exception as error:  # noqa: BLE001 - the child's edge: the parent raises it
        results.send((False, f"{type(error).__name__}: {error}"))


def _result(reading: Connection) -> Any:
    is_good, value = reading.recv()
    if not is_good:
        raise RuntimeError(f"in a benchmark's process: {value}")
    return value


def wait_for(predicate: Callable[[], object], timeout_s: float, what: str, pause_s: float = 0.002) -> None:
    """Wait until `predicate()` is true. Raises TimeoutError naming `what` never came."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout_s:g} s")
        time.sleep(pause_s)


def clean_environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without settings of ours, in which this checkout's packages are found.

    Compiled modules are kept, as where tickpool is installed: PYTHONDONTWRITEBYTECODE is left out.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {**kept, "PYTHONPATH": str(ROOT), **(more or {})}


def tree_of(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; none when it is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


class Service:
    """A running `python -m scheduler --serve` on a project directory. As a context manager it ends with its tree."""

    def __init__(self, project: Path, environ: Mapping[str, str] | None = None) -> None:
        self.project = project
        self._tree: list[psutil.Process] = []
        with (project / "service.out").open("ab") as output:
            self.started_at = time.time()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scheduler", "--dir", "schedules", "--serve"],
                cwd=project,
                env=clean_environ(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it as systemd does, and kill what is left of its tree after 15 s."""
        self.note_tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        self._kill_tree()

    def kill(self) -> None:
        """Kill the service itself with SIGKILL; its workers are left to see to themselves."""
        self.note_tree()
        self.process.kill()
        self.process.wait()

    def note_tree(self) -> list[psutil.Process]:
        """Return its processes now, and remember them for the end."""
        now = tree_of(self.process.pid)
        self._tree = list({*self._tree, *now})
        return now

    def _kill_tree(self) -> None:
        # psutil compares start times, so a pid that another process has taken is left alone.
        for process in self._tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
