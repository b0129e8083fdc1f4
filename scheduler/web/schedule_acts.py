"""What an operator asks of a schedule on the dashboard, recorded as the command line records it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from scheduler.backfill_plan import NoSlots, backfill_events, backfill_id, free_slots, slots_between, succeeded
from scheduler.control import pause, request_schedule, resume, wake_service
from scheduler.durations import read_durations
from scheduler.history import History
from scheduler.moments import InvalidMoment, InvalidUntil, read_day, read_moment, read_until
from scheduler.pauses import Scope
from scheduler.schedule_model import Schedule
from scheduler.state_store import StateStore
from scheduler.text import counted, span
from workers.dag import Dag
from workers.errors import InvalidFile, TickpoolError, did_you_mean
from workers.events import Event, iso
from workers.given_params import InvalidParam, checked_params
from workers.settings import Settings

from .desk import Desk, desk_of, user_of
from .problems import Problem

__all__ = ["Done", "Plan", "body_of", "do_backfill", "do_pause", "do_resume", "do_trigger", "record"]

_REASON_CHARS = 1000
_MOST_PARALLEL = 1000
_MARK = "param."
_YES = (True, "true", "on", "yes", "1")


class Done(msgspec.Struct, omit_defaults=True):
    """What was recorded, in a sentence; the id of the run or backfill that was asked for, and where its page is."""

    message: str
    by: str
    run_id: str | None = None
    backfill_id: str | None = None
    count: int | None = None
    location: str | None = None


class Plan(msgspec.Struct):
    """What a backfill would come to; `confirm` asks whether to do it. Nothing has been recorded."""

    schedule_id: str
    count: int
    first: str | None
    last: str | None
    estimate_s: float | None
    message: str
    confirm: str | None


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings; nothing is an empty one. Raises Problem."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise Problem(400, "This cannot be read", "the body is to be a JSON object") from None


async def record(desk: Desk, decide: Callable[[History], Sequence[Event]]) -> tuple[list[Event], bool]:
    """Record what `decide` returns under the lock, in a thread; say whether there is a service to see it."""
    return await run_in_threadpool(_record, desk.feed.settings, decide)


def _record(settings: Settings, decide: Callable[[History], Sequence[Event]]) -> tuple[list[Event], bool]:
    store = StateStore(settings.state_log())
    try:
        store.refresh()  # most of it without the lock
        events = store.commit(decide)
        return events, wake_service(store.history)
    finally:
        store.close()


async def do_trigger(request: Request) -> Done:
    """Ask for a run now, or `at` a time, with `params` (typed) and `param.NAME` (texts, as a form sends them)."""
    values, desk, by = await body_of(request), desk_of(request), _by(request)
    schedule = await _schedule(request)
    typed = values.get("params") or {}
    if not isinstance(typed, dict):
        raise Problem(400, "These params cannot be used", "`params` is to be an object")
    texts = [
        f"{name.removeprefix(_MARK)}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
        if name.startswith(_MARK)
    ]
    at = _read(read_moment, "at", values.get("at"))
    dag = await run_in_threadpool(desk.book.dag_of, schedule)
    if not isinstance(dag, Dag):
        told = dag.faults[0] if dag.faults else f"its DAG {schedule.dag} is not there"
        raise Problem(409, "Its DAG cannot be run", str(told))
    try:
        params = checked_params(dag, schedule.dag, texts, {**schedule.params, **typed})
    except InvalidParam as error:
        raise Problem(400, "This param cannot be used", f"{error.args[0]}: {error.args[1]}") from None
    except InvalidFile as error:
        raise Problem(400, "These params cannot be used", error.faults[0].message) from None
    asked = request_schedule(schedule, params, desk.now(), at, by)
    events, is_served = await _recorded(desk, lambda _: [asked])
    run_id = str(events[0]["run_id"])
    note = "" if is_served else "; no service runs, so it waits for one"
    return Done(f"Requested {run_id}{note}", by, run_id=run_id, location=f"/runs/{run_id}")


async def do_pause(request: Request) -> Done:
    """Pause a schedule, `until` a moment or for a duration, with a `reason`."""
    values, desk, by = await body_of(request), desk_of(request), _by(request)
    name, now = _name(request), desk.now()
    await _demand(request)
    until = _read(lambda option, text: read_until(option, text, now), "until", values.get("until"))
    reason = values.get("reason") or ""
    if not isinstance(reason, str) or len(reason) > _REASON_CHARS:
        raise Problem(400, "This reason cannot be used", f"`reason` is a text of at most {_REASON_CHARS} characters")
    if until is not None and until <= now:
        raise Problem(400, "This is no time to pause until", f"`until` {iso(until)} has passed")
    await _recorded(desk, lambda _: [pause(("schedule", name), until, reason.strip(), by)])
    return Done(f"Paused {name}" + (f" until {iso(until)}" if until else ""), by)


async def do_resume(request: Request) -> Done:
    """Resume a schedule that is paused for itself."""
    desk, by, name = desk_of(request), _by(request), _name(request)
    await _demand(request)
    now, scope = desk.now(), ("schedule", name)

    def decide(history: History) -> list[Event]:
        held = dict(history.pauses.in_force(now))
        if scope in held:
            return [resume(scope, by)]
        wider = _wider(history, name, held)
        told = f"{wider}; `tickpool resume` ends that" if wider else f"schedule `{name}` is not paused"
        raise Problem(409, "It is not paused by itself", told)

    await _recorded(desk, decide)
    wider = _wider(desk.feed.history, name, dict(desk.feed.history.pauses.in_force(now)))
    return Done(f"Resumed {name}" + (f"; held all the same: {wider}" if wider else ""), by)


async def do_backfill(request: Request) -> Done | Plan:
    """Run the fire times `from` a day or moment up to `until`; with `dry_run` say what that comes to."""
    values, desk, by = await body_of(request), desk_of(request), _by(request)
    schedule, now = await _schedule(request), desk.now()
    first = _read(lambda option, text: read_day(option, text, schedule.zone), "from", values.get("from"))
    last = _read(lambda option, text: read_day(option, text, schedule.zone), "until", values.get("until"))
    if first is None:
        raise Problem(400, "From when on?", "`from` is a day such as 2026-11-23, or an ISO 8601 time with its zone")
    most = _count(values.get("max_parallel"))
    wanted = await _wanted(desk, schedule, first, min(now, last) if last else now, values)
    if values.get("dry_run") in _YES:
        slots = free_slots(desk.feed.history, schedule.id, wanted)
        return await run_in_threadpool(_plan, desk.feed.settings, schedule.id, slots, most)
    name = backfill_id(schedule.id, now)
    events, is_served = await _recorded(
        desk, lambda history: backfill_events(history, name, schedule, wanted, most, by)
    )
    if not events:
        raise Problem(409, "Nothing to backfill", "another backfill is at each of these fire times already")
    total = int(events[0]["total"])
    note = "" if is_served else "; no service runs, so it waits for one"
    return Done(f"Backfill of {counted(total, 'run')} begins{note}", by, backfill_id=name, count=total)


async def _wanted(
    desk: Desk, schedule: Schedule, first: datetime, last: datetime, values: Mapping[str, Any]
) -> list[int]:
    def slots() -> list[int]:
        found = slots_between(schedule, first, last)
        done = succeeded(desk.feed.settings, schedule.id, found) if values.get("only_missing") in _YES else set()
        left = [slot for slot in found if slot not in done]
        return left[::-1] if values.get("reverse") in _YES else left

    try:
        wanted = await run_in_threadpool(slots)
    except NoSlots as error:
        raise Problem(409, "Nothing to backfill", str(error)) from None
    if not wanted:
        raise Problem(409, "Nothing to backfill", "a run of each of these fire times has succeeded already")
    return wanted


def _plan(settings: Settings, schedule_id: str, slots: Sequence[int], most: int) -> Plan:
    known = read_durations(Path(settings.state_path)).get(schedule_id)
    takes_s = None if known is None or not slots else known.p50_s * len(slots) / most
    ends = [iso(datetime.fromtimestamp(slot).astimezone()) for slot in (*slots[:1], *slots[-1:])]
    count = len(slots)
    about = "" if takes_s is None else f", about {span(takes_s)} with {most} at a time"
    message = f"{counted(count, 'run')} of {schedule_id}" + (f", {ends[0]} to {ends[1]}{about}" if slots else "")
    return Plan(
        schedule_id, count, ends[0] if ends else None, ends[1] if ends else None, takes_s, message,
        f"{message}.\n\nRun them?" if slots else None,
    )  # fmt: skip


async def _recorded(desk: Desk, decide: Callable[[History], Sequence[Event]]) -> tuple[list[Event], bool]:
    try:
        return await record(desk, decide)
    except NoSlots as error:
        raise Problem(409, "Nothing to backfill", str(error)) from None
    except TickpoolError as error:
        raise Problem(503, "The log takes nothing", str(error)) from None


async def _schedule(request: Request) -> Schedule:
    """Return the schedule of the path as its file says it now. Raises Problem."""
    book, name = desk_of(request).book, _name(request)
    configuration = await book.fresh()
    found = book.schedule(name)
    if found is not None:
        return found
    if configuration is None:
        raise Problem(409, "The schedules cannot be read", book.problem)
    fault = next((fault for fault in configuration.faults if f"`{name}`" in fault.message), None)
    if fault is not None:
        raise Problem(409, "Its file has a fault", str(fault))
    raise Problem(404, "No such schedule", _unknown(name, book.names(), str(book.directory)))


async def _demand(request: Request) -> None:
    """Raise Problem for a schedule that neither the log nor the files know."""
    desk, name = desk_of(request), _name(request)
    state = desk.feed.history.schedules.get(name)
    if state is None or not state.spec:
        await _schedule(request)


def _unknown(name: str, names: Sequence[str], directory: str) -> str:
    return f"no schedule `{name[:128]}` in {directory}{did_you_mean(name, names)}"


def _wider(history: History, name: str, held: Mapping[Scope, object]) -> str:
    """Say by what a schedule is held, other than by itself."""
    state = history.schedules.get(name)
    tenant = str(state.spec.get("tenant") or "default") if state is not None else ""
    if ("all", "") in held:
        return "all schedules are paused"
    return f"tenant {tenant} is paused" if ("tenant", tenant) in held else ""


def _read(read: Callable[[str, str], datetime], option: str, value: object) -> datetime | None:
    if value in (None, ""):
        return None
    try:
        return read(option, str(value).strip())
    except (InvalidMoment, InvalidUntil) as error:
        raise Problem(400, "This is no moment", str(error)) from None


def _count(value: object) -> int:
    try:
        count = int(str(value or 1))
    except ValueError:
        count = 0
    if not 1 <= count <= _MOST_PARALLEL:
        raise Problem(400, "So many at a time?", f"`max_parallel` is a whole number, 1 to {_MOST_PARALLEL}")
    return count


def _name(request: Request) -> str:
    return str(request.path_params["schedule_id"])


def _by(request: Request) -> str:
    return f"{user_of(request).name}@dashboard"
