"""The pages that look at the whole: what is to come, and whether all is well."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import charts
from .desk import desk_of
from .health_look import look_at_forecast, look_at_health
from .pages import render
from .views.forecast import Forecast, PoolLoad, first_hour

__all__ = ["ROUTES"]


async def _forecast(request: Request) -> Response:
    forecast, of = await look_at_forecast(desk_of(request)), request.query_params.get("of")
    mapped = [each for each in forecast.pools if each.hours]
    # None is the workers; so is a pool that is gone.
    pool = next((each for each in mapped if each.pool == of), None)
    values = {"forecast": forecast, "mapped": mapped, "pool": pool, "heat": _heat(forecast, pool), "charts": charts}
    return render(request, "forecast.html", values)


def _heat(forecast: Forecast, pool: PoolLoad | None) -> str:
    what, hours, count = ("workers", forecast.hours, forecast.workers)
    if pool is not None:
        what, hours, count = f"slots of {pool.pool}", pool.hours, pool.slots
    if not hours or not count:
        return ""
    begin = first_hour(forecast)
    label = (
        f"busy {what} in {len(hours)} hours: at most {max(each.busy for each in hours):.1f} of {count}; "
        f"all busy in {sum(each.is_full for each in hours)} of them"
    )
    return charts.hours(begin.date(), begin.hour, hours, count, label)


async def _health(request: Request) -> Response:
    return render(request, "health.html", {"health": await look_at_health(desk_of(request)), "charts": charts})


ROUTES = [Route("/forecast", _forecast), Route("/health", _health)]
