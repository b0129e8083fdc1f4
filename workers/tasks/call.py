"""The task kind `call`: a Python callable, in a forked child or (`isolate: false`) in this very process.

Its arguments are the task's `args`; what it returns becomes the outputs. An exception is the failure's reason and its
traceback goes to the task's log; `sys.exit` means what it means for a script.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

import msgspec

from workers import params
from workers.dag import Task
from workers.errors import TickpoolError
from workers.masking import Mask
from workers.params import Lookup
from workers.process import Exit, fork
from workers.task_log import TaskLog

from . import MAX_OUTPUTS_BYTES, BadOutputs, Conclusion, Outcome, Scene, Started, as_outputs
from .imports import CannotImport, Imports

__all__ = ["run_here", "start"]

_REASON_CHARS = 2000
_REPORT_BYTES = MAX_OUTPUTS_BYTES + 8 * _REASON_CHARS


class _Report(msgspec.Struct):
    """What the child leaves in the memory file that it shares with this process."""

    reason: str | None = None
    outputs: dict[str, Any] = {}
    proven: bool = False


def start(task: Task, scene: Scene, output: int, imports: Imports) -> Started:
    """Start the callable in a forked child. Raises CannotStart, TickpoolError."""
    name = task.call or ""
    args = _resolve_args(task, scene.lookup)
    imports.preload(name)
    # Not a pipe: its capacity is as little as one page for a user with many of them (pipe(7)).
    report_fd = os.memfd_create("tickpool-report", os.MFD_CLOEXEC)
    try:
        child = fork(lambda: _run_in_child(name, args, scene, imports, report_fd), output=output, keep=report_fd)
    except TickpoolError:
        os.close(report_fd)
        raise
    return Started(child, lambda end: _conclude(end, report_fd, name, imports))


def run_here(task: Task, lookup: Lookup, imports: Imports, log: TaskLog, mask: Mask) -> Outcome:
    """Run the callable in this process; what it prints through `sys.stdout` and `sys.stderr` goes to the log.

    It gets no environment and no directory of its own, and nothing can interrupt it.
    """
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    stream = io.TextIOWrapper(_LogSink(log), "utf-8", "backslashreplace", write_through=True)  # type: ignore[type-var]
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        code, report = _call(task.call or "", _resolve_args(task, lookup), imports, mask)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Outcome(
        status="success" if code == 0 and report.reason is None else "failed",
        reason=report.reason,
        exit_code=code,
        duration_s=round(time.monotonic() - began, 6),
        max_rss_kib=after.ru_maxrss,
        cpu_user_s=round(after.ru_utime - before.ru_utime, 6),
        cpu_sys_s=round(after.ru_stime - before.ru_stime, 6),
        outputs=report.outputs,
    )


class _LogSink(io.RawIOBase):
    def __init__(self, log: TaskLog) -> None:
        self._log = log

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._log.write(bytes(data))
        return len(data)


def _resolve_args(task: Task, lookup: Lookup) -> dict[str, Any]:
    return dict(params.resolve(task.args, lookup)) if task.args else {}


def _call(name: str, args: dict[str, Any], imports: Imports, mask: Mask) -> tuple[int, _Report]:
    """Return the exit code that a script would have, and the report."""
    was_loaded = imports.is_loaded(name)
    try:
        function = imports.load(name)
        proven = not was_loaded and len(os.listdir("/proc/self/task")) == 1
        return 0, _Report(outputs=as_outputs(function(**args)), proven=proven)
    except SystemExit as stop:
        return _exit_code(stop, mask)
    except (BadOutputs, CannotImport) as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return 1, _Report(reason=mask.text(str(error))[:_REASON_CHARS])
    except Exception as error:  # noqa: BLE001 - the edge to the user's code: whatever it raises is its task's failure
        traceback.print_exc()
        return 1, _Report(reason=_sentence(error, mask))


def _exit_code(stop: SystemExit, mask: Mask) -> tuple[int, _Report]:
    if stop.code is None or isinstance(stop.code, int):
        # exit(3) keeps the low eight bits.
        code = (stop.code or 0) & 0xFF
        return code, _Report(reason=f"SystemExit: {stop.code}" if code else None)
    print(stop.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1, _Report(reason=mask.text(f"SystemExit: {stop.code}")[:_REASON_CHARS])


def _sentence(error: BaseException, mask: Mask) -> str:
    # Masked while it is whole: a cut could leave half a secret.
    text = " ".join(mask.text(str(error)).split())
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:_REASON_CHARS]


def _run_in_child(name: str, args: dict[str, Any], scene: Scene, imports: Imports, report_fd: int) -> int:
    sys.stdin, sys.stdout, sys.stderr = _stream(sys.stdin, 0), _stream(sys.stdout, 1), _stream(sys.stderr, 2)
    _take_on(scene.env)
    try:
        os.chdir(scene.cwd)
    except OSError as error:
        code, report = 1, _Report(reason=f"cannot enter the working directory `{scene.cwd}`: {error.strerror}")
    else:
        code, report = _call(name, args, imports, scene.mask)
    for thread in threading.enumerate():
        # As the interpreter does at its end; os._exit would cut them off.
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
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


def _conclude(end: Exit, report_fd: int, name: str, imports: Imports) -> Conclusion:
    try:
        report = msgspec.json.decode(os.pread(report_fd, _REPORT_BYTES, 0), type=_Report)
    except msgspec.DecodeError:
        # Killed, or it called os._exit: there is no report.
        gone = end.exit_code == 0
        return Conclusion("it ended without returning (os._exit or a fork that returned?)" if gone else None, {})
    finally:
        os.close(report_fd)
    if report.proven:
        imports.prove(name)
    return Conclusion(report.reason, report.outputs)
