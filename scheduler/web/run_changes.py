"""What a page asks for, recorded as the command line records it, with the user's name in it. Called in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from scheduler.asked_again import demand_repeatable, rerun_request, retry_request, unless_changed
from scheduler.control import answer_to, cancel, service_of, signal_cancelled, wake, wake_service, with_children
from scheduler.history import History
from scheduler.open_runs import Run
from scheduler.refusals import (
    Changed,
    LongComment,
    NoRequest,
    NotAsked,
    NothingToRetry,
    NotOpen,
    StillOpen,
    UnknownTask,
)
from scheduler.run_record import RunRecord
from scheduler.state_store import StateStore
from workers.dag_copies import DagGone
from workers.errors import InvalidFile, TickpoolError
from workers.events import Event
from workers.run_events import Forgotten
from workers.settings import Settings

from .answers import Done
from .problems import Problem
from .recording import record
from .run_index import RunRow
from .run_lines import read_row

__all__ = ["Changed", "answer_run", "cancel_run", "rerun_run", "retry_run"]

_TITLES: dict[type[TickpoolError], tuple[int, str]] = {
    Changed: (409, "Somebody was faster"),
    DagGone: (409, "It cannot be repeated"),
    Forgotten: (409, "It cannot be repeated"),
    InvalidFile: (409, "Its DAG cannot be read"),
    LongComment: (400, "The comment is too long"),
    NoRequest: (409, "It cannot be repeated"),
    NotAsked: (409, "It does not ask for that"),
    NothingToRetry: (409, "Nothing to retry"),
    NotOpen: (409, "It is not open"),
    StillOpen: (409, "It has not ended"),
    UnknownTask: (404, "No such task"),
}


def cancel_run(settings: Settings, row: RunRow, by: str) -> Done:
    """Ask for the end of an open run, and of those that it has asked for. Raises Problem."""
    runs: list[Run] = []

    def decide(history: History) -> list[Event]:
        run = history.runs.get(row.run_id)
        if run is None:
            raise NotOpen(row.run_id, [])
        runs.extend(with_children(history, [run]))
        return [event for each in runs for event in cancel(each, by)]

    def tell(history: History) -> None:
        service = service_of(history)
        wake(service)
        signal_cancelled([run for run in runs if run.status == "running"], service)

    with _opened(settings, row) as store:
        record(store, decide, tell)
    return Done(f"Cancel of {row.run_id} asked for", by, row.run_id, runs[0].attempt)


def answer_run(
    settings: Settings, row: RunRow, task_id: str, comment: str, now: datetime, by: str, *, is_approved: bool
) -> Done:
    """Answer an approval that a run asks for. Raises Problem."""
    with _opened(settings, row) as store:
        (event,), _ = record(
            store,
            lambda history: [answer_to(history, row.run_id, task_id, comment, now, by, is_approved=is_approved)],
            wake_service,
        )
    word = "Approved" if is_approved else "Rejected"
    return Done(f"{word} {event['task_id']}", by, row.run_id, event["attempt"])


def retry_run(settings: Settings, row: RunRow, by: str, *, is_failed_only: bool, first: str | None) -> Done:
    """Ask for a further attempt of a run that has ended. Raises Problem."""
    with _opened(settings, row) as store:
        run = _record(settings, row)
        request = retry_request(settings, run, by, is_failed_only=is_failed_only, first=first)
        return _ask(store, run, request, by)


def rerun_run(settings: Settings, directory: Path, row: RunRow, now: datetime, by: str, *, as_was: bool) -> Done:
    """Ask for a new run like one that there was. Raises Problem."""
    with _opened(settings, row) as store:
        run = _record(settings, row)
        request = rerun_request(run, directory, now, by, as_was=as_was, tell=lambda _: None)
        return _ask(store, run, request, by)


@contextmanager
def _opened(settings: Settings, row: RunRow) -> Iterator[StateStore]:
    """Give the block the log, folded up to now; what it raises of ours becomes a Problem."""
    store = StateStore(settings.state_log())
    try:
        store.refresh()
        yield store
    except NotOpen:
        ended = f"it has ended as {row.status}" if row.ended_s is not None else "it has ended"
        raise Problem(409, "It is not open", f"run `{row.run_id}` is not open: {ended}") from None
    except StillOpen:
        raise Problem(409, "It has not ended", f"run `{row.run_id}` has not ended; cancel it first") from None
    except NothingToRetry:
        raise Problem(409, "Nothing to retry", f"no task of run `{row.run_id}` has failed; retry all of it") from None
    except TickpoolError as error:
        status, title = _TITLES.get(type(error), (503, "Nothing was recorded"))
        raise Problem(status, title, str(error).replace("\n", "; ")) from None
    finally:
        store.close()


def _record(settings: Settings, row: RunRow) -> RunRecord:
    run = read_row(settings, row, with_tasks=False, is_to_end=True)
    if run is None:
        raise Problem(404, "No such run", f"nothing is on record of run `{row.run_id}` any more")
    demand_repeatable(run)
    return run


def _ask(store: StateStore, run: RunRecord, request: Event, by: str) -> Done:
    (event,), _ = record(store, unless_changed(store, run, request), wake_service)
    run_id, attempt = event["run_id"], event["attempt"]
    told = f"Attempt {attempt} of {run_id} asked for" if attempt > 1 else f"Run {run_id} asked for"
    return Done(told, by, run_id, attempt, location=f"/runs/{run_id}")
