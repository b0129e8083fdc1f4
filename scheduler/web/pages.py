"""The pages: rendered by the server, complete without a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from scheduler.text import counted, size, span

from . import draw
from .desk import desk_of
from .moments import local_time
from .run_requests import window_of
from .views.figures import WINDOWS
from .views.now import now_view

__all__ = ["ROUTES", "error_page", "read_templates", "render", "wants_html"]

# The pages in the order of the menu: path, title, the key after `g`.
MENU = (
    ("/", "Now", "n"),
    ("/schedules", "Schedules", "s"),
    ("/history", "History", "h"),
    ("/forecast", "Forecast", "f"),
    ("/health", "Health", "e"),
)
_SIGNS = {
    "success": "✓", "failed": "✗", "timeout": "◷", "crashed": "!", "cancelled": "⊘", "running": "▶", "queued": "…",
    "parked": "‖", "skipped": "↷", "upstream_failed": "↯", "kept": "✓", "waiting": "…", "missed": "∅",
}  # fmt: skip


@lru_cache(1)
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"span": span, "bytes": size, "counted": counted}
    environment.filters |= {"percent": _percent, "moment": _moment, "iso": _iso}
    environment.globals |= {"draw": draw, "signs": _SIGNS, "menu": MENU, "windows": list(WINDOWS)}
    return environment


def read_templates() -> Iterator[str]:
    """Read the templates, each as its name is taken: some tens of milliseconds each."""
    environment = _templates()
    for name in environment.list_templates():
        environment.get_template(name)
        yield name


def render(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """Return a page."""
    user = request.scope.get("user")
    page = _templates().get_template(template).render(path=request.url.path, user=user, **values)
    return HTMLResponse(page, status)


def wants_html(request: Request) -> bool:
    """Say whether it is a person who asks."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def error_page(request: Request, status: int, title: str, detail: str) -> Response:
    """Return an error as a page."""
    return render(request, "error.html", {"status": status, "title": title, "detail": detail}, status)


async def _now(request: Request) -> Response:
    desk = desk_of(request)
    window = window_of(request)
    view = now_view(desk.feed, desk.processes, desk.now(), window)
    return render(request, "now.html", {"now": view, "window": window})


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    # 99.96 % is not all of them.
    return f"{int(share * 1000) / 10:g} %"


def _moment(at_s: float | None) -> str:
    if at_s is None:
        return "-"
    return f"{local_time(at_s):%Y-%m-%d %H:%M:%S}"


def _iso(at_s: float | None) -> str:
    return "" if at_s is None else local_time(at_s).isoformat(timespec="seconds")


ROUTES = [Route("/", _now)]
