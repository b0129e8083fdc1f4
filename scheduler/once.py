"""One tick, for CI and for machines whose cron still leads: judge the present minute, run what is due, and end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from workers.events import Event
from workers.lock import Lock
from workers.settings import Settings

from .dispatch import Dispatcher
from .file_watch import rested
from .reload import record_configuration
from .schedules import Configuration, read_configuration
from .supervisor import leader_lock
from .ticker import Ticker
from .waits import watched_files

__all__ = ["Ticked", "tick"]

_POLL_S = 0.05


class Ticked(NamedTuple):
    """What one tick did: the configuration, the verdicts recorded, and the ends of its runs."""

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
    on_wait: Callable[[Event], None] = lambda _: None,
    on_end: Callable[[Event], None] = lambda _: None,
) -> Ticked:
    """Tick once. With `run`, wait until its runs have ended; those that an earlier service left waiting run too.

    Only the leader of a log hands out runs. While another process leads, this one waits for it to do so, and takes
    over when it ends. The callbacks are told of each step as it is done, `on_wait` of each `approval_requested` and
    `run_parked`. SIGTERM raises KeyboardInterrupt, as SIGINT does; what runs is cancelled then, what is parked stays.
    Raises NoSchedules, LogUnwritable, LockTimeout.
    """
    configuration = read_configuration(directory)
    on_loaded(configuration)
    dispatcher = Dispatcher(settings, settings.max_parallel)
    lock = leader_lock(settings)
    try:
        with _interrupted_by_sigterm():
            leads = run and _lead(lock, dispatcher)
            store = dispatcher.store
            store.refresh()
            record_configuration(store, configuration, now)
            ticker = Ticker(store, configuration.schedules, now)
            files = rested(watched_files(configuration.schedules), now.timestamp())
            ticked = Ticked(configuration, ticker.tick(now, files=files), [])
            on_enqueued(ticked.requests)
            if run:
                _see_to_the_end(ticked, ticker, dispatcher, lock, leads=leads, on_wait=on_wait, on_end=on_end)
            return ticked
    finally:
        dispatcher.close()
        lock.close()


def _lead(lock: Lock, dispatcher: Dispatcher) -> bool:
    if not lock.try_acquire():
        return False
    # Not at the moment that is judged: what is closed or tried again here belongs to the present.
    dispatcher.recover(datetime.now(UTC))
    return True


def _see_to_the_end(
    ticked: Ticked,
    ticker: Ticker,
    dispatcher: Dispatcher,
    lock: Lock,
    *,
    leads: bool,
    on_wait: Callable[[Event], None],
    on_end: Callable[[Event], None],
) -> None:
    """Wait until the tick's runs, those that follow them, and all that this process executes have ended.

    Their verdicts and ends are put in `ticked`.
    """
    ours = {str(request["run_id"]) for request in ticked.requests}
    runs = dispatcher.store.history.runs

    def note(event: Event) -> None:
        name = event.get("event")
        if event.get("run_id") not in ours:
            return
        if name in ("run_parked", "approval_requested"):
            on_wait(event)
        elif name == "run_finished" and not event.get("next_attempt"):
            ticked.ends.append(event)
            on_end(event)

    def is_done() -> bool:
        while followed := ticker.follow(datetime.now(UTC)):
            ticked.verdicts.extend(followed)
            ours.update(str(event["run_id"]) for event in followed if event["event"] == "schedule_enqueued")
        if dispatcher.store.history.drain is not None:
            return not dispatcher.busy()
        # What another process has begun is for that one to end.
        return not any(run.status == "queued" or run.run_id in ours for run in runs.values())

    dispatcher.store.follow(note)
    while not leads and any(run_id in runs for run_id in ours) and dispatcher.store.history.drain is None:
        leads = _lead(lock, dispatcher)
        if not leads:
            time.sleep(_POLL_S)
            dispatcher.store.refresh()
    if leads:
        # What is parked, and due by now, is to be run as well.
        dispatcher.settle((), datetime.now(UTC), restart=False)
        dispatcher.run_until(is_done, lambda handed: ours.update(str(request["run_id"]) for request in handed))


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def on_term(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_term)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
