"""The commands that answer what a run asks: approve, reject."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from workers.errors import TickpoolError, did_you_mean

from .operator import NotOpen, opened, operator
from .output import complain, print_json, say
from .parser import Command

if TYPE_CHECKING:
    from scheduler.history import History
    from workers.events import Event

__all__ = ["COMMANDS"]

_COMMENT_CHARS = 1000


class NotAsked(TickpoolError):
    """A run that does not ask for this approval: (the run, the task or None, the tasks for which it asks)."""

    def __str__(self) -> str:
        run_id, task, asked = self.args
        if not asked:
            return f"run `{run_id}` asks for no approval"
        if task is None:
            return f"run `{run_id}` asks for several approvals; name one of {', '.join(asked)}"
        return f"run `{run_id}` does not ask for `{task[:128]}`{did_you_mean(task, asked)}"


class LongComment(TickpoolError):
    """A comment that is too long: (its length,)."""

    def __str__(self) -> str:
        return f"--comment has {self.args[0]} characters; at most {_COMMENT_CHARS}"


def _answer(options: argparse.Namespace, *, is_approved: bool) -> int:
    from scheduler.control import answer, wake_service
    from workers.settings import read_settings

    if len(options.comment) > _COMMENT_CHARS:
        raise LongComment(len(options.comment))
    by = operator()

    def decide(history: History) -> list[Event]:
        run = history.runs.get(options.run)
        if run is None:
            raise NotOpen(options.run, [name for name, each in history.runs.items() if each.questions])
        task = _task(options, run.asks(datetime.now(UTC)))
        return [answer(run, task, options.comment, by, is_approved=is_approved)]

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


def _task(options: argparse.Namespace, asked: Collection[str]) -> str:
    if options.task in asked or (options.task is None and len(asked) == 1):
        return options.task or next(iter(asked))
    raise NotAsked(options.run, options.task, sorted(asked))


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
