"""The judge: which fire times are due, and the one verdict each of them gets. Pure: it decides and touches nothing."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from workers.events import Event, iso, iso_exact
from workers.ids import run_id_at
from workers.run_request import cancel_requested

from .arrivals import Due
from .catch_up import catch_up
from .history import History, Run
from .schedule_model import ON_TIME, Schedule

__all__ = [
    "ON_TIME",
    "Fires",
    "due",
    "first_since",
    "judge",
    "judge_arrival",
    "missed_between",
    "run_id_for",
    "run_terms",
    "skipped_arrival",
]

# So many fire times of one schedule are told apart; of more, all but those of the last day are missed without a count.
# A clock that is years off must not stop the service.
_COUNTED = 100_000
_AT_LEAST = timedelta(days=1)

Fires = list[datetime]


def due(schedule: Schedule, since: datetime, until: datetime) -> Fires:
    """Return the schedule's fire times in (since, until], ascending, in UTC; at most the first 100,000."""
    fires = schedule.fires.between(since.astimezone(schedule.zone), until)
    return [fire.astimezone(UTC) for fire in islice(fires, _COUNTED)]


def first_since(now: datetime) -> datetime:
    """Return where a schedule that was never seen begins: its first tick judges the current minute."""
    return now.replace(second=0, microsecond=0) - timedelta(seconds=1)


def run_id_for(schedule_id: str, fire_time: datetime) -> str:
    """Return the id of the run for {schedule_id, minute}: readable, safe in a path and a URL."""
    return run_id_at(schedule_id, iso(fire_time))


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
    events: list[Event] = []
    if schedule.can_close or history.pauses:
        closed = {fire: reason for fire in waiting if (reason := _why_not(schedule, fire, now, history)) is not None}
        waiting = [fire for fire in waiting if fire not in closed]
        events += _shut(schedule, fires, closed, now)
        if not waiting:
            return events
    judged = _gaps(fires, waiting)
    taken, missed = catch_up(schedule, waiting, now)
    events += [
        _missed(schedule, part, reason or late_reason) for group, reason in missed for part in _split(group, judged)
    ]
    return [*events, *_ask(schedule, taken, now, history.open_runs(schedule.id))]


def _why_not(schedule: Schedule, fire: datetime, now: datetime, history: History) -> str | None:
    """Say why the schedule does not run at a fire time: its definition closes it, or an operator has paused it."""
    closed = schedule.closed(fire)
    if closed is None and history.pauses.is_paused(schedule.id, schedule.tenant, fire, now):
        return "paused"
    return closed


def _shut(schedule: Schedule, fires: Sequence[datetime], closed: dict[datetime, str], now: datetime) -> Iterator[Event]:
    """Yield the verdicts on fire times at which the schedule does not run, with the reason of each.

    One that is in time is skipped; those that are late are missed, in ranges: a year of them must not be a line each.
    """
    for reason in dict.fromkeys(closed.values()):
        late = [fire for fire, its in closed.items() if its == reason and now - fire >= ON_TIME]
        yield from (_missed(schedule, part, reason) for part in _split(late, _gaps(fires, late)))
    for fire, reason in closed.items():
        if now - fire < ON_TIME:
            yield _verdict(schedule, fire, "schedule_skipped") | {"reason": reason}


def judge_arrival(schedule: Schedule, arrival: Due, now: datetime, history: History) -> list[Event]:
    """Return the verdict on something that has come for the schedule, first among its events; it names its trigger."""
    fire = datetime.fromtimestamp(arrival.second, UTC)
    if history.pauses.is_paused(schedule.id, schedule.tenant, fire, now):
        return [skipped_arrival(schedule.id, arrival, "paused")]
    verdict, *cancels = _ask(schedule, [fire], now, history.open_runs(schedule.id), arrival.number)
    verdict.pop("catchup", None)
    return [verdict | {"trigger": arrival.trigger}, *cancels]


def skipped_arrival(schedule_id: str, arrival: Due, reason: str) -> Event:
    """Return the verdict on something that came for a schedule, and for which it does not run."""
    minute = iso(datetime.fromtimestamp(arrival.second, UTC))
    skipped = {"event": "schedule_skipped", "schedule_id": schedule_id, "minute": minute}
    return skipped | {"reason": reason, "trigger": arrival.trigger}


def _ask(
    schedule: Schedule, fires: Sequence[datetime], now: datetime, open_runs: Sequence[Run], number: int = 1
) -> Iterator[Event]:
    """Yield what becomes of fire times that may run: a request for each, or the skip that its policies demand.

    With `overlap: replace` the request is followed by the cancels of those that stand in its way.
    """
    busy_with = [run.run_id for run in open_runs]
    waiting = sum(run.status == "queued" for run in open_runs)
    to_cancel = [run.run_id for run in open_runs if run.cancel is None]
    for fire in fires:
        if schedule.start_deadline is not None and now >= fire + schedule.start_deadline:
            reason: Event = {"reason": "start_deadline", "start_by": iso_exact(fire + schedule.start_deadline)}
        elif schedule.overlap == "skip" and busy_with:
            reason = {"reason": "overlap", "open_run": busy_with[0]}
        elif schedule.max_queued is not None and waiting >= schedule.max_queued:
            reason = {"reason": "max_queued", "waiting": waiting}
        else:
            request = _request(schedule, fire, number, is_late=now - fire >= ON_TIME)
            yield request
            if schedule.overlap == "replace":
                yield from (cancel_requested(name, "replaced", request["run_id"]) for name in to_cancel)
                to_cancel = []
            busy_with.append(request["run_id"])
            to_cancel.append(request["run_id"])
            waiting += 1
            continue
        yield _verdict(schedule, fire, "schedule_skipped") | reason


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


def _request(schedule: Schedule, fire: datetime, number: int, *, is_late: bool) -> Event:
    """Return the RunRequest, which is the event that records it; the `number`th of that moment."""
    request = _verdict(schedule, fire, "schedule_enqueued")
    run_id = run_id_at(schedule.id, request["minute"]) + (f"-{number}" if number > 1 else "")
    request |= {"run_id": run_id, "attempt": 1, **run_terms(schedule), "overlap": schedule.overlap}
    if is_late:
        request["catchup"] = schedule.catchup
    _add_times(request, schedule, fire, is_late=is_late)
    return request


def run_terms(schedule: Schedule) -> Event:
    """Return what the schedule says of every run of it, whoever asks for one."""
    terms: Event = {
        "dag": schedule.dag,
        "project": schedule.project,
        "tenant": schedule.tenant,
        "params": schedule.params,
    }
    if schedule.priority:
        terms["priority"] = schedule.priority
    if schedule.pool is not None:
        terms["pool"] = schedule.pool
    if schedule.timeout is not None:
        terms["timeout_s"] = schedule.timeout.total_seconds()
    if schedule.retries.max:
        retries = schedule.retries
        terms["retries"] = {
            "max": retries.max,
            "delay_s": retries.delay.total_seconds(),
            "backoff": retries.backoff,
            "max_delay_s": retries.max_delay.total_seconds(),
            "jitter": retries.jitter,
        }
    if schedule.retry_on_crash:
        terms["retry_on_crash"] = True
    return terms


def _add_times(request: Event, schedule: Schedule, fire: datetime, *, is_late: bool) -> None:
    """Add the moments that its policies give the run, all of them counted from its fire time."""
    if schedule.max_queued is not None:
        request["max_queued"] = schedule.max_queued
    if schedule.jitter and not is_late:  # what is late needs no spreading
        request["not_before"] = iso_exact(fire + schedule.jitter * _share(schedule.id))
    if schedule.start_deadline is not None:
        request["start_by"] = iso_exact(fire + schedule.start_deadline)
    if schedule.deadline is not None:
        request["deadline"] = iso_exact(fire + schedule.deadline)
    if schedule.on_deadline is not None:
        request["on_deadline"] = schedule.on_deadline


def _share(schedule_id: str) -> float:
    """Return a number in [0, 1) that is always the same for one schedule, and spread over many."""
    return int.from_bytes(hashlib.sha256(schedule_id.encode()).digest()[:6]) / (1 << 48)
