"""The commands that answer what a run asks: approve, reject."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from .operator import opened, operator
from .output import complain, print_json, say
from .parser import Command

if TYPE_CHECKING:
    from scheduler.history import History
    from workers.events import Event

__all__ = ["COMMANDS"]


def _answer(options: argparse.Namespace, *, is_approved: bool) -> int:
    from scheduler.control import answer_to, wake_service
    from workers.settings import read_settings

    by = operator()

    def decide(history: History) -> list[Event]:
        now, name = datetime.now(UTC), options.task
        return [answer_to(history, options.run, name, options.comment, now, by, is_approved=is_approved)]

    with opened(read_settings(os.environ)) as store:
        (event,) = store.commit(decide)
        is_served = wake_service(store.history)
    if options.json:
        print_json(event)
        return 0
    say(f"{'Approved' if is_approved else 'Rejected'} {event['task_id']} of {event['run_id']}")
    if not is_served:
        complain("no service runs on this log; the run goes on when there is one, or where it runs by hand")
    return 0


def _add_answer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the id of a run that asks")
    parser.add_argument("task", metavar="TASK", nargs="?", help="the task that asks, where there are several")
    parser.add_argument("--comment", metavar="TEXT", default="", help="why; it is an output of the task")


_approve: Callable[[argparse.Namespace], int] = partial(_answer, is_approved=True)
_reject: Callable[[argparse.Namespace], int] = partial(_answer, is_approved=False)

COMMANDS = {
    "approve": Command("let a run go on that asks for it", _approve, _add_answer),
    "reject": Command("have the task of a run fail that asks for an approval", _reject, _add_answer),
}
