"""The tick: which fire times are due, and the one verdict each of them gets.

`due` and `judge` decide and touch nothing. `Ticker` keeps the heap of next fire times, so an idle tick looks at one
entry and a busy one only at what is due.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol

from workers.events import Event, iso
from workers.settings import read_settings

from .history import History
from .schedules import Schedule, schedule_from
from .state_store import StateStore

__all__ = ["RunQueueLike", "Ticker", "due", "first_since", "judge", "run_id_for", "tick_once"]

logger = logging.getLogger(__name__)

# A fire time is on time through its minute, as cron judges the current minute; after that it is late.
ON_TIME = timedelta(seconds=60)
# So many are judged at a time, all as missed: a clock that is years off must not stop the service.
_COUNTED = 100_000


class RunQueueLike(Protocol):
    """What `tick_once` needs of a queue; `multiprocessing.Queue` and `queue.Queue` have it."""

    def put(self, item: Event, /) -> object:
        """Take one RunRequest."""


def due(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Return the schedule's fire times in (since, until], ascending, in its zone; at most the first 100,000."""
    fires = schedule.fires.between(since.astimezone(schedule.zone), until.astimezone(schedule.zone))
    return list(islice(fires, _COUNTED))


def first_since(now: datetime) -> datetime:
    """Return where a schedule that was never seen begins: its first tick judges the current minute."""
    return now.replace(second=0, microsecond=0) - timedelta(seconds=1)


def run_id_for(schedule_id: str, fire_time: datetime) -> str:
    """Return the id of the run for {schedule_id, minute}: readable, safe in a path and a URL."""
    utc = fire_time.astimezone(UTC)
    return f"{schedule_id}.{utc:%Y%m%dT%H%M%SZ}" if utc.second else f"{schedule_id}.{utc:%Y%m%dT%H%MZ}"


def judge(
    schedule: Schedule, fires: Sequence[datetime], now: datetime, history: History, late_reason: str
) -> list[Event]:
    """Return the verdicts on the schedule's fire times: enqueued, skipped{reason} or missed{reason}.

    `late_reason` says why fire times could be late: `down` (no supervisor ran), `late` (it was held up) or
    `clock_jump`. What has its verdict already gets no second one.
    """
    fires = [fire for fire in fires if not history.is_judged(schedule.id, fire)]
    if not fires:
        return []
    taken, missed = _catch_up(schedule, fires, now)
    events = [_missed(schedule, group, reason or late_reason) for group, reason in missed if group]
    busy_with = [run.run_id for run in history.open_runs(schedule.id)]
    for fire in taken:
        if schedule.overlap == "skip" and busy_with:
            events.append(_verdict(schedule, fire, "schedule_skipped") | {"reason": "overlap", "open_run": busy_with[0]})
        else:
            request = _request(schedule, fire, is_late=now - fire >= ON_TIME)
            events.append(request)
            busy_with.append(request["run_id"])
    return events


def _catch_up(
    schedule: Schedule, fires: list[datetime], now: datetime
) -> tuple[list[datetime], list[tuple[list[datetime], str | None]]]:
    """Split fire times into those to run and groups of missed ones with their reason (None: why they are late)."""
    if len(fires) >= _COUNTED:
        return [], [(fires, None)]
    on_time = fires[-1:] if now - fires[-1] < ON_TIME else []
    late = fires[: len(fires) - len(on_time)]
    if schedule.catchup == "none":
        return on_time, [(late, None)]
    window = schedule.catchup_window
    recent = [fire for fire in late if window is None or now - fire <= window]
    too_old = late[: len(late) - len(recent)]
    if schedule.catchup == "all":
        return recent + on_time, [(too_old, "catchup_window")]
    newest = on_time or recent[-1:]
    superseded = recent if on_time else recent[:-1]
    return newest, [(too_old, "catchup_window"), (superseded, "superseded")]


def _verdict(schedule: Schedule, fire: datetime, event: str) -> Event:
    return {"event": event, "schedule_id": schedule.id, "minute": iso(fire)}


def _missed(schedule: Schedule, fires: Sequence[datetime], reason: str) -> Event:
    return {
        "event": "schedule_missed",
        "schedule_id": schedule.id,
        "from": iso(fires[0]),
        "to": iso(fires[-1]),
        "count": len(fires),
        "reason": reason,
    }


def _request(schedule: Schedule, fire: datetime, *, is_late: bool) -> Event:
    """Return the RunRequest, which is the event that records it."""
    request = _verdict(schedule, fire, "schedule_enqueued") | {
        "run_id": run_id_for(schedule.id, fire),
        "attempt": 1,
        "dag": schedule.dag,
        "project": schedule.project,
        "tenant": schedule.tenant,
        "params": schedule.params,
        "overlap": schedule.overlap,
    }
    if is_late:
        request["catchup"] = schedule.catchup
    if schedule.timeout is not None:
        request["timeout_s"] = schedule.timeout.total_seconds()
    if schedule.retries.max:
        retries = schedule.retries
        request["retries"] = {
            "max": retries.max,
            "delay_s": retries.delay.total_seconds(),
            "backoff": retries.backoff,
            "max_delay_s": retries.max_delay.total_seconds(),
            "jitter": retries.jitter,
        }
    if schedule.retry_on_crash:
        request["retry_on_crash"] = True
    return request


class Ticker:
    """The schedules in force and a heap of their next fire times."""

    def __init__(self, store: StateStore, schedules: Iterable[Schedule], now: datetime) -> None:
        self._store = store
        self.replace(schedules, now)

    def replace(self, schedules: Iterable[Schedule], now: datetime) -> None:
        """Take other schedules; each goes on from what the log has judged of it."""
        self.schedules = {schedule.id: schedule for schedule in schedules}
        self.resume(now)

    def resume(self, now: datetime) -> None:
        """Build the heap anew from what the log has judged."""
        self._since: dict[str, datetime] = {}
        self._heap: list[tuple[float, str]] = []
        for schedule in self.schedules.values():
            if schedule.enabled:
                since = self._store.history.watermark(schedule.id)
                # A clock that stands before the watermark was set back: judge its present minute, if nobody has.
                self._since[schedule.id] = since if since and since <= now else first_since(now)
                self._push(schedule)

    def next_fire(self) -> datetime | None:
        """Return the next fire time of any schedule, in UTC."""
        return datetime.fromtimestamp(self._heap[0][0], UTC) if self._heap else None

    def tick(self, now: datetime, late_reason: str = "late") -> list[Event]:
        """Record the verdict on every fire time up to `now`, in one append; return the events recorded."""
        ready = self._pop_due(now)
        if not ready:
            return []
        fires = [(schedule, due(schedule, self._since[schedule.id], now)) for schedule in ready]

        def verdicts(history: History) -> list[Event]:
            return [event for schedule, times in fires for event in judge(schedule, times, now, history, late_reason)]

        try:
            recorded = self._store.commit(verdicts)
            self._since.update((schedule.id, times[-1]) for schedule, times in fires if times)
        finally:
            # After a failed append the schedules stay due: the next tick judges them.
            for schedule in ready:
                self._push(schedule)
        return recorded

    def _pop_due(self, now: datetime) -> list[Schedule]:
        limit = now.timestamp()
        ready = []
        while self._heap and self._heap[0][0] <= limit:
            ready.append(self.schedules[heapq.heappop(self._heap)[1]])
        return ready

    def _push(self, schedule: Schedule) -> None:
        fire = schedule.fires.next(self._since[schedule.id].astimezone(schedule.zone))
        if fire is not None:
            heapq.heappush(self._heap, (fire.timestamp(), schedule.id))


def tick_once(
    now: datetime, schedules: Iterable[Schedule | Mapping[str, Any]], run_queue: RunQueueLike
) -> list[Event]:
    """Judge the schedules at `now` (aware), record each verdict, put the new RunRequests on `run_queue`; return them.

    The state log is STATE_STORE_PATH. A request is recorded before it is put. A minute that has its verdict, by this
    process or any other, is not judged again. Raises LogUnwritable, LockTimeout, and InvalidFile for a bad mapping.
    """
    store = StateStore(read_settings(os.environ).state_log())
    try:
        store.refresh()
        ticker = Ticker(store, [schedule_from(entry) for entry in schedules], now)
        requests = [event for event in ticker.tick(now) if event["event"] == "schedule_enqueued"]
    finally:
        store.close()
    for request in requests:
        run_queue.put(request)
    return requests
