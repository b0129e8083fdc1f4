"""The command that runs fire times of the past: backfill."""

from __future__ import annotations

import argparse
import os
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import TickpoolError

from .names import UnknownName
from .operator import opened, operator, wait
from .output import complain, print_json, say
from .parser import Command, InvalidMoment, add_dir, read_moment, whole_number
from .progress import Progress

if TYPE_CHECKING:
    from scheduler.backfills import Backfill
    from scheduler.history import History
    from scheduler.schedule_model import Schedule
    from scheduler.state_store import StateStore
    from workers.events import Event
    from workers.settings import Settings

__all__ = ["COMMANDS"]

_MOST = 100_000
_SHOWN = 5


class NoSlots(TickpoolError):
    """A backfill of nothing: (the schedule, why)."""

    def __str__(self) -> str:
        return f"nothing to backfill of schedule `{self.args[0]}`: {self.args[1]}"


def _backfill(options: argparse.Namespace) -> int:
    from scheduler.control import wake_service
    from workers.settings import read_settings

    settings, now, by = read_settings(os.environ), datetime.now(UTC), operator()
    with opened(settings) as store:
        store.refresh()
        if options.first is None:
            return _go_on(store, _open_one(store.history, options.schedule), options)
        schedule = _schedule(options)
        wanted = _slots(schedule, options, now)
        done = _succeeded(settings, schedule.id, wanted) if options.only_missing else set()
        wanted = [slot for slot in wanted if slot not in done]
        if options.dry_run:
            return _show_plan(settings, store.history, schedule, wanted, options)
        name = f"{schedule.id}.backfill.{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        events = store.commit(lambda history: _requests(name, schedule, wanted, history, options, by))
        wake_service(store.history)
        if not events:
            # Whoever was interrupted asks once more, and sees the one that goes on.
            return _go_on(store, _open_one(store.history, schedule.id), options)
        return _go_on(store, store.history.backfills.open[name], options)


def _requests(
    name: str, schedule: Schedule, wanted: list[int], history: History, options: argparse.Namespace, by: str
) -> list[Event]:
    """Return the events that ask for the slots that nobody is at; none when others are at all of them."""
    from scheduler.backfills import backfill_requests
    from scheduler.judge import run_terms

    slots = _free(history, schedule.id, wanted)
    if not slots and history.backfills.slots_of(schedule.id):
        return []
    if not slots:
        raise NoSlots(schedule.id, "a run of each fire time is open, or has succeeded already")
    terms = run_terms(schedule)
    return list(backfill_requests(name, schedule.id, terms, slots, options.max_parallel, by))


def _free(history: History, schedule_id: str, wanted: Sequence[int]) -> list[int]:
    """Return the slots at which nobody is: neither a backfill nor an open run of the schedule."""
    from scheduler.history import epoch

    taken = history.backfills.slots_of(schedule_id)
    taken.update(epoch(run.request["minute"]) for run in history.open_runs(schedule_id) if run.request.get("minute"))
    return [slot for slot in wanted if slot not in taken]


def _open_one(history: History, schedule_id: str) -> Backfill:
    found = [each for each in history.backfills.open.values() if each.schedule_id == schedule_id]
    if not found:
        raise NoSlots(schedule_id, "no backfill of it is open; name --from, and perhaps --until")
    return found[-1]


def _schedule(options: argparse.Namespace) -> Schedule:
    from scheduler.schedules import read_configuration

    configuration = read_configuration(options.dir)
    schedules = {schedule.id: schedule for schedule in configuration.schedules}
    if options.schedule not in schedules:
        for fault in configuration.faults:
            complain(fault)
        raise UnknownName("schedule", options.schedule, list(schedules))
    schedule = schedules[options.schedule]
    if not Path(schedule.project, schedule.dag).is_file():
        raise NoSlots(schedule.id, f"its DAG {schedule.dag} is not there")
    return schedule


def _slots(schedule: Schedule, options: argparse.Namespace, now: datetime) -> list[int]:
    """Return the fire times from `--from` up to, and without, `--until`; those that it is closed at are left out."""
    from itertools import islice

    first = _moment("--from", options.first, schedule)
    last = min(now, _moment("--until", options.until, schedule)) if options.until else now
    start = datetime.fromtimestamp(first.timestamp() - 1, UTC).astimezone(schedule.zone)
    fires = islice(schedule.fires.between(start, last), _MOST + 1)
    slots = [int(fire.timestamp()) for fire in fires if first <= fire < last and schedule.closed(fire) is None]
    if not slots:
        raise NoSlots(schedule.id, "it has no fire time then at which it runs, or none that has come")
    if len(slots) > _MOST:
        raise NoSlots(schedule.id, f"there are more than {_MOST} fire times; ask for less at a time")
    return slots[::-1] if options.reverse else slots


def _moment(option: str, text: str, schedule: Schedule) -> datetime:
    """Read a moment; a mere date is its first moment in the schedule's zone. Raises InvalidMoment."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return read_moment(option, text)
    try:
        return datetime(day.year, day.month, day.day, tzinfo=schedule.zone).astimezone(UTC)
    except OverflowError:
        raise InvalidMoment(option, text) from None


def _succeeded(settings: Settings, schedule_id: str, slots: Sequence[int]) -> set[int]:
    """Return the slots of which a run has succeeded, whoever asked for it."""
    from scheduler.history import epoch
    from workers.segments import read_backward

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


# -- what is shown ----------------------------------------------------------------------------------------------------


def _show_plan(
    settings: Settings, history: History, schedule: Schedule, wanted: list[int], options: argparse.Namespace
) -> int:
    from scheduler.durations import read_durations
    from scheduler.text import span

    slots = _free(history, schedule.id, wanted)
    known = read_durations(Path(settings.state_path)).get(schedule.id)
    takes_s = None if known is None else known.p50_s * len(slots) / options.max_parallel
    minutes = [datetime.fromtimestamp(slot, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for slot in slots]
    if options.json:
        print_json({"schedule_id": schedule.id, "slots": minutes, "estimate_s": takes_s})
        return 0
    shown = minutes if len(minutes) <= 2 * _SHOWN else [*minutes[:_SHOWN], "...", *minutes[-_SHOWN:]]
    for minute in shown:
        say(f"  {minute}")
    estimate = "" if takes_s is None else f", about {span(takes_s)} with {options.max_parallel} at a time"
    say(f"{len(slots)} run(s) of schedule {schedule.id}{estimate}; nothing was asked for (--dry-run)")
    return 0


def _go_on(store: StateStore, backfill: Backfill, options: argparse.Namespace) -> int:
    """Wait for the end of a backfill, with its progress; a Ctrl+C leaves it to the service."""
    from scheduler.control import service_of

    name = backfill.backfill_id
    if not options.json:
        say(f"Backfill {name}: {backfill.total} run(s), {backfill.max_parallel} at a time")
    ends: list[Event] = []
    store.follow(
        lambda event: (
            ends.append(event) if event["event"] == "backfill_finished" and event.get("backfill_id") == name else None
        )
    )
    if service_of(store.history) is None:
        complain("no service runs on this log; the next one does it")
    elif not options.detach:
        try:
            _watch(store, backfill, ends)
        except KeyboardInterrupt:
            complain(f"it goes on; `tickpool backfill {backfill.schedule_id}` shows it again")
            complain(f"`tickpool cancel --backfill {name}` ends it")
            raise
    ended = Counter(ends[0]["ended"] if ends else backfill.ended)
    if options.json:
        print_json(_row(backfill, ended, is_finished=bool(ends)))
    elif ends:
        say("  ".join(f"{count} {status}" for status, count in ended.items()) or "Nothing was run")
    return int(bool(ends) and ended.total() > ended["success"])


def _watch(store: StateStore, backfill: Backfill, ends: list[Event]) -> None:
    from scheduler.text import span

    began, before = time.monotonic(), sum(backfill.ended.values())
    with Progress("backfill") as progress:

        def show() -> None:
            done = sum(backfill.ended.values())
            left = len(backfill.slots) + len(backfill.open)
            rate = (done - before) / (time.monotonic() - began)
            text = f"{done}/{backfill.total}" + (f", {span(left / rate)} to go" if rate > 0 and left else "")
            progress.show(done, backfill.total, text)

        wait(store, lambda: bool(ends), show)


def _row(backfill: Backfill, ended: Counter[str], *, is_finished: bool) -> dict[str, Any]:
    return {
        "backfill_id": backfill.backfill_id,
        "schedule_id": backfill.schedule_id,
        "total": backfill.total,
        "left": len(backfill.slots),
        "open": list(backfill.open),
        "ended": dict(ended),
        "is_finished": is_finished,
    }


def _add_backfill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("schedule", metavar="SCHEDULE", help="a schedule's id")
    add_dir(parser)
    parser.add_argument(
        "--from", dest="first", metavar="T", help="from this day or ISO time on; without it, show the open one"
    )
    parser.add_argument("--until", metavar="T", help="up to this day or ISO time, and without it (default: now)")
    parser.add_argument("--only-missing", action="store_true", help="leave out fire times of which a run has succeeded")
    parser.add_argument(
        "--max-parallel", type=whole_number(1, 1000), default=1, metavar="N", help="at once (default: 1)"
    )
    parser.add_argument("--reverse", action="store_true", help="the newest first")
    parser.add_argument("--dry-run", action="store_true", help="show what would be run")
    parser.add_argument("--detach", action="store_true", help="do not wait for its end")


COMMANDS = {"backfill": Command("run a schedule's fire times of the past, by the service", _backfill, _add_backfill)}
