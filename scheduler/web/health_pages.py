"""The pages that look at the whole: what is to come, and whether all is well."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import charts
from .desk import desk_of
from .health_look import look_at_forecast, look_at_health
from .pages import render
from .views.forecast import Forecast, first_hour

__all__ = ["ROUTES"]


async def _forecast(request: Request) -> Response:
    forecast = await look_at_forecast(desk_of(request))
    return render(request, "forecast.html", {"forecast": forecast, "heat": _heat(forecast), "charts": charts})


def _heat(forecast: Forecast) -> str:
    if not forecast.hours or not forecast.workers:
        return ""
    begin = first_hour(forecast)
    loads = [(each.busy, each.is_queued) for each in forecast.hours]
    fullest = max(forecast.hours, key=lambda each: each.busy)
    label = (
        f"busy workers by the hour (UTC), {len(loads)} hours: at most {fullest.busy:.1f} of {forecast.workers}; "
        f"a queue all the hour in {sum(is_queued for _, is_queued in loads)} of them"
    )
    return charts.hours(begin.date(), begin.hour, loads, forecast.workers, label)


async def _health(request: Request) -> Response:
    return render(request, "health.html", {"health": await look_at_health(desk_of(request)), "charts": charts})


ROUTES = [Route("/forecast", _forecast), Route("/health", _health)]
