"""A task in a forked child of this process, and the memory file through which the child reports how it went.

The child has this process's memory, but of its environment only what the task is given: the rest is taken out of
`os.environ` and out of what /proc shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import msgspec

from workers.errors import TickpoolError
from workers.process import Exit, fork

from . import MAX_OUTPUTS_BYTES, Conclusion, Started

__all__ = ["REASON_CHARS", "Report", "say", "start"]

REASON_CHARS = 2000
_REPORT_BYTES = MAX_OUTPUTS_BYTES + 8 * REASON_CHARS


class Report(msgspec.Struct):
    """What a child reports: why it failed (None: it did not), its outputs, and of a `call` whether its module is fit
    to be imported by this process.
    """

    reason: str | None = None
    outputs: dict[str, Any] = {}
    proven: bool = False


def _ignore(report: Report) -> None:
    pass


def start(
    body: Callable[[], tuple[int, Report]],
    env: Mapping[str, str],
    output: int,
    heard: Callable[[Report], None] = _ignore,
) -> Started:
    """Start a child that runs `body`, reports, and exits with the code that `body` returns.

    It has the environment `env` and its stdout and stderr on the descriptor `output`. `heard` gets the report after its
    end, if there is one. Raises CannotStart.
    """
    # Not a pipe: its capacity is as little as one page for a user with many of them (pipe(7)).
    report_fd = os.memfd_create("tickpool-report", os.MFD_CLOEXEC)
    try:
        child = fork(lambda: _run_in_child(body, env, report_fd), output=output, keep=report_fd)
    except TickpoolError:
        os.close(report_fd)
        raise
    return Started(child, lambda end: _conclude(end, report_fd, heard))


def say(line: str) -> None:
    """Write a line to the log of the task whose child this process is."""
    sys.stdout.write(line + "\n")


def _run_in_child(body: Callable[[], tuple[int, Report]], env: Mapping[str, str], report_fd: int) -> int:
    sys.stdin, sys.stdout, sys.stderr = _stream(sys.stdin, 0), _stream(sys.stdout, 1), _stream(sys.stderr, 2)
    _take_on(env)
    code, report = body()
    os.pwrite(report_fd, msgspec.json.encode(report), 0)
    return code


def _stream(stream: TextIO | None, fd: int) -> TextIO:
    """Keep a stream that is on `fd` already; a test's or a notebook's is not."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() == fd:
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
            return stream
    if fd == 0:
        return open(fd, encoding="utf-8", closefd=False)
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)


def _take_on(env: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name not in env]:
        del os.environ[name]
    for name, value in env.items():
        # Those that stay the same too: the C library's copies must not lie in what is wiped.
        os.environ[name] = value
    _wipe_birth_environment()


def _wipe_birth_environment() -> None:
    """Clear what /proc/self/environ shows: what the fork server was started with, the service's secrets among it."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    # env_start and env_end: fields 50 and 51 of proc(5), counted from the state, which is the third; 0 where hidden.
    start, end = int(fields[47]), int(fields[48])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def _conclude(end: Exit, report_fd: int, heard: Callable[[Report], None]) -> Conclusion:
    try:
        report = msgspec.json.decode(os.pread(report_fd, _REPORT_BYTES, 0), type=Report)
    except msgspec.DecodeError:
        # Killed, or it called os._exit: there is no report.
        gone = end.exit_code == 0
        return Conclusion("it ended without returning (os._exit or a fork that returned?)" if gone else None, {})
    finally:
        os.close(report_fd)
    heard(report)
    return Conclusion(report.reason, report.outputs)
