"""The service as JSON: what there is now, schedules, the forecast, health; what is asked of schedules is elsewhere."""

from __future__ import annotations

from starlette.requests import Request

from .answers import Done, Me, ScheduleList
from .desk import by_of, desk_of, user_of
from .endpoints import Nothing
from .health_look import look_at_forecast, look_at_health, start_audit
from .problems import Problem
from .queries import NowQuery, SchedulesQuery, cursor_of, key_of
from .schedule_look import look_at_schedule, wanted_of
from .views.forecast import Forecast
from .views.health import Health
from .views.now import Now, now_view
from .views.schedule import ScheduleView
from .views.schedules import faults_of, schedule_list

__all__ = [
    "ask_audit", "list_schedules", "tell_forecast", "tell_health", "tell_me", "tell_now", "tell_schedule",
]  # fmt: skip

_FAULTS = 50


async def tell_now(request: Request, query: NowQuery) -> Now:
    """Return what runs, waits, failed and comes."""
    desk = desk_of(request)
    return now_view(desk.feed, desk.processes, desk.now(), query.window)


async def list_schedules(request: Request, query: SchedulesQuery) -> ScheduleList:
    """Return a page of the schedules that are asked for."""
    desk, after = desk_of(request), key_of(query.cursor, tuple[float, str])
    feed, roster = desk.feed, desk.roster
    rows, last, count = schedule_list(feed, roster, desk.now(), wanted_of(request), after, query.limit)
    following = None if last is None else cursor_of(*last)
    return ScheduleList(rows, following, count, roster.all_tenants, faults_of(feed.history)[:_FAULTS])


async def tell_schedule(request: Request, _query: Nothing) -> ScheduleView:
    """Return one schedule."""
    return await look_at_schedule(request)


async def tell_forecast(request: Request, _query: Nothing) -> Forecast:
    """Return the forecast as it is known."""
    return await look_at_forecast(desk_of(request))


async def tell_health(request: Request, _query: Nothing) -> Health:
    """Return how things are."""
    return await look_at_health(desk_of(request))


async def tell_me(request: Request, _query: Nothing) -> Me:
    """Return who asks."""
    return Me(*user_of(request))


async def ask_audit(request: Request, _body: Nothing) -> Done:
    """Have the log judged anew."""
    if not start_audit(desk_of(request)):
        raise Problem(409, "Not so soon", "the log is being audited, or was a moment ago")
    return Done("The log is being audited", by_of(request))
