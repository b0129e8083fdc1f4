"""The API of schedules, of the forecast and of health: what their pages show, and what operators ask for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .api import answer
from .desk import desk_of
from .health_look import look_at_forecast, look_at_health, start_audit
from .problems import Problem
from .schedule_acts import Done, Plan, do_backfill, do_pause, do_resume, do_trigger
from .schedule_look import look_at_schedule, wanted_of, whole_of
from .views.forecast import Forecast
from .views.health import Health
from .views.schedule import ScheduleView
from .views.schedules import PAGE_ROWS, ScheduleList, schedule_list

__all__ = ["RESPONSES", "ROUTES"]

_MOST_ROWS = 500


async def _schedules(request: Request) -> Response:
    desk = desk_of(request)
    limit = whole_of(request, "limit", PAGE_ROWS, _MOST_ROWS)
    wanted, after = wanted_of(request), request.query_params.get("cursor", "")[:200]
    return answer(request, schedule_list(desk.feed, desk.roster, desk.now(), wanted, after, limit))


async def _schedule(request: Request) -> Response:
    return answer(request, await look_at_schedule(request))


async def _forecast(request: Request) -> Response:
    return answer(request, await look_at_forecast(desk_of(request)))


async def _health(request: Request) -> Response:
    return answer(request, await look_at_health(desk_of(request)))


async def _audit(request: Request) -> Response:
    if not start_audit(desk_of(request)):
        raise Problem(409, "Not so soon", "the log is being audited, or was a moment ago")
    return answer(request, Done("The log is being audited", ""))


def _acting(act: Callable[[Request], Awaitable[Done | Plan]]) -> Callable[[Request], Awaitable[Response]]:
    async def acted(request: Request) -> Response:
        return answer(request, await act(request))

    return acted


ROUTES = [
    Route("/schedules", _schedules),
    Route("/schedules/{schedule_id}", _schedule),
    Route("/schedules/{schedule_id}/trigger", _acting(do_trigger), methods=["POST"]),
    Route("/schedules/{schedule_id}/pause", _acting(do_pause), methods=["POST"]),
    Route("/schedules/{schedule_id}/resume", _acting(do_resume), methods=["POST"]),
    Route("/schedules/{schedule_id}/backfill", _acting(do_backfill), methods=["POST"]),
    Route("/forecast", _forecast),
    Route("/health", _health),
    Route("/health/audit", _audit, methods=["POST"]),
]
# What each of them tells, for the OpenAPI document.
RESPONSES: dict[str, type] = {
    "/schedules": ScheduleList,
    "/schedules/{schedule_id}": ScheduleView,
    "/schedules/{schedule_id}/trigger": Done,
    "/schedules/{schedule_id}/pause": Done,
    "/schedules/{schedule_id}/resume": Done,
    "/schedules/{schedule_id}/backfill": Done,
    "/forecast": Forecast,
    "/health": Health,
    "/health/audit": Done,
}
