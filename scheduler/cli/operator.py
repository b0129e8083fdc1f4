"""What the commands have in common that ask for something: who asks, the log they write to, and waiting for an end."""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import complain, print_json, say

if TYPE_CHECKING:
    from scheduler.history import History
    from scheduler.state_store import StateStore
    from workers.events import Event
    from workers.segments import LogReader
    from workers.settings import Settings

__all__ = ["follow_run", "opened", "operator", "wait"]

_POLL_S = 0.05


def operator() -> str:
    """Return who asks, as USER@HOST; behind sudo the one who typed it."""
    import pwd

    user = os.environ.get("SUDO_USER")
    if not user:
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:  # a container may have no entry for its user
            user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def opened(settings: Settings) -> Iterator[StateStore]:
    """Give the block the log, with nothing folded in yet."""
    from scheduler.state_store import StateStore
    from workers.failpoints import arm

    arm(settings.failpoints)
    store = StateStore(settings.state_log())
    try:
        yield store
    finally:
        store.close()


def wait(store: StateStore, is_done: Callable[[], bool], show: Callable[[], object] = lambda: None) -> None:
    """Follow the log until `is_done()`, and `show` what there is to see each time."""
    while not is_done():
        time.sleep(_POLL_S)
        store.refresh()
        show()


def follow_run(store: StateStore, decide: Callable[[History], Sequence[Event]], options: argparse.Namespace) -> int:
    """Record the request that `decide` returns, have the service see it, and wait as the options say.

    `options` has `wait`, `follow` and `json`. Return the exit code: 1 for an end, once waited for, that is no success.
    """
    from scheduler.control import wake_service
    from workers.run_events import is_final
    from workers.segments import LogReader
    from workers.settings import read_settings

    asked: list[Event] = []
    ends: list[Event] = []

    def note(event: Event) -> None:
        if asked and is_final(event) and event.get("run_id") == asked[0]["run_id"]:
            ends.append(event)

    tasks = LogReader(read_settings(os.environ).events_path) if options.follow else None
    store.follow(note)
    asked += store.commit(decide)
    is_served = wake_service(store.history)
    if not options.json:
        say(f"Requested {asked[0]['run_id']}" + (f" attempt {asked[0]['attempt']}" if asked[0]["attempt"] > 1 else ""))
    if not is_served:
        complain("no service runs on this log; the run waits for one")
    if options.wait or options.follow:
        wait(store, lambda: bool(ends), lambda: _show_tasks(tasks, asked[0]))
    if options.json:
        print_json({"request": asked[0], "end": ends[0] if ends else None})
    elif ends:
        end = ends[0]
        reason = f"  {end['reason']}" if end.get("reason") else ""
        say(f"{end['status']}  {end.get('duration_s') or 0:.2f} s{reason}")
    return 1 if ends and ends[0]["status"] != "success" else 0


def _show_tasks(tasks: LogReader | None, request: Event) -> None:
    from workers.__main__ import show_task

    for event in tasks.read() if tasks is not None else ():
        # Of a run that is tried again, what its attempts before have done is there as well.
        if event.get("run_id") == request["run_id"] and int(event.get("attempt") or 1) >= request["attempt"]:
            show_task(event)
