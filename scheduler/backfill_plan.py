"""What a backfill of some span comes to: the slots that are to run, and the events that ask for them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from workers.errors import TickpoolError
from workers.events import Event
from workers.segments import read_backward
from workers.settings import Settings

from .backfills import backfill_requests
from .history import History, epoch
from .judge import run_terms
from .schedule_model import Schedule

__all__ = ["NoSlots", "backfill_events", "backfill_id", "free_slots", "slots_between", "succeeded"]

_MOST = 100_000


class NoSlots(TickpoolError):
    """A backfill of nothing: (the schedule, why)."""

    def __str__(self) -> str:
        return f"nothing to backfill of schedule `{self.args[0]}`: {self.args[1]}"


def backfill_id(schedule_id: str, now: datetime) -> str:
    """Return a new id for a backfill of a schedule."""
    return f"{schedule_id}.backfill.{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def slots_between(schedule: Schedule, first: datetime, last: datetime) -> list[int]:
    """Return the fire times from `first` up to, and without, `last`; those that it is closed at are left out.

    None is before 1970, where the log's clock begins. Raises NoSlots, also where its DAG is not there.
    """
    if not Path(schedule.project, schedule.dag).is_file():
        raise NoSlots(schedule.id, f"its DAG {schedule.dag} is not there")
    start = datetime.fromtimestamp(max(first.timestamp(), 0.0) - 1, UTC).astimezone(schedule.zone)
    fires = islice(schedule.fires.between(start, last), _MOST + 1)
    slots = [int(fire.timestamp()) for fire in fires if first <= fire < last and schedule.closed(fire) is None]
    if not slots:
        raise NoSlots(schedule.id, "it has no fire time then at which it runs, or none that has come")
    if len(slots) > _MOST:
        raise NoSlots(schedule.id, f"there are more than {_MOST} fire times; ask for less at a time")
    return slots


def free_slots(history: History, schedule_id: str, wanted: Sequence[int]) -> list[int]:
    """Return the slots at which nobody is: neither a backfill nor an open run of the schedule."""
    taken = history.backfills.slots_of(schedule_id)
    taken.update(epoch(run.request["minute"]) for run in history.open_runs(schedule_id) if run.request.get("minute"))
    return [slot for slot in wanted if slot not in taken]


def succeeded(settings: Settings, schedule_id: str, slots: Sequence[int]) -> set[int]:
    """Return the slots of which a run has succeeded, whoever asked for it. Raises LogUnreadable."""
    mark, since = f'"{schedule_id}.'.encode(), datetime.fromtimestamp(min(slots), UTC).isoformat()[:19]
    found = set()
    for event in read_backward(
        Path(settings.state_path), wanted=lambda line: mark in line and b'"run_finished"' in line
    ):
        if event is None or event.get("status") != "success" or not event.get("minute"):
            continue
        if str(event.get("timestamp")) < since:
            break
        if schedule_id in (event.get("schedule_id"), event.get("for_schedule")):
            found.add(epoch(event["minute"]))
    return found.intersection(slots)


def backfill_events(
    history: History, name: str, schedule: Schedule, wanted: Sequence[int], max_parallel: int, by: str
) -> list[Event]:
    """Return the events that ask for the slots that nobody is at; none when other backfills are at all of them.

    To be decided under the lock. Raises NoSlots.
    """
    slots = free_slots(history, schedule.id, wanted)
    if not slots and history.backfills.slots_of(schedule.id):
        return []
    if not slots:
        raise NoSlots(schedule.id, "a run of each fire time is open, or has succeeded already")
    return list(backfill_requests(name, schedule.id, run_terms(schedule), slots, max_parallel, by))
