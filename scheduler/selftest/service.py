"""The attacked service: `python -m scheduler --serve` in its project, started again whenever it is gone."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from workers.process import Child, Exit, spawn
from workers.settings import variables

from .project import Project

__all__ = ["Services"]

_PACKAGES = Path(__file__).resolve().parents[2]


class Services:
    """The processes that the selftest has started itself: the service, and now and then a single tick beside it.

    `ended_oddly` says which of them ended though nobody had killed it.
    """

    def __init__(self, project: Project, environ: Mapping[str, str]) -> None:
        ours = {variable.name for variable in variables()} | {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
        self._environ = {name: value for name, value in environ.items() if name not in ours}
        path = [str(_PACKAGES), environ.get("PYTHONPATH", "")]
        self._environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        self._project = project
        self._running: dict[str, Child] = {}
        self._is_stopping = False
        self.starts = 0
        self.killed: set[int] = set()
        self.ended_oddly: list[str] = []

    def start(self, kind: str, chances: dict[str, float]) -> None:
        """Start the `service` or a `tick`, with failpoints of these chances."""
        word = "--serve" if kind == "service" else "--once"
        self.starts += kind == "service"
        out = os.open(self._project.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._running[kind] = spawn(
                [sys.executable, "-m", "scheduler", "--dir", "schedules", word],
                env={**self._environ, **self._project.environ(chances)},
                cwd=str(self._project.root),
                output=out,
            )
        finally:
            os.close(out)

    def pid(self, kind: str) -> int | None:
        """Return the pid of a process that runs, or None."""
        self._look()
        return self._running[kind].pid if kind in self._running else None

    def pids(self) -> dict[int, str]:
        """Return what runs, by pid."""
        self._look()
        return {child.pid: kind for kind, child in self._running.items()}

    def stop(self) -> None:
        """Tell the service to end in order."""
        self._is_stopping = True
        signal.pidfd_send_signal(self._running["service"].pidfd, signal.SIGTERM)

    def has_traceback(self) -> bool:
        """Say whether any of them has shown a traceback through our code: a fault that nobody had thought of.

        Python's own fork server shows some that are none, when it is killed while it makes a worker.
        """
        output = self._project.output
        return output.exists() and f'File "{_PACKAGES}' in output.read_text("utf-8", "replace")

    def _look(self) -> None:
        for kind, child in list(self._running.items()):
            if _is_readable(child.pidfd):
                del self._running[kind]
                self._judge(kind, child.pid, child.reap())

    def _judge(self, kind: str, pid: int, end: Exit) -> None:
        struck = end.signal == signal.SIGKILL and pid in {pid for _, pid in self._project.deaths()}
        # A tick ends by itself, with 1 when a run of it failed.
        well = end.exit_code in (0, 1) if kind == "tick" else end.exit_code == 0 and self._is_stopping
        if not (well or struck or pid in self.killed):
            how = f"signal {end.signal}" if end.signal else f"exit code {end.exit_code}"
            self.ended_oddly.append(f"the {kind} (pid {pid}) ended with {how}, and nobody had killed it")


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
