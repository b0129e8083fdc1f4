"""The commands that hold back, and let go again: pause, resume, drain; and bump, which lets one run go first."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scheduler.moments import read_until
from scheduler.refusals import NotOpen
from workers.errors import TickpoolError

from .names import UnknownName
from .operator import opened, operator, wait
from .output import complain, print_json, say
from .parser import Command, add_dir

if TYPE_CHECKING:
    from scheduler.history import History
    from scheduler.pauses import Scope
    from workers.events import Event
    from workers.settings import Settings

__all__ = ["COMMANDS"]

_SCOPES = "name schedules, --tenant TENANT, or --all"


class NothingNamed(TickpoolError):
    """A command without what it is about: (the command, what may be named)."""

    def __str__(self) -> str:
        return f"{self.args[0]} what? {self.args[1]}"


class NotWaiting(TickpoolError):
    """A run that cannot be put first: (its id)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` does not wait; it runs"


# -- pause, resume ----------------------------------------------------------------------------------------------------


def _pause(options: argparse.Namespace) -> int:
    from scheduler.control import pause, wake_service

    now, by = datetime.now(UTC), operator()
    until = read_until("--until", options.until, now) if options.until else None
    with opened(_settings()) as store:
        store.refresh()
        scopes = _scopes("pause", store.history, options)
        events = store.commit(lambda _: [pause(scope, until, options.reason, by) for scope in scopes])
        wake_service(store.history)
    if options.json:
        print_json(events)
    else:
        end = "" if until is None else f" until {until.astimezone():%Y-%m-%d %H:%M:%S}"
        for scope in scopes:
            say(f"Paused {_name(scope)}{end}")
    return 0


def _resume(options: argparse.Namespace) -> int:
    from scheduler.control import resume, wake_service

    now, by = datetime.now(UTC), operator()
    with opened(_settings()) as store:
        store.refresh()
        scopes = _scopes("resume", store.history, options)
        held = dict(store.history.pauses.in_force(now))
        known = [scope for scope in scopes if scope in held or (scope[0] == "all" and held)]
        events = store.commit(lambda _: [resume(scope, by) for scope in known]) if known else []
        wake_service(store.history)
        left = [(scope, why) for scope in scopes for why in _still_held(store.history, scope, now)]
    if options.json:
        print_json(events)
    else:
        for scope in scopes:
            say(f"Resumed {_name(scope)}" if scope in known else f"{_name(scope)} was not paused".capitalize())
    for scope, why in left:
        complain(f"{_name(scope)} is held all the same: {_name(why)} {'are' if why[0] == 'all' else 'is'} paused")
    return 0


def _scopes(command: str, history: History, options: argparse.Namespace) -> list[Scope]:
    """Return what the options name. Raises NothingNamed, UnknownName."""
    scopes: list[Scope] = [("schedule", name) for name in options.schedule]
    if options.tenant:
        scopes.append(("tenant", options.tenant))
    if options.all:
        scopes.append(("all", ""))
    if not scopes:
        raise NothingNamed(command, _SCOPES)
    specs = {name: state.spec for name, state in history.schedules.items() if state.spec}
    known: dict[str, Iterable[str]] = {
        "schedule": specs,
        "tenant": {*(str(spec.get("tenant") or "default") for spec in specs.values()), *history.limits.tenants},
    }
    wanting = [scope for scope in scopes if scope[0] in known and scope[1] not in known[scope[0]]]
    if wanting:  # not in force yet, perhaps: the service takes a new file up within a tick
        from scheduler.schedules import read_configuration

        configuration = read_configuration(options.dir)
        schedules = configuration.schedules
        known = {
            "schedule": {*known["schedule"], *(each.id for each in schedules)},
            "tenant": {*known["tenant"], *(each.tenant for each in schedules)},
        }
    for kind, name in wanting:
        if name not in known[kind]:
            for fault in configuration.faults:  # it may be in a file that cannot be read
                complain(fault)
            raise UnknownName(kind, name, sorted(known[kind]))
    return scopes


def _still_held(history: History, scope: Scope, now: datetime) -> list[Scope]:
    """Return the wider scopes whose pause holds a schedule or tenant that was resumed."""
    state = history.schedules.get(scope[1]) if scope[0] == "schedule" else None
    tenant = str(state.spec.get("tenant") or "default") if state is not None else ""
    wider = [("tenant", tenant), ("all", "")] if scope[0] != "all" else []
    return [each for each, _ in history.pauses.in_force(now) if each in wider and each != scope]


def _name(scope: Scope) -> str:
    kind, name = scope
    return "all schedules" if kind == "all" else f"{kind} {name}"


# -- drain ------------------------------------------------------------------------------------------------------------


def _drain(options: argparse.Namespace) -> int:
    from scheduler.control import drain, end_drain, is_running, wake_service

    by = operator()
    with opened(_settings()) as store:

        def decide(history: History) -> list[Event]:
            if options.off:
                return [end_drain(by)] if history.drain is not None else []
            return [drain(options.reason, by)] if history.drain is None else []

        events = store.commit(decide)
        is_served = wake_service(store.history)
        running = [run.run_id for run in store.history.runs.values() if is_running(run)]
        if not options.json:
            say(_drained(options, events, len(running)))
            if not is_served and not options.off:
                complain("no service runs on this log; the next one starts nothing, until `tickpool drain --off`")
        if options.wait and not options.off:
            wait(store, lambda: not any(is_running(run) for run in store.history.runs.values()))
            if not options.json:
                say("Nothing runs")
    if options.json:
        print_json({"events": events, "running": running})
    return 0


def _drained(options: argparse.Namespace, events: list[Event], running: int) -> str:
    if options.off:
        return "Runs start again" if events else "Nothing was drained"
    already = "" if events else "already "
    return f"Nothing starts {already}until `tickpool drain --off`; {running} run(s) go on to their end"


# -- bump -------------------------------------------------------------------------------------------------------------


def _bump(options: argparse.Namespace) -> int:
    from scheduler.control import bump, wake_service

    by = operator()
    with opened(_settings()) as store:

        def decide(history: History) -> list[Event]:
            for name in options.run:
                if name not in history.runs:
                    raise NotOpen(name, list(history.runs))
                if history.runs[name].status != "queued":
                    raise NotWaiting(name)
            # The first that is named is to be the first: what is bumped last goes first.
            return [bump(history.runs[name], by) for name in reversed(options.run)]

        events = store.commit(decide)
        wake_service(store.history)
    if options.json:
        print_json(events)
    else:
        for name in options.run:
            say(f"Bumped {name}: it goes first, as soon as it may start")
    return 0


# -- arguments --------------------------------------------------------------------------------------------------------


def _settings() -> Settings:
    from workers.settings import read_settings

    return read_settings(os.environ)


def _add_scopes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("schedule", metavar="SCHEDULE", nargs="*", help="a schedule's id")
    parser.add_argument("--tenant", metavar="TENANT", help="all schedules of a tenant")
    parser.add_argument("--all", action="store_true", help="all schedules")
    add_dir(parser)


def _add_pause(parser: argparse.ArgumentParser) -> None:
    _add_scopes(parser)
    parser.add_argument(
        "--until", metavar="T", help="up to this ISO time, or for so long, such as 2h (default: resume)"
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for whoever looks at the status")


def _add_drain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--off", action="store_true", help="let runs start again")
    parser.add_argument("--wait", action="store_true", help="until nothing runs any more")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for whoever looks at the status")


def _add_bump(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="+", help="the id of a run that waits")


COMMANDS = {
    "pause": Command("run schedules at no fire time, until they are resumed", _pause, _add_pause),
    "resume": Command("run schedules again that were paused", _resume, _add_scopes),
    "drain": Command("let what runs end, and start nothing", _drain, _add_drain),
    "bump": Command("put runs that wait before all others", _bump, _add_bump),
}
