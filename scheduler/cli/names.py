"""Names that commands are given, and what is said of one that nobody knows: the nearest that somebody does."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from workers.errors import TickpoolError, did_you_mean

if TYPE_CHECKING:
    from scheduler.history import History
    from workers.settings import Settings

__all__ = [
    "NotThere", "UnknownName", "UnknownRun", "known_runs", "known_schedules", "known_tags", "known_tenants",
    "read_history",
]  # fmt: skip

_KNOWN = 1000


class UnknownName(TickpoolError):
    """A schedule, a tenant or the like that nobody knows: (which of them, the name, the names)."""

    def __str__(self) -> str:
        kind, name, names = self.args
        return f"no {kind} `{name[:128]}`{did_you_mean(name, names) if names else '; there is none'}"


class UnknownRun(TickpoolError):
    """A run of which nothing is on record: (its id, those that are)."""

    def __str__(self) -> str:
        name, names = self.args
        return f"no run `{name[:200]}`{did_you_mean(name, names) if names else ': none is on record'}"


class NotThere(TickpoolError):
    """A part of a run that is not there: (which, what there is)."""

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.args[1]}" if self.args[1] else str(self.args[0])


def read_history(settings: Settings) -> History:
    """Return the fold of the log. Raises LogUnreadable."""
    from scheduler.history import History
    from workers.segments import LogReader

    reader = LogReader(settings.state_path)
    history = History(reader.read())
    reader.close()
    return history


def known_runs(history: History, settings: Settings) -> list[str]:
    """Return the open runs, and those that have ended last."""
    from scheduler.state_store import last_events
    from workers.ids import is_run_id

    ended = (str(each["run_id"]) for each in last_events(settings.state_path) if _is_end(each))
    return [name for name in dict.fromkeys([*history.runs, *islice(ended, _KNOWN)]) if is_run_id(name)]


def _is_end(event: dict[str, object]) -> bool:
    return event.get("event") == "run_finished" and "run_id" in event


def known_schedules(history: History) -> list[str]:
    """Return the schedules that the service has, or has had."""
    return sorted(history.schedules)


def known_tenants(history: History) -> list[str]:
    """Return the tenants of the schedules in force, of open runs, and those with limits of their own."""
    named: Iterable[object] = (
        *(state.spec.get("tenant") or "default" for state in history.schedules.values() if state.spec),
        *(run.request.get("tenant") or "default" for run in history.runs.values()),
        *history.limits.tenants,
    )
    return sorted({name for name in named if isinstance(name, str)})


def known_tags(history: History) -> dict[str, set[str]]:
    """Return the tags of the schedules in force, and the schedules that have each."""
    from scheduler.schedule_model import by_tag

    return by_tag({name: state.spec for name, state in history.schedules.items()})
