"""The forecast and the audit as they are known: what a look at them starts, and what it returns at once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from workers.errors import TickpoolError

from .desk import Desk
from .views.forecast import Forecast, forecast_view
from .views.health import Audit, Health, disk_of, health_view, logs_of
from .views.schedules import FaultRow

__all__ = ["AUDIT_S", "look_at_forecast", "look_at_health", "start_audit"]

# An audit reads the whole log: no more often than this by itself.
AUDIT_S = 300.0
# And no more often than this for whoever presses the button.
_LEAST_S = 5.0


async def look_at_forecast(desk: Desk) -> Forecast:
    """Return the forecast for the schedules as their files say them; have it made where it is of another hour.

    Where the files have a fault, it is the last that was made.
    """
    job, configuration = desk.forecast, await desk.book.soon()
    if configuration is None:
        problem = desk.book.problem
        return forecast_view(job.result, job.made_s, problem, is_pending=not problem)
    hour = desk.now().replace(minute=0, second=0, microsecond=0)
    words = _forecast_words(desk, hour)
    key = (configuration.signature, *words)
    if job.key != key:
        job.start(words, key)
    return forecast_view(job.result, job.made_s, job.problem, is_pending=job.is_running)


def _forecast_words(desk: Desk, hour: datetime) -> list[str]:
    words = ["forecast", "--json", "--dir", str(desk.directory), "--at", hour.isoformat()]
    workers = (desk.feed.history.supervisor or {}).get("max_parallel")
    return [*words, "--workers", str(workers)] if isinstance(workers, int) and 1 <= workers <= 1000 else words


async def look_at_health(desk: Desk) -> Health:
    """Return how things are; have the log judged again where that was some time ago."""
    job = desk.audit
    settings = desk.feed.settings
    is_old = job.age_s is None or job.age_s > AUDIT_S
    if is_old and Path(settings.state_path).exists():
        _start(desk)
    try:
        logs = await run_in_threadpool(logs_of, settings)
    except TickpoolError:
        logs = []
    disk = await run_in_threadpool(disk_of, settings)
    await desk.book.soon()
    unread = FaultRow(str(desk.directory), desk.book.problem, None) if desk.book.problem else None
    is_clean = None if job.result is None else job.result.is_clean
    audit = Audit(job.is_running, job.problem, job.at_s, is_clean, job.result, AUDIT_S)
    return health_view(desk.feed, desk.processes, desk.now(), audit, logs, disk, unread)


def start_audit(desk: Desk) -> bool:
    """Have the log judged now; say whether that was begun, or is too soon after the last time."""
    age_s = desk.audit.age_s
    if desk.audit.is_running or (age_s is not None and age_s < _LEAST_S):
        return False
    _start(desk)
    return True


def _start(desk: Desk) -> None:
    desk.audit.start(["audit", "--json", "--log", str(Path(desk.feed.settings.state_path))])
