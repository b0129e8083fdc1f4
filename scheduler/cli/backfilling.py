"""The command that runs fire times of the past: backfill."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.moments import read_day

from .names import UnknownName
from .operator import opened, operator, wait
from .output import complain, print_json, say
from .parser import Command, add_dir, whole_number
from .progress import Progress

if TYPE_CHECKING:
    from scheduler.backfills import Backfill
    from scheduler.history import History
    from scheduler.schedule_model import Schedule
    from scheduler.state_store import StateStore
    from workers.events import Event
    from workers.settings import Settings

__all__ = ["COMMANDS"]

_SHOWN = 5


def _backfill(options: argparse.Namespace) -> int:
    from scheduler.backfill_plan import backfill_events, backfill_id, succeeded
    from scheduler.control import wake_service
    from workers.settings import read_settings

    settings, now, by = read_settings(os.environ), datetime.now(UTC), operator()
    with opened(settings) as store:
        store.refresh()
        if options.first is None:
            return _go_on(store, _open_one(store.history, options.schedule), options)
        schedule = _schedule(options)
        wanted = _slots(schedule, options, now)
        done = succeeded(settings, schedule.id, wanted) if options.only_missing else set()
        wanted = [slot for slot in wanted if slot not in done]
        if options.dry_run:
            return _show_plan(settings, store.history, schedule, wanted, options)
        name = backfill_id(schedule.id, now)
        most = options.max_parallel
        events = store.commit(lambda history: backfill_events(history, name, schedule, wanted, most, by))
        wake_service(store.history)
        if not events:
            # Whoever was interrupted asks once more, and sees the one that goes on.
            return _go_on(store, _open_one(store.history, schedule.id), options)
        return _go_on(store, store.history.backfills.open[name], options)


def _open_one(history: History, schedule_id: str) -> Backfill:
    from scheduler.backfill_plan import NoSlots

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
    return schedules[options.schedule]


def _slots(schedule: Schedule, options: argparse.Namespace, now: datetime) -> list[int]:
    """Return the slots from `--from` up to, and without, `--until`. Raises NoSlots, InvalidMoment."""
    from scheduler.backfill_plan import slots_between

    first = read_day("--from", options.first, schedule.zone)
    last = min(now, read_day("--until", options.until, schedule.zone)) if options.until else now
    slots = slots_between(schedule, first, last)
    return slots[::-1] if options.reverse else slots


# -- what is shown ----------------------------------------------------------------------------------------------------


def _show_plan(
    settings: Settings, history: History, schedule: Schedule, wanted: list[int], options: argparse.Namespace
) -> int:
    from scheduler.backfill_plan import free_slots
    from scheduler.durations import read_durations
    from scheduler.text import span

    slots = free_slots(history, schedule.id, wanted)
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
