"""One tick, for CI and for machines whose cron still leads: judge the present minute, run what is due, and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from workers.events import Event
from workers.settings import Settings

from .dispatch import Dispatcher
from .reload import record_configuration
from .schedules import Configuration, read_configuration
from .supervisor import leader_lock
from .ticker import Ticker

__all__ = ["Ticked", "tick"]

_POLL_S = 0.05


class Ticked(NamedTuple):
    """What one tick did: the configuration, the verdicts recorded, and the ends of the runs it waited for."""

    configuration: Configuration
    verdicts: list[Event]
    ends: list[Event]

    @property
    def requests(self) -> list[Event]:
        """The runs that this tick asked for."""
        return [event for event in self.verdicts if event["event"] == "schedule_enqueued"]


def tick(
    directory: Path,
    settings: Settings,
    now: datetime,
    *,
    run: bool,
    on_loaded: Callable[[Configuration], None] = lambda _: None,
    on_enqueued: Callable[[list[Event]], None] = lambda _: None,
    on_end: Callable[[Event], None] = lambda _: None,
) -> Ticked:
    """Tick once. With `run`, wait until its runs have ended; those that an earlier service left waiting run too.

    Only the leader of a log hands out runs. While another process leads, this one waits for it to do so, and takes
    over when it ends. The callbacks are told of each step as it is done. Raises NoSchedules, LogUnwritable, LockTimeout.
    """
    configuration = read_configuration(directory)
    on_loaded(configuration)
    dispatcher = Dispatcher(settings, settings.max_parallel)
    lock = leader_lock(settings)
    ends: dict[str, Event] = {}

    def note(event: Event) -> None:
        if event.get("event") == "run_finished" and not event.get("next_attempt"):
            ends[str(event["run_id"])] = event
            on_end(event)

    try:
        store = dispatcher.store
        leads = run and lock.try_acquire()
        if leads:
            dispatcher.recover(now)
        else:
            store.refresh()
        store.follow(note)
        record_configuration(store, configuration, now)
        verdicts = Ticker(store, configuration.schedules, now).tick(now)
        ticked = Ticked(configuration, verdicts, [])
        on_enqueued(ticked.requests)
        if not run:
            return ticked
        while not leads and _is_open(dispatcher, ticked):
            leads = lock.try_acquire()
            if leads:
                dispatcher.recover(now)
                break
            time.sleep(_POLL_S)
            store.refresh()
        if leads:
            dispatcher.run_until(lambda: not store.history.runs)
        return ticked._replace(ends=list(ends.values()))
    finally:
        dispatcher.close()
        lock.close()


def _is_open(dispatcher: Dispatcher, ticked: Ticked) -> bool:
    return any(request["run_id"] in dispatcher.store.history.runs for request in ticked.requests)
