"""Figures: what the events of a service come to; a fold over the turns of `simulation.play`."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain

from scheduler.forecast_facts import ScheduleForecast, Waits
from scheduler.history import epoch
from workers.events import Event

from .pools import Pools, parts_of

__all__ = ["ON_DEADLINE", "Outcome", "ScheduleFigures", "quantile", "waits_of"]

# What the runs of `on_deadline` are counted as; no schedule has such an id.
ON_DEADLINE = "(on_deadline)"


class ScheduleFigures:
    """What becomes of one schedule. `waits_s` are the waits of its attempts, `busy_s` is the time on workers.

    `asked` has the minute of the span in which each of its runs was asked for, `first_waits_s` how long it waited then.
    """

    __slots__ = (
        "asked", "busy_s", "cancelled", "deadline_misses", "first_waits_s", "missed", "runs", "skipped", "timeouts",
        "waits_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.runs = self.timeouts = self.deadline_misses = 0
        self.busy_s = 0.0
        self.skipped: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.waits_s, self.first_waits_s, self.asked = array("d"), array("d"), array("l")

    @property
    def lost(self) -> int:
        """How many fire times never run: skipped, missed, or too late to start."""
        return self.skipped.total() + self.missed.total() + self.cancelled["start_deadline"]

    def waited(self, minute: int | None, wait_s: float) -> None:
        """Take in that the run that was asked for in a minute waits no longer; None is no run's first attempt."""
        if minute is not None:
            self.asked.append(minute)
            self.first_waits_s.append(max(0.0, wait_s))

    def facts(self) -> ScheduleForecast:
        """Return what is told of them; seconds with three digits."""
        return ScheduleForecast(
            runs=self.runs,
            wait_s=waits_of(sorted(self.waits_s)),
            skipped=dict(self.skipped),
            missed=dict(self.missed),
            cancelled=dict(self.cancelled),
            deadline_misses=self.deadline_misses,
            timeouts=self.timeouts,
            busy_s=round(self.busy_s, 3),
        )


class Outcome:
    """The figures of a span, of each schedule and of each minute. Give it every turn in order, then `close` it.

    A wait is the time from when an attempt may start (its fire time, the end of its retry's delay, its `not_before`)
    to its start; what waits at the end counts with what it has waited by then. The queue's depth is how many runs are
    asked for and not started, as `tickpool status` counts them.
    """

    def __init__(self, begin: datetime, until: datetime, workers: int, pools: Pools | None = None) -> None:
        self.begin, self.until, self.workers = begin, until, workers
        self.pools = pools or Pools(0.0, 0.0, {}, {})
        self.schedules: dict[str, ScheduleFigures] = {}
        self._begin_s, self._until_s = begin.timestamp(), until.timestamp()
        minutes = math.ceil((self._until_s - self._begin_s) / 60)
        self.busy_s, self.queued_s = array("d", bytes(8 * minutes)), array("d", bytes(8 * minutes))
        self.deepest, self.due = array("l", bytes(8 * minutes)), array("l", bytes(8 * minutes))
        self.waiting_at_end = self.running_at_end = 0
        # When it may start, whose it is, the minute in which it was asked for; no minute has a further attempt.
        self._ready_s: dict[str, tuple[float, str, int | None]] = {}
        self._running: dict[str, tuple[float, str]] = {}
        self._at_s = self._begin_s

    @classmethod
    def of(cls, begin: datetime, until: datetime, workers: int, turns: Iterable[tuple[float, list[Event]]]) -> Outcome:
        """Return the closed figures of these turns."""
        outcome = cls(begin, until, workers)
        for now_s, events in turns:
            outcome.take(now_s, events)
        outcome.close()
        return outcome

    def take(self, now_s: float, events: Sequence[Event]) -> None:
        """Fold in what was recorded at one moment."""
        self._pass(now_s)
        for event in events:
            step = _STEPS.get(event["event"])
            if step is not None:
                step(self, event, now_s)
        self.pools.take(now_s, events)
        minute = int(now_s - self._begin_s) // 60
        self.deepest[minute] = max(self.deepest[minute], len(self._ready_s))

    def close(self) -> None:
        """Come to the end of the span."""
        self._pass(self._until_s)
        self.pools.close()
        for ready_s, name, minute in self._ready_s.values():
            if ready_s < self._until_s:
                self.schedules[name].waits_s.append(self._until_s - ready_s)
            self.schedules[name].waited(minute, self._until_s - ready_s)
        for start_s, name in self._running.values():
            self.schedules[name].busy_s += self._until_s - start_s
        self.waiting_at_end, self.running_at_end = len(self._ready_s), len(self._running)

    @property
    def runs(self) -> int:
        """How many runs were asked for."""
        return sum(each.runs for each in self.schedules.values())

    @property
    def skipped(self) -> Counter[str]:
        """How many fire times were skipped, by reason."""
        return sum((each.skipped for each in self.schedules.values()), Counter())

    @property
    def missed(self) -> Counter[str]:
        """How many fire times were missed, by reason."""
        return sum((each.missed for each in self.schedules.values()), Counter())

    @property
    def cancelled(self) -> Counter[str]:
        """How many runs were too late to start (`start_deadline`), or gave way to the next one (`replaced`)."""
        return sum((each.cancelled for each in self.schedules.values()), Counter())

    @property
    def lost(self) -> int:
        """How many fire times never run."""
        return sum(each.lost for each in self.schedules.values())

    @property
    def deadline_misses(self) -> int:
        """How many runs had not ended by their deadline."""
        return sum(each.deadline_misses for each in self.schedules.values())

    @property
    def utilisation(self) -> float:
        """The share of all workers' time that is worked, 0 to 1."""
        return sum(self.busy_s) / (self.workers * (self._until_s - self._begin_s))

    def waits_s(self) -> list[float]:
        """Return all waits, the shortest first."""
        return sorted(chain.from_iterable(each.waits_s for each in self.schedules.values()))

    def minute(self, index: int) -> datetime:
        """Return the minute of the figures at `index`, in UTC."""
        return datetime.fromtimestamp(self._begin_s + 60 * index, UTC)

    def _pass(self, now_s: float) -> None:
        """Add what works and what waits to the minutes that go by until now."""
        busy, queued, at_s = len(self._running), len(self._ready_s), self._at_s
        for minute, span_s in parts_of(at_s - self._begin_s, now_s - self._begin_s, 60.0):
            if busy:
                self.busy_s[minute] += busy * span_s
            if queued:
                self.queued_s[minute] += queued * span_s
        self._at_s = now_s

    def _of(self, event: Event) -> ScheduleFigures:
        name = _name(event)
        found = self.schedules.get(name)
        if found is None:
            found = self.schedules[name] = ScheduleFigures()
        return found

    def _enqueued(self, event: Event, now_s: float) -> None:
        self._of(event).runs += 1
        minute = int(now_s - self._begin_s) // 60
        self.due[minute] += 1
        not_before = event.get("not_before")
        ready_s = max(now_s, float(epoch(not_before))) if not_before else now_s
        self._ready_s[event["run_id"]] = (ready_s, _name(event), minute)

    def _started(self, event: Event, now_s: float) -> None:
        ready_s, name, minute = self._ready_s.pop(event["run_id"])
        figures = self._of(event)
        # A retry's time is told in whole seconds, and may lie a part of one before its request.
        figures.waits_s.append(max(0.0, now_s - ready_s))
        figures.waited(minute, now_s - ready_s)
        self._running[event["run_id"]] = (now_s, name)

    def _finished(self, event: Event, now_s: float) -> None:
        run_id, figures = event["run_id"], self._of(event)
        ready = self._ready_s.pop(run_id, None)
        if ready is not None:
            figures.waited(ready[2], now_s - ready[0])
        started = self._running.pop(run_id, None)
        if started is not None:
            figures.busy_s += now_s - started[0]
        figures.timeouts += event.get("status") == "timeout"
        if event.get("next_attempt"):
            retry_at = event.get("retry_at")
            self._ready_s[run_id] = (float(epoch(retry_at)) if retry_at else now_s, _name(event), None)
        if event.get("status") == "cancelled":
            figures.cancelled["start_deadline" if event.get("reason") == "start_deadline" else "replaced"] += 1

    def _deadline_missed(self, event: Event, _: float) -> None:
        self._of(event).deadline_misses += 1

    def _skipped(self, event: Event, _: float) -> None:
        self._of(event).skipped[str(event.get("reason"))] += 1

    def _missed(self, event: Event, _: float) -> None:
        self._of(event).missed[str(event.get("reason"))] += int(event["count"])


def _name(event: Event) -> str:
    """Return whose run it is; that of a deadline's DAG is no schedule's."""
    return str(event.get("schedule_id") or ON_DEADLINE)


def quantile(ordered: Sequence[float], percent: int) -> float:
    """Return the least of the ordered values that so many percent do not exceed (nearest rank); 0 of none."""
    return ordered[(len(ordered) * percent - 1) // 100] if ordered else 0.0


def waits_of(ordered: Sequence[float]) -> Waits:
    """Return the middle, the 95th percentile and the longest of ordered waits, with three digits."""
    longest = ordered[-1] if ordered else 0.0
    return Waits(round(quantile(ordered, 50), 3), round(quantile(ordered, 95), 3), round(longest, 3))


_STEPS = {
    "schedule_enqueued": Outcome._enqueued,
    "run_requested": Outcome._enqueued,
    "deadline_missed": Outcome._deadline_missed,
    "schedule_skipped": Outcome._skipped,
    "schedule_missed": Outcome._missed,
    "run_started": Outcome._started,
    "run_finished": Outcome._finished,
}
