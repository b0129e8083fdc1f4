"""A real service in a directory of its own, for tests that start, kill and question it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from scheduler.state_store import record_event
from workers.segments import LogReader
from workers.settings import variables

WaitFor = Callable[..., None]
# For processes under limits: what measures the coverage takes descriptors and memory of its own.
WITHOUT_COVERAGE = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
REPOSITORY = Path(__file__).resolve().parents[1]
# What CPython's fork server says of a process whose parent was killed before it had told it all that it was to do.
_ORPHANED_FORK = re.compile(
    r"Traceback .*\n(?:  .*\n)*  .*/multiprocessing/forkserver\.py.*\n(?:  .*\n)*"
    r"(?:EOFError: Ran out of input|_pickle\.UnpicklingError: pickle data was truncated)\n"
)


class Service:
    """`python -m scheduler` on `root/schedules`; any number of processes may be started on its one log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "logs" / "orchestrator_state.jsonl"
        self.environ = {"SCHED_TICK_MS": "200", "SCHED_MAX_PARALLEL": "2", "TASK_GRACE_S": "0.3", "SCHED_GRACE_S": "5"}
        self._asked = 0
        self._reader: LogReader | None = None
        self._events: list[dict[str, Any]] = []
        self._started: list[subprocess.Popen[bytes]] = []
        (root / "schedules").mkdir(parents=True, exist_ok=True)
        (root / "dags").mkdir(exist_ok=True)

    def dag(self, name: str, run: str, **task: Any) -> str:
        """Write a DAG of one task, a shell script; return its path in the project."""
        return self.tasks(name, {"id": "t", "run": textwrap.dedent(run), **task})

    def tasks(self, name: str, *tasks: dict[str, Any]) -> str:
        """Write a DAG of these tasks; return its path in the project."""
        # JSON is YAML.
        (self.root / "dags" / f"{name}.yaml").write_text(json.dumps({"id": name, "tasks": tasks}), "ascii")
        return f"dags/{name}.yaml"

    def schedule(self, name: str, cron: str, dag: str, **fields: Any) -> None:
        """Write a schedule in a file of its own."""
        entry = {"id": name, "cron": cron, "dag": dag, "tenant": "test", "enabled": True, **fields}
        (self.root / "schedules" / f"{name}.yaml").write_text(json.dumps([entry]), "ascii")

    def ask(self, dag: str, run_id: str = "", **fields: Any) -> str:
        """Ask for a run as any other process does, by an event; return its run_id."""
        self._asked += 1
        run_id = run_id or f"asked.{self._asked}"
        event = {"event": "run_requested", "run_id": run_id, "attempt": 1, "dag": dag, "project": str(self.root)}
        record_event({**event, **fields}, self.log)
        return run_id

    def start(self, *words: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start `python -m scheduler --dir schedules`, with `--serve` unless other words are given."""
        return self.launch("-m", "scheduler", "--dir", "schedules", *(words or ("--serve",)), **environ)

    def launch(self, *words: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start Python with these words, in a session of its own."""
        number = len(self._started)
        with open(self.root / f"{number}.out", "wb") as out, open(self.root / f"{number}.err", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=self.root,
                env=self.env(**environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `tickpool` with these words to its end."""
        command = [sys.executable, "-m", "scheduler.cli", *words]
        return subprocess.run(
            command, cwd=self.root, env=self.env(), capture_output=True, text=True, timeout=30, check=False
        )

    def out(self, number: int = -1) -> str:
        """Return what a started process has printed so far."""
        return self._printed("out", number)

    def err(self, number: int = -1) -> str:
        """Return what a started process has written to stderr so far."""
        return self._printed("err", number)

    def tracebacks(self, number: int = -1) -> str:
        """Return what a process that may have been killed has written to stderr from its first traceback on."""
        return "".join(_ORPHANED_FORK.sub("", self.err(number)).partition("Traceback")[1:])

    def is_ready(self, number: int = -1) -> bool:
        """Say whether a started service has come to serve."""
        return "Press Ctrl+C to stop" in self.out(number)

    def workers(self, supervisor: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Return the live worker processes of a service."""
        found = []
        for child in psutil.Process(supervisor.pid).children(recursive=True):
            try:
                if child.name().startswith("tickpool-w") and child.parent().name() != child.name():
                    found.append(child)
            except (psutil.Error, AttributeError):
                continue
        return found

    def forkserver(self, supervisor: subprocess.Popen[bytes]) -> psutil.Process:
        """Return the process that forks the workers."""
        return next(
            child
            for child in psutil.Process(supervisor.pid).children()
            # An orphaned worker has the command line of the one that forked it.
            if is_running(child.pid)
            and not child.name().startswith("tickpool-w")
            and "multiprocessing.forkserver" in " ".join(child.cmdline())
        )

    def events(self, name: str | None = None, run_id: str | None = None) -> list[dict[str, Any]]:
        """Return the events on record, of one name or one run where given, through all segments."""
        if self._reader is None or self._reader.path != self.log:
            self._reader, self._events = LogReader(self.log, from_start=True), []
        self._events += self._reader.read()
        self._reader.close()
        return [e for e in self._events if name in (None, e["event"]) and run_id in (None, e.get("run_id"))]

    def story(self, run_id: str) -> list[str]:
        """Return what happened to a run, such as `run_started 1` and `run_finished 1 success`."""
        told = [
            e for e in self.events(run_id=run_id) if e["event"].startswith("run_") and e["event"] != "run_requested"
        ]
        return [" ".join(str(e[key]) for key in ("event", "attempt", "status") if key in e) for e in told]

    def has_ended(self, *run_ids: str) -> bool:
        """Say whether the last end of each run is on record."""
        ended = {event["run_id"] for event in self.events("run_finished") if not event.get("next_attempt")}
        return ended.issuperset(run_ids)

    def starts(self) -> Counter[tuple[str, int]]:
        """Count the starts on record of each (run_id, attempt)."""
        return Counter((event["run_id"], event["attempt"]) for event in self.events("run_started"))

    def task_pid(self, run_id: str) -> int:
        """Return the process of the first task of a run, 0 until its start is on record."""
        log = self.log.with_name("orchestrator_events.jsonl")
        events = [json.loads(line) for line in log.read_text("ascii").splitlines()] if log.exists() else []
        pids = [each["pid"] for each in events if each["event"] == "task_started" and each["run_id"] == run_id]
        return pids[0] if pids else 0

    def end(self) -> None:
        """Kill every process whose working directory is this one, each by its own pid, and take their ends."""
        while left := [int(name) for name in os.listdir("/proc") if name.isdecimal() and _works_in(name, self.root)]:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(5)

    def _printed(self, kind: str, number: int) -> str:
        if number < 0:
            number += len(self._started)
        return (self.root / f"{number}.{kind}").read_text("utf-8")

    def env(self, **environ: str) -> dict[str, str]:
        """Return the environment that its processes are started with."""
        ours = {variable.name for variable in variables()} | {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, "PYTHONPATH": str(REPOSITORY), **self.environ, **environ}


def _works_in(pid: str, root: Path) -> bool:
    try:
        place = os.readlink(f"/proc/{pid}/cwd")
    except OSError:  # it has ended, perhaps as a zombie
        return False
    return int(pid) != os.getpid() and (place == str(root) or place.startswith(f"{root}/"))


def kill9(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to one process, if it is still there."""
    if isinstance(process, psutil.Process):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return
    else:
        process.send_signal(signal.SIGKILL)
        process.wait(5)


def is_running(pid: int) -> bool:
    """Say whether a process still runs code."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
