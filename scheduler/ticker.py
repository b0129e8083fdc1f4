"""The tick: which fire times are due, and the one verdict each of them gets.

`due` and `judge` decide and touch nothing. `Ticker` keeps the heap of next fire times, so an idle tick looks at one
entry and a busy one only at what is due.
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol

from workers.events import Event, iso
from workers.settings import read_settings

from .cron import Cron, NaiveDatetime
from .history import History
from .schedules import Schedule, schedule_from
from .state_store import StateStore

__all__ = [
    "ON_TIME",
    "RunQueueLike",
    "Ticker",
    "due",
    "first_since",
    "judge",
    "missed_between",
    "run_id_for",
    "tick_once",
]

# A fire time is on time through its minute, as cron judges the current minute; after that it is late.
ON_TIME = timedelta(seconds=60)
# So many fire times of one schedule are told apart; of more, all but those of the last day are missed without a count.
# A clock that is years off must not stop the service.
_COUNTED = 100_000
_AT_LEAST = timedelta(days=1)

Fires = list[datetime]


class RunQueueLike(Protocol):
    """What `tick_once` needs of a queue; `multiprocessing.Queue` and `queue.Queue` have it."""

    def put(self, item: Event, /) -> object:
        """Take one RunRequest."""


def due(schedule: Schedule, since: datetime, until: datetime) -> Fires:
    """Return the schedule's fire times in (since, until], ascending, in UTC; at most the first 100,000."""
    fires = schedule.fires.between(since.astimezone(schedule.zone), until)
    return [fire.astimezone(UTC) for fire in islice(fires, _COUNTED)]


def first_since(now: datetime) -> datetime:
    """Return where a schedule that was never seen begins: its first tick judges the current minute."""
    return now.replace(second=0, microsecond=0) - timedelta(seconds=1)


def run_id_for(schedule_id: str, fire_time: datetime) -> str:
    """Return the id of the run for {schedule_id, minute}: readable, safe in a path and a URL."""
    return f"{schedule_id}.{_compact(iso(fire_time))}"


def _compact(minute: str) -> str:
    return minute.replace("-", "").replace(":", "").replace("00Z", "Z")


def judge(
    schedule: Schedule, fires: Sequence[datetime], now: datetime, history: History, late_reason: str
) -> list[Event]:
    """Return the verdicts on the schedule's fire times (in UTC): enqueued, skipped{reason} or missed{reason}.

    `late_reason` says why fire times could be late: `down` (no supervisor ran), `late` (it was held up) or
    `clock_jump`. What has its verdict already gets no second one.
    """
    waiting = history.without_verdict(schedule.id, fires)
    if not waiting:
        return []
    if len(fires) >= _COUNTED:
        return _judge_many(schedule, waiting, now, history, late_reason)
    judged = _gaps(fires, waiting)
    taken, missed = _catch_up(schedule, waiting, now)
    events = [
        _missed(schedule, part, reason or late_reason) for group, reason in missed for part in _split(group, judged)
    ]
    busy_with = [run.run_id for run in history.open_runs(schedule.id)]
    for fire in taken:
        if schedule.overlap == "skip" and busy_with:
            events.append(
                _verdict(schedule, fire, "schedule_skipped") | {"reason": "overlap", "open_run": busy_with[0]}
            )
        else:
            request = _request(schedule, fire, is_late=now - fire >= ON_TIME)
            events.append(request)
            busy_with.append(request["run_id"])
    return events


def _judge_many(
    schedule: Schedule, fires: Sequence[datetime], now: datetime, history: History, late_reason: str
) -> list[Event]:
    """Judge what is too much to be told apart: the older part is one missed range, whatever the catch-up."""
    window = max(_AT_LEAST, schedule.catchup_window or _AT_LEAST)
    tail = due(schedule, max(now - window, fires[0]), now)
    if len(tail) >= _COUNTED:
        tail = due(schedule, now - _AT_LEAST, now)
    rest = _missed_many(schedule, fires, tail[0] if tail else now, late_reason)
    return [rest, *judge(schedule, tail, now, history, late_reason)]


def missed_between(schedule: Schedule, since: datetime, until: datetime, history: History, reason: str) -> list[Event]:
    """Return as missed what the schedule has no verdict on in (since, until]. Raises what its cron and zone raise."""
    fires = due(schedule, since, until)
    waiting = history.without_verdict(schedule.id, fires)
    if waiting and len(fires) >= _COUNTED:
        return [_missed_many(schedule, waiting, until + timedelta(seconds=1), reason)]
    return [_missed(schedule, part, reason) for part in _split(waiting, _gaps(fires, waiting))]


def _missed_many(schedule: Schedule, fires: Sequence[datetime], before: datetime, reason: str) -> Event:
    """Return one missed range from `fires`, which are its first, to the last before `before`."""
    last = schedule.fires.prev(before.astimezone(schedule.zone)) or fires[-1]
    counted = fires[: bisect_right(fires, last)]
    return _missed(schedule, counted, reason) | {"to": iso(last), "is_more": last > fires[-1]}


def _catch_up(
    schedule: Schedule, fires: Sequence[datetime], now: datetime
) -> tuple[Sequence[datetime], list[tuple[Sequence[datetime], str | None]]]:
    """Split fire times into those to run and groups of missed ones with their reason (None: why they are late)."""
    on_time = fires[-1:] if now - fires[-1] < ON_TIME else []
    late = fires[: len(fires) - len(on_time)]
    if schedule.catchup == "none":
        return on_time, [(late, None)]
    window = schedule.catchup_window
    begin = bisect_left(late, now - window) if window is not None else 0
    too_old, recent = late[:begin], late[begin:]
    if schedule.catchup == "all":
        return [*recent, *on_time], [(too_old, "catchup_window")]
    newest = on_time or recent[-1:]
    superseded = recent if on_time else recent[:-1]
    return newest, [(too_old, "catchup_window"), (superseded, "superseded")]


def _gaps(fires: Sequence[datetime], waiting: Sequence[datetime]) -> Sequence[datetime]:
    return sorted(set(fires).difference(waiting)) if len(waiting) < len(fires) else ()


def _split(group: Sequence[datetime], judged: Sequence[datetime]) -> Iterator[Sequence[datetime]]:
    """Yield the parts of a group between which nothing has its verdict already; a missed range covers all within."""
    start = 0
    for gap in judged:
        end = bisect_left(group, gap)
        if end > start:
            yield group[start:end]
            start = end
    if start < len(group):
        yield group[start:]


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
    request = _verdict(schedule, fire, "schedule_enqueued")
    request |= {
        "run_id": f"{schedule.id}.{_compact(request['minute'])}",
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
    """The schedules in force and a heap of their next fire times. Every `now` is an aware datetime."""

    def __init__(self, store: StateStore, schedules: Iterable[Schedule], now: datetime) -> None:
        self._store = store
        self.replace(schedules, now)

    def replace(self, schedules: Iterable[Schedule], now: datetime) -> None:
        """Take other schedules; each goes on from what the log has judged of it."""
        self.schedules = {schedule.id: schedule for schedule in schedules}
        self.resume(now)

    def resume(self, now: datetime) -> None:
        """Build the heap anew from what the log has judged."""
        now = _utc(now)
        following = _Following(now)
        self._heap: list[tuple[float, str]] = []
        for schedule in self.schedules.values():
            if schedule.enabled:
                # A clock that stands before all that was judged was set back: judge its present minute, if nobody has.
                since = self._store.history.judged_until(schedule.id, now) or first_since(now)
                fire = following.after(schedule, since)
                if fire is not None:
                    self._heap.append((fire, schedule.id))
        heapq.heapify(self._heap)

    def next_fire(self) -> datetime | None:
        """Return the next fire time of any schedule, in UTC."""
        return datetime.fromtimestamp(self._heap[0][0], UTC) if self._heap else None

    def tick(self, now: datetime, late_reason: str = "late") -> list[Event]:
        """Record the verdict on every fire time up to `now`, in one append; return the events recorded."""
        now = _utc(now)
        limit = now.timestamp()
        if not self._heap or self._heap[0][0] > limit:
            return []
        ready = []
        while self._heap and self._heap[0][0] <= limit:
            ready.append(heapq.heappop(self._heap))
        following = _Following(now)
        try:
            due_now = [(self.schedules[name], *following.due(self.schedules[name], first)) for first, name in ready]

            def verdicts(history: History) -> list[Event]:
                return [event for each, fires, _ in due_now for event in judge(each, fires, now, history, late_reason)]

            recorded = self._store.commit(verdicts)
            ready = [(fire, each.id) for each, _, fire in due_now if fire is not None]
        finally:
            # After a failed append the schedules stay due: the next tick judges them.
            for entry in ready:
                heapq.heappush(self._heap, entry)
        return recorded


class _Following:
    """The fire times around one `now`, worked out once for all schedules that share expression and zone."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._after: dict[tuple[Cron, str, datetime], float | None] = {}
        self._due: dict[tuple[Cron, str, float], tuple[Fires, float | None]] = {}

    def after(self, schedule: Schedule, since: datetime) -> float | None:
        """Return the schedule's first fire time after `since`, in seconds since the epoch."""
        key = (schedule.fires, schedule.timezone, since)
        if key not in self._after:
            fire = schedule.fires.next(since.astimezone(schedule.zone))
            self._after[key] = None if fire is None else fire.timestamp()
        return self._after[key]

    def due(self, schedule: Schedule, first: float) -> tuple[Fires, float | None]:
        """Return the schedule's fire times from `first` to now, and the next one after now."""
        key = (schedule.fires, schedule.timezone, first)
        found = self._due.get(key)
        if found is None:
            start = datetime.fromtimestamp(first, UTC)
            following = self.after(schedule, start)
            fires = [start]
            if following is not None and following <= self._now.timestamp():
                fires += due(schedule, start, self._now)
                following = self.after(schedule, self._now)
            found = self._due[key] = (fires, following)
        return found


def _utc(now: datetime) -> datetime:
    """Return `now` in UTC: two times of one zone are compared by their wall clocks. Raises NaiveDatetime."""
    if now.utcoffset() is None:
        raise NaiveDatetime(now)
    return now.astimezone(UTC)


def tick_once(now: datetime, schedules: Iterable[Schedule | Mapping[str, Any]], run_queue: RunQueueLike) -> list[Event]:
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
