"""The pages of schedules: all of them, and one."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import charts
from .desk import desk_of
from .pages import render
from .run_requests import number_of
from .schedule_look import look_at_schedule, wanted_of
from .views.schedules import SORTS, STATUSES, Wanted, schedule_page

__all__ = ["ROUTES"]

_MOST_PAGES = 1_000_000
# The recorded reasons as a person says them.
_REASONS = {
    "overlap": "a run of it was open",
    "max_queued": "as many runs of it waited as may",
    "start_deadline": "it was too late to start",
    "holiday": "it is a holiday in its calendar",
    "blackout": "a blackout",
    "deferred": "a blackout; deferred to its end",
    "paused": "it was paused",
    "redefined": "it was edited before it could run",
    "down": "no service ran",
    "late": "the service was held up",
    "clock_jump": "the clock was set over it",
    "catchup_window": "older than its catch-up window",
    "catchup_max": "older than the newest that are caught up",
    "superseded": "a later fire time was run instead",
}


async def _schedules(request: Request) -> Response:
    desk, wanted = desk_of(request), wanted_of(request)
    number = number_of(request, "page", 1, _MOST_PAGES) or 1
    page = schedule_page(desk.feed, desk.roster, desk.now(), wanted, number)

    def link(**changes: object) -> str:
        return _link(wanted, **changes)

    values = {"page": page, "wanted": wanted, "statuses": STATUSES, "sorts": SORTS, "link": link, "charts": charts}
    return render(request, "schedules.html", {**values, "is_caught_up": desk.feed.is_caught_up})


def _link(wanted: Wanted, **changes: object) -> str:
    """Return the address of what is asked for, with changes."""
    query = {name: value for name, value in {**wanted._asdict(), **changes}.items() if value not in ("", "name", 1)}
    return f"/schedules?{urlencode(query)}" if query else "/schedules"


async def _schedule(request: Request) -> Response:
    view = await look_at_schedule(request)
    return render(request, "schedule.html", {"view": view, "row": view.schedule, "charts": charts, "reasons": _REASONS})


ROUTES = [Route("/schedules", _schedules), Route("/schedules/{schedule_id}", _schedule)]
