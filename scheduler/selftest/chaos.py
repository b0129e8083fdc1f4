"""The selftest: a service of its own, killed at random and at every failpoint; then rest, and judgement."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from scheduler.audit import audit
from workers.event_log import EventLog
from workers.failpoints import POINTS
from workers.process_tree import become_subreaper, reap_orphans
from workers.segments import LogReader

from .checker import check
from .family import Member, kill, kill_all, members
from .project import WORKERS, Project
from .result import Result
from .service import Services
from .watch import Watch

__all__ = ["Chaos"]

_POLL_S = 0.003
_STUCK_S = 120.0
_STOPPED_WITHIN_S = 30.0
# Python's fork server and its resource tracker learn from an end of file that they are alone.
_GONE_WITHIN_S = 10.0
_OPEN_RUNS = 10
# How often each kind of process is the victim, while there are such.
_WEIGHTS = {"busy worker": 8, "idle worker": 4, "task": 6, "service": 1, "fork server": 1, "tick": 2}
# A service that has not begun to lead is mostly let begin: else it would be the only victim, again and again.
_SPARED = 0.9
# What is likely at each point, so that none strikes much more often than another.
_CHANCES = {
    "before_lock": 0.002,
    "inside_write": 0.002,
    "after_write": 0.002,
    "before_put": 0.01,
    "after_claim": 0.01,
    "after_effect": 0.006,
    "before_park": 0.03,
    "after_park": 0.03,
    "before_finish": 0.01,
}


class Chaos:
    """One selftest in `root`, an empty directory. `show` is told how many of the kills are done."""

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str],
        *,
        kills: int,
        seed: int,
        show: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._project = Project(root)
        self._services = Services(self._project, environ)
        self._watch = Watch(self._project.log)
        self._task_watch = Watch(self._project.task_log)
        self._log = EventLog(self._project.log, fsync="off")
        self._dice = random.Random(seed)
        self._seed = seed
        self._kills = kills
        self._show = show
        self._killed: Counter[str] = Counter()
        self._asked: list[str] = []
        self._faults: list[str] = []
        self._stuck = 0

    def run(self) -> Result:
        """Attack, heal, and judge. Whatever happens, no process is left behind.

        Raises TickpoolError or OSError where the log cannot be written at all.
        """
        began = time.monotonic()
        become_subreaper()
        self._project.write()
        # The last tenth is for the descriptors.
        of_workers = max(1, self._kills // 10)
        growth = 0
        try:
            self._attack(self._kills - of_workers, self._revive, self._anyone)
            if self._heal():
                growth = self._count_descriptors(of_workers)
            self._stop()
        finally:
            kill_all(self._project.root)
            self._log.close()
        return self._judge(growth, time.monotonic() - began)

    # -- attack --------------------------------------------------------------------------------------------------

    def _attack(self, until: int, revive: Callable[[], None], victim: Callable[[], Member | None]) -> None:
        """Kill, and let the failpoints strike, until that many processes have died in all."""
        progress_at, ends = time.monotonic(), 0
        while (done := self._deaths()) < until and time.monotonic() - progress_at < _STUCK_S:
            self._show(done)
            self._feed()
            revive()
            self._pause()
            if (member := victim()) is not None:
                self._kill(member)
            if self._watch.ends != ends:
                progress_at, ends = time.monotonic(), self._watch.ends

    def _deaths(self) -> int:
        return self._killed.total() + len(self._project.deaths())

    def _feed(self) -> None:
        """Ask for more runs, as any program does; what the log has acknowledged is expected to come to its end."""
        self._watch.look()
        wanted = [self._project.request(self._dice) for _ in range(_OPEN_RUNS - self._watch.open_runs())]
        if wanted:
            self._asked += [event["run_id"] for event in self._log.append(*wanted)]

    def _revive(self) -> None:
        """Start the service when it is gone, and now and then a single tick beside it."""
        reap_orphans(self._services.pids())
        if self._services.pid("service") is None:
            self._services.start("service", self._chances())
        if self._services.pid("tick") is None and self._dice.random() < 0.02:
            self._services.start("tick", self._chances())

    def _chances(self) -> dict[str, float]:
        """Return the chance of each failpoint: half of all deaths shall be theirs, the same part of each."""
        struck = Counter(name for name, _ in self._project.deaths())
        fair = self._deaths() / len(POINTS) / 2
        return {name: _CHANCES[name] * min(20.0, ((fair + 1) / (struck[name] + 1)) ** 2) for name in POINTS}

    def _pause(self) -> None:
        """Let something be done before the next blow, mostly."""
        ends = self._watch.ends
        if self._dice.random() < 0.6:
            self._wait(lambda: self._watch.ends > ends or self._services.pid("service") is None, 1.0)
        else:
            self._wait(lambda: False, self._dice.random() * 0.05)

    def _anyone(self) -> Member | None:
        """Choose a process of the family, of any kind."""
        family = self._members()
        spared = set()
        if self._watch.leader != self._services.pid("service") and self._dice.random() < _SPARED:
            spared = {"service"}
        kinds = {member.kind for member in family} - spared
        victims = [kind for kind in _WEIGHTS if kind in kinds]
        if not victims:
            return None
        (kind,) = self._dice.choices(victims, [_WEIGHTS[kind] for kind in victims])
        return self._dice.choice([member for member in family if member.kind == kind])

    def _any_worker(self) -> Member | None:
        workers = self._workers()
        return self._dice.choice(workers) if workers else None

    def _kill(self, member: Member) -> None:
        # Noted first: it must not be found dead before.
        self._services.killed.add(member.stat.pid)
        if kill(member):
            self._killed[member.kind] += 1
        else:
            self._services.killed.discard(member.stat.pid)

    # -- heal ----------------------------------------------------------------------------------------------------

    def _heal(self) -> bool:
        """Kill no more, ask for no more, and see whether all comes to rest under one service; return whether it did."""
        self._project.disarm()
        self._project.enable_schedules(is_enabled=False)
        return self._rest()

    def _rest(self) -> bool:
        """Wait until no run is open; count those that are stuck."""
        if self._wait(self._is_quiet, _STUCK_S):
            return True
        self._stuck = max(self._watch.open_runs(), 1)
        return False

    def _is_quiet(self) -> bool:
        """Say whether nothing is open, and the service leads alone and has all its workers."""
        pid = self._services.pid("service")
        if pid is None:
            self._services.start("service", {})
        if pid != self._watch.leader or self._watch.open_runs() or self._services.pid("tick") is not None:
            return False
        return len(self._workers()) == WORKERS

    def _count_descriptors(self, kills: int) -> int:
        """Kill workers only, under one service; return how many more descriptors it has open after that."""
        pid = self._services.pid("service")
        # A log is read and written; after a rotation either is opened when it is needed.
        most = {"": 2, ".lock": 1}
        kept = {f"{log}{end}": most[end] for log in (self._project.log, self._project.task_log) for end in most}
        before = _descriptors(pid, kept)
        self._attack(self._deaths() + kills, lambda: None, self._any_worker)
        rests = self._rest()
        self._wait(lambda: _descriptors(pid, kept) <= before, 10.0)
        return _descriptors(pid, kept) - before if rests else 0

    def _stop(self) -> None:
        """Stop the service by SIGTERM."""
        if self._services.pid("service") is None:
            return
        self._services.stop()
        if not self._wait(lambda: self._services.pid("service") is None, _STOPPED_WITHIN_S):
            self._faults.append(f"the service did not end within {_STOPPED_WITHIN_S:g} s of SIGTERM")
        elif not self._wait(lambda: not self._members(), _GONE_WITHIN_S):
            left = ", ".join(f"{member.kind} {member.stat.pid}" for member in self._members())
            self._faults.append(f"the service has ended and left: {left}")

    # -- judge ---------------------------------------------------------------------------------------------------

    def _judge(self, growth: int, seconds: float) -> Result:
        project, watch = self._project, self._watch
        for each in (watch, self._task_watch):
            each.look()
            each.close()
        events = LogReader(project.log, from_start=True)
        verdict = check(events.read(), project.effects.read_text("ascii").splitlines(), self._asked)
        events.close()
        report = audit(project.log, datetime.now(UTC), effects=project.effects, final=True)
        faults = [*self._faults, *self._services.ended_oddly]
        if self._services.has_traceback():
            faults.append(f"there is a traceback of tickpool's in {project.output}")
        struck = Counter(name for name, _ in project.deaths())
        return Result(
            kills=dict(self._killed),
            failpoints={name: struck[name] for name in POINTS},
            services=self._services.starts,
            asked=watch.asked,
            ended=dict(watch.ended),
            lost=verdict.lost,
            twice=verdict.twice,
            stuck=self._stuck,
            descriptor_growth=growth,
            repaired=watch.repaired + self._task_watch.repaired,
            faults=faults + verdict.odd,
            lines=report.lines,
            violations=[str(violation) for violation in report.violations],
            seed=self._seed,
            seconds=round(seconds, 1),
            directory=str(project.root),
        )

    def _members(self) -> list[Member]:
        busy = self._watch.busy()
        family = members(self._project.root, self._services.pids())
        return [
            member._replace(kind="busy worker" if member.stat.pid in busy else "idle worker")
            if member.kind == "worker"
            else member
            for member in family
        ]

    def _workers(self) -> list[Member]:
        return [member for member in self._members() if member.kind.endswith("worker")]

    def _wait(self, is_done: Callable[[], bool], limit_s: float) -> bool:
        """Wait until `is_done()`, at most so long; return whether it is."""
        deadline = time.monotonic() + limit_s
        while not is_done():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
            self._watch.look()
        return True


def _descriptors(pid: int | None, kept: Mapping[str, int]) -> int:
    """Count the open descriptors of a process, but so many of each file of `kept`, which is opened when needed."""
    found: list[str] = []
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(entry.path))
    return len(found) - sum(min(found.count(name), most) for name, most in kept.items())
