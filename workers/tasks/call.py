"""The task kind `call`: a Python callable, in a forked child or (`isolate: false`) in this very process.

Its arguments are the task's `args`; what it returns becomes the outputs. An exception is the failure's reason and its
traceback goes to the task's log; `sys.exit` means what it means for a script.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import sys
import threading
import time
import traceback
from typing import Any

from workers import params
from workers.dag import Task
from workers.masking import Mask
from workers.params import Lookup
from workers.task_log import TaskLog

from . import BadOutputs, Outcome, Scene, Started, as_outputs, forked
from .forked import REASON_CHARS, Report
from .imports import CannotImport, Imports

__all__ = ["run_here", "start"]


def start(task: Task, scene: Scene, output: int, imports: Imports) -> Started:
    """Start the callable in a forked child. Raises CannotStart, TickpoolError."""
    name = task.call or ""
    args = _resolve_args(task, scene.lookup)
    imports.preload(name)
    return forked.start(
        lambda: _run_in_child(name, args, scene, imports),
        scene.env,
        output,
        lambda report: imports.prove(name) if report.proven else None,
    )


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


def _call(name: str, args: dict[str, Any], imports: Imports, mask: Mask) -> tuple[int, Report]:
    """Return the exit code that a script would have, and the report."""
    was_loaded = imports.is_loaded(name)
    try:
        function = imports.load(name)
        proven = not was_loaded and len(os.listdir("/proc/self/task")) == 1
        return 0, Report(outputs=as_outputs(function(**args)), proven=proven)
    except SystemExit as stop:
        return _exit_code(stop, mask)
    except (BadOutputs, CannotImport) as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return 1, Report(reason=mask.text(str(error))[:REASON_CHARS])
    except Exception as error:  # noqa: BLE001 - the edge to the user's code: whatever it raises is its task's failure
        traceback.print_exc()
        return 1, Report(reason=_sentence(error, mask))


def _exit_code(stop: SystemExit, mask: Mask) -> tuple[int, Report]:
    if stop.code is None or isinstance(stop.code, int):
        # exit(3) keeps the low eight bits.
        code = (stop.code or 0) & 0xFF
        return code, Report(reason=f"SystemExit: {stop.code}" if code else None)
    print(stop.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1, Report(reason=mask.text(f"SystemExit: {stop.code}")[:REASON_CHARS])


def _sentence(error: BaseException, mask: Mask) -> str:
    # Masked while it is whole: a cut could leave half a secret.
    text = " ".join(mask.text(str(error)).split())
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:REASON_CHARS]


def _run_in_child(name: str, args: dict[str, Any], scene: Scene, imports: Imports) -> tuple[int, Report]:
    try:
        os.chdir(scene.cwd)
    except OSError as error:
        return 1, Report(reason=f"cannot enter the working directory `{scene.cwd}`: {error.strerror}")
    said = _call(name, args, imports, scene.mask)
    for thread in threading.enumerate():
        # As the interpreter does at its end; os._exit would cut them off.
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    return said
