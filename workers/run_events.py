"""The events of one run, newest first, and what its tasks came to: read backward, so the cost is that of its age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from .errors import TickpoolError
from .events import Event, iso, time_of
from .ids import base_of
from .segments import read_backward

__all__ = [
    "LAST_WORDS",
    "Forgotten",
    "Kept",
    "ended_before",
    "events_of_run",
    "is_final",
    "kept_of",
    "last_words",
    "newer_than",
]

# The events that say how a task ended.
LAST_WORDS = ("task_finished", "task_skipped", "task_kept")
# One line in so many is read to see how old the lines are.
_SAMPLE = 500
# So many older events in a row, and none will come that is newer.
_OLDER = 1000


class Forgotten(TickpoolError):
    """Tasks that are not to run again, and of whose end nothing is on record: (the task or run, the task log)."""

    def __str__(self) -> str:
        return f"`{self.args[0]!s:.200}` is to go on, and {self.args[1]} does not say any more how its tasks ended"


class Kept(NamedTuple):
    """How a task ended in an attempt before, and what it put out; `item_mark` tells which item an instance had."""

    status: Literal["success", "skipped"]
    outputs: dict[str, Any]
    item_mark: str | None = None


def is_final(event: Event | None) -> TypeGuard[Event]:
    """Say whether an event is the last end of a run: no further attempt follows."""
    return event is not None and event.get("event") == "run_finished" and not event.get("next_attempt")


def events_of_run(path: Path, run_id: str, since: str | None = None) -> Iterator[Event]:
    """Yield the events of a log that belong to a run, newest first.

    None is older than `since` (ISO 8601, UTC) by more than a day: the clock may have been set back.
    Raises LogUnreadable.
    """
    mark, number, first = run_id.encode(), count(1), _day_before(since)

    def is_wanted(line: bytes) -> bool:
        return mark in line or (first is not None and next(number) % _SAMPLE == 0)

    for event in read_backward(path, wanted=is_wanted):
        if event is None:
            continue
        if first is not None and str(event.get("timestamp")) < first:
            return
        if event.get("run_id") == run_id:
            yield event


def newer_than(since: datetime, events: Iterable[Event]) -> Iterator[Event]:
    """Yield those of the events, which come newest first, that are not older; one without a time is passed over.

    A few that are older are no end: the clock was wrong when they were written, or another hand wrote them.
    """
    first, older = since.timestamp(), 0
    for event in events:
        at_s = time_of(event.get("timestamp"))
        if at_s is None:
            continue
        older = older + 1 if at_s < first else 0
        if older == 0:
            yield event
        elif older == _OLDER:
            return


def _day_before(moment: str | None) -> str | None:
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(moment or "")
        return iso(time - timedelta(days=1)) if time.tzinfo is not None else None
    return None


def last_words(task_log: Path, run_id: str, since: str | None = None) -> dict[str, Event]:
    """Return the event by which each task of a run ended last, in whichever of its attempts; hooks are left out.

    Of one that was begun since, and has no end on record, it is the event that says so.
    """
    found: dict[str, Event] = {}
    for event in events_of_run(task_log, run_id, since):
        if event.get("event") in (*LAST_WORDS, "task_started") and not event.get("hook"):
            found.setdefault(str(event.get("task_id")), event)
    return found


def kept_of(task_log: Path, run_id: str, names: Iterable[str]) -> dict[str, Kept]:
    """Return how these tasks of a run have ended. Raises Forgotten for one that has not ended well, LogUnreadable."""
    wanted = list(names)
    words = last_words(task_log, run_id) if wanted else {}
    for name in wanted:
        if name not in words or words[name].get("status") not in ("success", "skipped"):
            raise Forgotten(name, task_log)
    return {
        name: Kept(words[name]["status"], words[name].get("outputs") or {}, words[name].get("item_mark"))
        for name in wanted
    }


def ended_before(
    task_log: Path, run_id: str, attempt: int, counts: Mapping[str, int], waits: Collection[str], since: str | None
) -> dict[str, Event]:
    """Return the event by which each task, and each instance of one, ended in an attempt that was parked, oldest first.

    `waits` are the tasks that go on waiting. Raises Forgotten where the log has not as many as `counts` says (by
    status), LogUnreadable.
    """
    found: dict[str, Event] = {}
    for event in events_of_run(task_log, run_id, since):
        if event.get("attempt") == attempt and event.get("event") in LAST_WORDS and not event.get("hook"):
            found.setdefault(str(event.get("task_id")), event)
    ended = {name: found[name] for name in reversed(found) if name not in waits}
    told = Counter(str(event.get("status")) for name, event in ended.items() if base_of(name) == name)
    if told != Counter(counts):
        raise Forgotten(run_id, task_log)
    return ended
