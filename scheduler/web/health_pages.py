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
    fullest = max(forecast.hours, key=lambda each: each.busy)
    label = (
        f"busy workers in {len(forecast.hours)} hours: at most {fullest.busy:.1f} of {forecast.workers}; "
        f"all busy in {sum(each.is_full for each in forecast.hours)} of them"
    )
    return charts.hours(begin.date(), begin.hour, forecast.hours, forecast.workers, label)


async def _health(request: Request) -> Response:
    return render(request, "health.html", {"health": await look_at_health(desk_of(request)), "charts": charts})


ROUTES = [Route("/forecast", _forecast), Route("/health", _health)]
