"""The run queue: which waiting run starts next. An in-memory fold of the log, so a restart refills it.

It has the queue protocol (`put`, `get_nowait`, `empty`, `qsize`), so `tick_once` can fill it.

Of the runs that may start (their time has come, their schedule lets them, their pool and their tenant have a free slot)
the next one belongs to the tenant whose turn it is by its fair share; among that tenant's it is the one with the
highest priority, which grows by one a minute of waiting; among equals the one that was asked for first. Before all of
them goes what an operator has bumped, the last one first.
"""

from __future__ import annotations

import heapq
import queue
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from workers.events import Event, iso, time_of
from workers.run_request import RunRequest

from .fair_share import FairShare
from .history import Run, epoch
from .limits import AtWork, Limits, is_by_hand, place_of
from .open_runs import epoch_or_none
from .run_order import rank_of
from .text import counted

__all__ = ["RunQueue"]

# Class and rank (see run_order), number, run_id.
_Entry = tuple[int, int, int, str]


class _Ready(msgspec.Struct):
    """A run that waits for nothing but a worker and its slots, or that has been handed out at a `price`."""

    request: RunRequest
    tenant: str
    pool: str
    entry: _Entry
    price: float = 0.0


class RunQueue:
    """Waiting RunRequests; a run is in it once, however often it is put.

    A run with `overlap: queue` or `replace` is held back until every run of its schedule before it has ended, a retry
    until its time, a request with `not_before` until then. `apply` follows the log; `get_nowait` hands out, `put_back`
    returns what could not be started. `limits` may be set at any time: what runs, runs on.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._ready: dict[str, _Ready] = {}
        # The entries of what is ready, by tenant and pool; those of what is not any more are passed over.
        self._lanes: dict[str, dict[str, list[_Entry]]] = {}
        self._held: dict[str, OrderedDict[str, RunRequest]] = {}
        self._later: dict[str, tuple[float, RunRequest]] = {}
        self._wakes: list[tuple[float, str]] = []
        self._handed: dict[str, _Ready] = {}
        self._at_work = AtWork()
        self._share = FairShare()
        # The runs of a schedule that are ready, held until their time, handed out, or running.
        self._active: dict[str, set[str]] = {}
        # The queue's clock goes by what the log says, and only forward; what the wall clock was set by is taken off it.
        self._clock_s = self._number = 0
        self._skew_s = 0.0

    def load(self, runs: Iterable[Run]) -> None:
        """Take the open runs of a history: the queued ones wait, the running ones hold their slots and their turn.

        What gets in line does so in the order and at the time in which it did by the log.
        """
        waiting = []
        for run in runs:
            if run.status == "running":
                self._begin(run.request, run.start or {})
            elif run.status == "queued":
                waiting.append(run)
            if run.status == "parked" or run.resumed is not None:
                self._activate(run.request)
        for run in sorted(waiting, key=lambda run: run.place_in_log):
            if (moment := epoch_or_none((run.resumed or run.request).get("timestamp"))) is not None:
                self.wake(moment)
            if run.resumed is None:
                self.put_later(run.next_request(), run.retry_at)
            else:
                self._pass_time(run.resumed)
                self._make_ready(run.next_request(), time_of(run.request.get("timestamp")))

    def put(self, request: RunRequest) -> None:
        """Add a request; what is waiting, handed out or running already is not taken again."""
        run_id, schedule_id = str(request["run_id"]), _schedule_of(request)
        if run_id in self._at_work or run_id in self._later:
            return
        self._pass_time(request)
        active = self._active.get(schedule_id, ())
        if request.get("overlap") in ("queue", "replace") and len(active) > (run_id in active):
            self._held.setdefault(schedule_id, OrderedDict())[run_id] = request
        elif (not_before_s := time_of(request.get("not_before"))) is not None:
            self._hold_until(not_before_s, request)
        else:
            self._make_ready(request)

    def put_back(self, request: RunRequest) -> None:
        """Return a request that was handed out and not started: it has its place again."""
        waiting = self._take_back(str(request["run_id"]))
        if waiting is None:
            self.put(request)
        else:
            self._activate(request)
            self._line_up(waiting)

    def forget(self, request: RunRequest) -> None:
        """Let go of a request that was handed out and will never start: it takes no slot."""
        self._take_back(str(request["run_id"]))

    def get_nowait(self) -> RunRequest:
        """Hand out the next request that may start. Raises queue.Empty."""
        heads = [(entry[0], self._share.tag(tenant), entry, pool, tenant) for tenant, pool, entry in self._heads()]
        if not heads:
            raise queue.Empty
        *_, pool, tenant = min(heads)
        run_id = heapq.heappop(self._lanes[tenant][pool])[-1]
        waiting = self._handed[run_id] = self._ready.pop(run_id)
        self._at_work.add(run_id, tenant, pool)
        waiting.price = self._share.charge(tenant, self.limits.weight(tenant))
        return waiting.request

    def empty(self) -> bool:
        """Say whether nothing may start now."""
        return next(self._heads(), None) is None

    def qsize(self) -> int:
        """Return how many runs wait, held back ones included."""
        return len(self._ready) + len(self._later) + sum(map(len, self._held.values()))

    def next_wake(self) -> float | None:
        """Return the wall-clock time, seconds since the epoch, at which the next that is held until then may start."""
        while self._wakes and self._later.get(self._wakes[0][1], (None,))[0] != self._wakes[0][0]:
            heapq.heappop(self._wakes)
        return self._wakes[0][0] if self._wakes else None

    def apply(self, event: Event) -> None:
        """Follow one event of the log."""
        name = event.get("event")
        if name in ("schedule_enqueued", "run_requested"):
            self.put(event)
        elif name in ("run_started", "run_finished"):
            self._pass_time(event)
            run_id = str(event.get("run_id"))
            request = self._take_out(run_id, _schedule_of(event)) or event
            if name == "run_started":
                self._begin(request, event)
            else:
                self._finish(run_id, event)
        elif name == "run_parked":
            # Its schedule's turn stays its own.
            self._pass_time(event)
            self._at_work.remove(str(event.get("run_id")))
        elif name == "run_bumped":
            self._bump(str(event.get("run_id")), event)
        elif name == "limits_loaded":
            self._take_limits(event)
        elif name == "clock_jumped" and isinstance(jump_s := event.get("jump_s"), int | float):
            self._skew_s -= jump_s

    def follow(self, event: Event, run: Run | None) -> None:
        """Follow one event that a history has taken; `run` is what it has now of the event's run, if that is open.

        What asks for a run that is on its way or has ended already is nothing new.
        """
        name = event.get("event")
        if name in ("schedule_enqueued", "run_requested"):
            if run is not None and run.status == "queued":
                self.apply(event)
            return
        self.apply(event)
        if name == "run_resumed" and run is not None and run.resumed is not None:
            # It has waited for its turn once.
            self._pass_time(event)
            self._make_ready(run.next_request(), time_of(run.request.get("timestamp")))
        if name == "run_finished" and run is not None and run.status == "queued":
            self.put_later(run.next_request(), run.retry_at)

    def put_later(self, request: RunRequest, retry_at: str | None) -> None:
        """Add a further attempt, held back until `retry_at` (None: at once). It keeps its schedule's turn."""
        if retry_at is None:
            self.put(request)
        else:
            self._hold_until(float(epoch(retry_at)), request)

    def wake(self, now_s: float) -> None:
        """Let the runs start whose time (seconds since the epoch) has come."""
        while (wake_s := self.next_wake()) is not None and wake_s <= now_s:
            _, run_id = heapq.heappop(self._wakes)
            self._clock_s = max(self._clock_s, int(wake_s + self._skew_s))
            self._make_ready(self._later.pop(run_id)[1])

    def why_waiting(self, run_id: str) -> str:
        """Say what a run waits for; empty when it does not wait here."""
        if run_id in self._later:
            return f"it is held until {iso(datetime.fromtimestamp(self._later[run_id][0], UTC))}"
        for schedule_id, held in self._held.items():
            if run_id in held:
                return f"an older run of its schedule is open: {_names(sorted(self._active[schedule_id]))}"
        waiting = self._ready.get(run_id)
        if waiting is None:
            return ""
        tenant, pool = waiting.tenant, waiting.pool
        if self._at_work.is_pool_full(self.limits, pool):
            slots, names = self.limits.pools[pool], _names(self._at_work.of_pool(pool))
            return f"pool `{pool}` has {counted(slots, 'slot')}, taken by {names}"
        if self._at_work.is_tenant_full(self.limits, tenant):
            most, names = self.limits.max_parallel(tenant), _names(self._at_work.of_tenant(tenant))
            return f"tenant `{tenant}` may have {most} run(s) at work, and has {names}"
        return "it waits for a worker"

    # -- what is ready -------------------------------------------------------------------------------------------

    def _heads(self) -> Iterator[tuple[str, str, _Entry]]:
        """Yield (tenant, pool, first entry) of each lane from which a run may start."""
        for tenant in [*self._lanes]:
            if self._at_work.is_tenant_full(self.limits, tenant):
                continue
            lanes = self._lanes[tenant]
            for pool in [*lanes]:
                lane = lanes[pool]
                while lane and not self._is_ready(lane[0]):
                    heapq.heappop(lane)
                if not lane:
                    del lanes[pool]
                elif not self._at_work.is_pool_full(self.limits, pool):
                    yield tenant, pool, lane[0]
            if not lanes:
                del self._lanes[tenant]

    def _is_ready(self, entry: _Entry) -> bool:
        waiting = self._ready.get(entry[-1])
        return waiting is not None and waiting.entry is entry

    def _make_ready(self, request: RunRequest, since_s: float | None = None) -> None:
        """Put a run in line, as waiting since then or from now on; one that stands there keeps its place."""
        run_id = str(request["run_id"])
        self._activate(request)
        if run_id in self._ready:
            self._ready[run_id].request = request
            return
        self._number += 1
        clock_s = self._clock_s if since_s is None else min(self._clock_s, int(since_s + self._skew_s))
        entry = (*rank_of(request, clock_s), self._number, run_id)
        self._line_up(_Ready(request, *place_of(request), entry))

    def _line_up(self, waiting: _Ready) -> None:
        self._ready[waiting.entry[-1]] = waiting
        heapq.heappush(self._lanes.setdefault(waiting.tenant, {}).setdefault(waiting.pool, []), waiting.entry)

    def _bump(self, run_id: str, event: Event) -> None:
        """Put a run first, at once or as soon as it may start."""
        bumped = {"bumped": event.get("seq")}
        if run_id in self._ready:
            self._make_ready({**self._ready.pop(run_id).request, **bumped})
        elif run_id in self._later:
            wake_s, request = self._later[run_id]
            self._later[run_id] = (wake_s, {**request, **bumped})
        for held in self._held.values():
            if run_id in held:
                held[run_id] = {**held[run_id], **bumped}

    def _hold_until(self, wake_s: float, request: RunRequest) -> None:
        run_id = str(request["run_id"])
        self._activate(request)
        self._ready.pop(run_id, None)
        self._later[run_id] = (wake_s, request)
        heapq.heappush(self._wakes, (wake_s, run_id))

    def _take_back(self, run_id: str) -> _Ready | None:
        waiting = self._handed.pop(run_id, None)
        if waiting is not None:
            self._at_work.remove(run_id)
            self._share.refund(waiting.tenant, waiting.price)
        return waiting

    # -- what the log says ---------------------------------------------------------------------------------------

    def _take_out(self, run_id: str, schedule_id: str) -> RunRequest | None:
        """Take a run from wherever it waits, or is on its way; return its request."""
        found = self._handed.pop(run_id, None) or self._ready.pop(run_id, None)
        _, later = self._later.pop(run_id, (0.0, None))
        held = self._held.get(schedule_id)
        kept = held.pop(run_id, None) if held else None
        return found.request if found else later or kept

    def _begin(self, request: RunRequest, start: Event) -> None:
        run_id = str(request["run_id"])
        self._activate(request)
        if is_by_hand(request, start):
            self._at_work.remove(run_id)
        else:
            self._at_work.add(run_id, *place_of(request))

    def _finish(self, run_id: str, event: Event) -> None:
        if run_id in self._at_work:
            length_s = event.get("duration_s")
            if isinstance(length_s, int | float):
                self._share.learn(self._at_work.tenant_of(run_id), float(length_s))
            self._at_work.remove(run_id)
        if not event.get("next_attempt"):
            self._end(run_id, _schedule_of(event))

    def _take_limits(self, event: Event) -> None:
        try:
            self.limits = Limits.of_event(event)
        except (ValueError, TypeError, AttributeError):
            return  # of another hand; the history counts it

    def _pass_time(self, event: Event) -> None:
        moment = epoch_or_none(event.get("timestamp"))
        if moment is not None:
            self._clock_s = max(self._clock_s, int(moment + self._skew_s))

    def _activate(self, request: RunRequest | Event) -> None:
        schedule_id = _schedule_of(request)
        if schedule_id:
            self._active.setdefault(schedule_id, set()).add(str(request["run_id"]))

    def _end(self, run_id: str, schedule_id: str) -> None:
        """Close a run, and give its schedule's turn to the next that was held back for it."""
        active, held = self._active.get(schedule_id, set()), self._held.get(schedule_id)
        active.discard(run_id)
        if active:
            return
        self._active.pop(schedule_id, None)
        if held:
            self.put(held.popitem(last=False)[1])
        if not held:
            self._held.pop(schedule_id, None)


def _schedule_of(request: RunRequest | Event) -> str:
    return str(request.get("schedule_id") or "")


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
