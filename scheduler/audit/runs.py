"""The book of runs: requested -> started(1) -> finished -> started(2), only where a retry was allowed -> finished.

Between a start and the end of its attempt a run may be parked, and start again once it was resumed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import islice

from scheduler.text import counted
from workers.events import Event
from workers.ids import is_run_id
from workers.process import Identity, is_alive

from .children import ChildBook
from .ends import check_end, check_fields, check_next
from .holds import HoldBook
from .limits import LimitBook
from .open_run import OpenRun, lane_of
from .parks import ParkBook
from .policies import PolicyBook
from .report import Ledger, shown
from .services import Services
from .times import seconds
from .workers import WorkerBook

__all__ = ["RunBook"]

_ONE_BY_ONE = ("queue", "replace")


class RunBook:
    """The runs that are open, and the names of those that have ended.

    With `keeps_outcomes`, `outcomes` has the status of each attempt that started, "" while it runs.
    """

    def __init__(
        self, ledger: Ledger, services: Services, holds: HoldBook, lateness_s: float, *, keeps_outcomes: bool
    ) -> None:
        self.open: dict[str, OpenRun] = {}
        # The last attempt of each.
        self.ended: dict[str, int] = {}
        self.outcomes: dict[tuple[str, int], str] = {}
        self.schedule_of: dict[str, str] = {}
        self.workers = WorkerBook(ledger)
        self.limits = LimitBook(ledger, services)
        self.policies = PolicyBook(ledger, services, lateness_s)
        self.parks = ParkBook(ledger, services, lateness_s)
        self.children = ChildBook(ledger, services, lateness_s)
        self._keeps_outcomes = keeps_outcomes
        self._ledger = ledger
        self._services = services
        self._holds = holds
        self._lateness_s = lateness_s
        self._of_schedule: dict[str, dict[str, None]] = {}
        self._turn_since_s: dict[str, float] = {}
        self._led: dict[str, None] = {}
        self._requests = self._scheduled = self._starts = 0
        self._ends: Counter[str] = Counter()

    # -> queued
    def ask(self, event: Event) -> None:
        """Take in a `schedule_enqueued` or `run_requested`."""
        run_id, schedule_id = event["run_id"], str(event.get("schedule_id") or "")
        if not is_run_id(run_id):
            self._ledger.notes.append(
                f"{shown(self._ledger.place)}: a request with the run_id {run_id!r:.80} is never run"
            )
            return
        self._requests += 1
        if run_id in self.open or not self._may_repeat(run_id, event):
            self._ledger.violate("G1", f"run `{run_id}` is asked for again")
            return
        others = self._of_schedule.get(schedule_id)
        if schedule_id and event["event"] == "schedule_enqueued":
            self._scheduled += 1
            if event.get("overlap") == "skip" and others:
                text = f"run `{run_id}` is enqueued while `{next(iter(others))}` is open, with `overlap: skip`"
                self._ledger.violate("overlap", text)
            if event.get("attempt", 1) != 1:
                self._ledger.violate("G1", f"run `{run_id}` is enqueued for attempt {event['attempt']}")
        not_before_s = self.policies.ask(event, self._waiting(schedule_id))
        self.children.ask(event, self.open)
        run = self._open(run_id, schedule_id, event, event.get("attempt", 1))
        run.waits_since_s += max(0.0, not_before_s - seconds(event["timestamp"]))

    def _may_repeat(self, run_id: str, event: Event) -> bool:
        """Say whether a request is for a new run or, by an operator, for the next attempt of one that has ended."""
        last = self.ended.get(run_id)
        if not event.get("retry_of"):
            return last is None
        self._ledger.count("G1", "retries asked for")
        # Of a run that ended in an older part of the log nothing is known here.
        return event["retry_of"] == event["attempt"] - 1 and last in (None, event["retry_of"]) and bool(event.get("by"))

    def restore(self, run: Event, runs: Mapping[str, Event]) -> None:
        """Take an open run from the checkpoint with which a log begins whose older part is gone; `runs` are all."""
        schedule_id = str(run.get("schedule_id") or "")
        self._open(run["run_id"], schedule_id, dict(run["request"]), run["attempt"])
        self.policies.restore(run)
        self.parks.restore(run)
        self.children.restore(run, runs)
        self.open[run["run_id"]].has_begun = bool(run.get("parked")) or run["status"] == "running"
        start = run.get("start")
        if run["status"] == "running" and start:
            self._put_on_worker(run["run_id"], self.open[run["run_id"]], start)

    # queued -> running
    def start(self, event: Event, now: float) -> None:
        """Take in a `run_started`."""
        run_id, attempt, ledger = event["run_id"], event.get("attempt", 1), self._ledger
        self._starts += 1
        run = self.open.get(run_id)
        if run is None:
            if run_id in self.ended:
                ledger.violate("G1", f"run `{run_id}` starts attempt {attempt} after its end")
            else:
                ledger.violate("G2", f"run `{run_id}` starts, and nobody has asked for it")
            return
        if run.worker is not None:
            ledger.violate("G1", f"run `{run_id}` starts attempt {attempt} while attempt {run.attempt} runs")
            return
        if attempt != run.attempt:
            ledger.violate("G1", f"run `{run_id}` starts attempt {attempt}; attempt {run.attempt} is due")
            run.attempt = attempt
        if run_id in self.parks:
            ledger.violate("G1", f"run `{run_id}` starts again while it is parked")
        elif bool(event.get("resumed")) != run.has_begun:
            how = "again" if run.has_begun else "as resumed"
            ledger.violate("G1", f"run `{run_id}` starts attempt {attempt} {how}")
        check_fields(event, run.request, ledger)
        self.policies.start(run_id, attempt, now, is_again=run.has_begun)
        run.has_begun = True
        if self._waits_for_others(run_id, run):
            policy = run.request["overlap"]
            ledger.violate("overlap", f"run `{run_id}` starts before an older one has ended, with `overlap: {policy}`")
        if run.retry_at_s > now + 1:
            ledger.violate("lateness", f"run `{run_id}` starts {run.retry_at_s - now:.1f} s before its `retry_at`")
        self._check_wait(run_id, run)
        self._note(run_id, attempt, "")
        self._put_on_worker(run_id, run, event)
        self._holds.start(run_id, is_pooled=run.is_pooled)
        if run.is_pooled:
            self.limits.check_start(run_id, run.lane, now)

    # running -> parked
    def park(self, event: Event, _now: float) -> None:
        """Take in a `run_parked`."""
        run_id, run = event["run_id"], self.open.get(event["run_id"])
        if run is None or run.worker is None or event.get("attempt", 1) != run.attempt:
            self._ledger.violate("G2", f"run `{run_id}` is parked, and no worker has that attempt")
            return
        check_fields(event, run.request, self._ledger)
        self._take_off_worker(run_id, run)
        run.place = self._ledger.place
        self.parks.park(event, self.open.keys(), self.ended.keys())

    # parked -> queued
    def resume(self, event: Event, now: float) -> None:
        """Take in a `run_resumed`."""
        self.parks.resume(event, now)
        run = self.open.get(event["run_id"])
        if run is not None:
            run.waits_since_s, run.full_s = self._services.mark_s(), self.limits.full_s(run.lane)
            run.place = self._ledger.place

    # running -> finished, or running -> queued for the next attempt
    def finish(self, event: Event, now: float) -> None:
        """Take in a `run_finished`."""
        run_id, attempt, ledger = event["run_id"], event.get("attempt", 1), self._ledger
        self._ends[str(event.get("status"))] += 1
        run = self.open.get(run_id)
        if run is None:
            again = "ends again" if run_id in self.ended else "ends, and nobody has asked for it"
            ledger.violate("G2", f"run `{run_id}` {again}")
            return
        if run.worker is None and not (attempt == run.attempt and self.policies.end_unstarted(event, attempt, now)):
            ledger.violate("G2", f"run `{run_id}` ends attempt {attempt} without having started it")
        elif attempt != run.attempt:
            ledger.violate("G2", f"run `{run_id}` ends attempt {attempt}; attempt {run.attempt} is running")
        check_fields(event, run.request, ledger)
        check_end(event, ledger)
        check_next(event, {**run.request, "attempt": run.attempt}, ledger)
        self.policies.end(event, now)
        if run.worker is not None:
            self._note(run_id, attempt, str(event.get("status")))
        self._take_off_worker(run_id, run)
        for book in (self.parks, self.children):
            book.end(run_id, attempt, is_last=not event.get("next_attempt"))
        if event.get("next_attempt"):
            run.has_begun = False
            run.attempt = int(event["next_attempt"])
            run.retry_at_s = seconds(event["retry_at"]) if event.get("retry_at") else 0.0
            run.waits_since_s = self._services.mark_s() + max(0.0, run.retry_at_s - now)
            run.full_s = self.limits.full_s(run.lane)
            run.place = ledger.place
        else:
            self._close(run_id, run)
            self.ended[run_id] = attempt

    def skip(self, event: Event, now: float) -> None:
        """Take in a `schedule_skipped`."""
        self.policies.skip(event, now, self._waiting(event["schedule_id"]))

    def lead(self) -> None:
        """Take in that a service begins to lead: from here on, runs start under it."""
        self._led.clear()
        self.limits.lead()
        self.policies.lead()
        self.children.lead()

    def stop(self) -> None:
        """Take in that the leader has stopped: what started under it has ended."""
        self._ledger.count("G8", "stops")
        for run_id in self._led:
            self._ledger.violate("G8", f"run `{run_id}` is open when its service has stopped")
        self._led.clear()

    def compare(self, runs: list[Event]) -> None:
        """Compare with the open runs of a checkpoint: nothing may get lost between two segments."""
        kept = {run["run_id"]: (run["attempt"], run["status"]) for run in runs}
        ours = {name: (run.attempt, self._status(name, run)) for name, run in self.open.items()}
        self._ledger.count("G5", "checkpoints")
        for run_id in sorted(kept.keys() ^ ours.keys()):
            where = "in the older segments" if run_id in ours else "in the checkpoint"
            self._ledger.violate("G5", f"run `{run_id}` is open only {where}")
        for run_id in sorted(kept.keys() & ours.keys()):
            if kept[run_id] != ours[run_id]:
                text = f"run `{run_id}` is {ours[run_id]} in the older segments and {kept[run_id]} in the checkpoint"
                self._ledger.violate("G5", text)
        for run in runs:
            self.parks.compare(run)

    def conclude(self, *, final: bool) -> None:
        """Judge what is open where the log ends; `final` says that nothing may be."""
        waiting = running = orphans = 0
        self.parks.conclude()
        for run_id, run in self.open.items():
            if run_id in self.parks:
                if final:
                    self._ledger.violate("G5", f"run `{run_id}` is parked", run.place)
            elif run.worker is None:
                waiting += 1
                if final:
                    self._ledger.violate("G5", f"run `{run_id}` waits for attempt {run.attempt}", run.place)
                elif not self._waits_for_others(run_id, run):
                    self._check_wait(run_id, run)
            elif final:
                self._ledger.violate("G2", f"run `{run_id}` has no end", run.place)
            elif is_alive(Identity(*run.worker)):
                running += 1
            else:
                orphans += 1
        self._ledger.count("G5", "waiting", waiting)
        self._ledger.count("overlap", "runs", self._scheduled)
        self._ledger.count("lateness", "starts", self._starts)
        for what, number in {"requests": self._requests, "starts": self._starts}.items():
            self._ledger.count("G1", what, number)
        for status, number in self._ends.items():
            self._ledger.count("G2", f"ended {status}"[:40], number)
        if running:
            self._ledger.notes.append(f"{counted(running, 'run')} at work")
        if orphans:
            text = f"{counted(orphans, 'run')} without an end or a process: the next service closes what is open"
            self._ledger.notes.append(text)

    def _waiting(self, schedule_id: str) -> dict[str, bool]:
        """Return the open runs of a schedule, and whether each waits."""
        names = self._of_schedule.get(schedule_id, ()) if schedule_id else ()
        return {name: self._status(name, self.open[name]) == "queued" for name in names}

    def _status(self, run_id: str, run: OpenRun) -> str:
        return "running" if run.worker else "parked" if run_id in self.parks else "queued"

    def _open(self, run_id: str, schedule_id: str, request: Event, attempt: int) -> OpenRun:
        is_one_by_one = request.get("overlap") in _ONE_BY_ONE
        place, mark_s = self._ledger.place, self._services.mark_s()
        run = self.open[run_id] = OpenRun(request, lane_of(request), schedule_id, is_one_by_one, place, attempt, mark_s)
        run.full_s = self.limits.full_s(run.lane)
        if schedule_id:
            self._of_schedule.setdefault(schedule_id, {})[run_id] = None
        return run

    def _close(self, run_id: str, run: OpenRun) -> None:
        del self.open[run_id]
        schedule_id = run.schedule_id
        self._turn_since_s[schedule_id] = self._services.mark_s()
        others = self._of_schedule.get(schedule_id)
        if others is not None:
            others.pop(run_id, None)
            for name in islice(others, 1):
                if self.open[name].is_one_by_one:
                    self.open[name].full_s = self.limits.full_s(self.open[name].lane)
            if not others:
                del self._of_schedule[schedule_id]

    def _put_on_worker(self, run_id: str, run: OpenRun, event: Event) -> None:
        worker = (str(event.get("boot_id")), int(event["pid"]), int(event.get("starttime") or 0))
        self.workers.take(worker, run_id)
        run.worker, run.place = worker, self._ledger.place
        # A run by hand is executed by the process that asked for it.
        parent = run.request.get("parent")
        is_queued = run.request.get("event") == "schedule_enqueued" or (parent and not parent.get("by_hand"))
        run.is_pooled = bool(is_queued) or run.request.get("pid") != worker[1]
        if run.is_pooled:
            self._services.running += 1
            self.limits.take(run_id, run.lane)
            self._led[run_id] = None

    def _take_off_worker(self, run_id: str, run: OpenRun) -> None:
        self.workers.let_go(run.worker, run_id)
        if run.is_pooled:
            self._services.running -= 1
            self.limits.give_back(run_id, run.lane)
            self._led.pop(run_id, None)
        run.worker, run.is_pooled = None, False

    def _waits_for_others(self, run_id: str, run: OpenRun) -> bool:
        """Say whether an older run of its schedule is open, for whose end it has to wait."""
        others = self._of_schedule.get(run.schedule_id) if run.is_one_by_one else None
        return bool(others) and next(iter(others or ())) != run_id

    def _note(self, run_id: str, attempt: int, status: str) -> None:
        if self._keeps_outcomes:
            self.outcomes[run_id, attempt] = status
            self.schedule_of[run_id] = self.open[run_id].schedule_id

    def set_clock(self) -> None:
        """Take in that the clock was set: what was to be tried again at a time of the old one may come any time."""
        self.policies.set_clock()
        self.parks.set_clock()
        self.children.lead()
        for run in self.open.values():
            if run.retry_at_s or run.request.get("not_before"):
                run.retry_at_s, run.waits_since_s = 0.0, math.inf

    def _check_wait(self, run_id: str, run: OpenRun) -> None:
        """What waits while a worker and a slot are free waits without a reason, unless for its schedule's turn."""
        since_s = run.waits_since_s
        if run.is_one_by_one:
            since_s = max(since_s, self._turn_since_s.get(run.schedule_id, 0.0))
        waited_s = self._services.free_s - since_s - (self.limits.full_s(run.lane) - run.full_s)
        if waited_s > self._lateness_s:
            self._ledger.violate("lateness", f"run `{run_id}` waited for {waited_s:.1f} s while a worker was free")
