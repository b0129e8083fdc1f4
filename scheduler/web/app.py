"""The application: the routes, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from workers.settings import Settings

from . import api, health_pages, login, metrics, pages, run_pages, schedule_pages, stream
from .desk import Desk
from .feed import Feed
from .gate import MAX_BODY, Gate
from .problems import Problem, problem
from .tokens import Tokens

__all__ = ["build_app"]

_STATIC = Path(__file__).parent / "static"


def build_app(
    settings: Settings, directory: Path, tokens: Tokens, hosts: Collection[str], *, is_secure: bool = False
) -> Starlette:
    """Return the dashboard of a log and a directory of schedules, as it is called by these hosts (`name:port`)."""
    feed = Feed(settings)
    desk = Desk(feed, directory)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        works = (feed.run(), desk.processes.watch(feed), _prepare(desk))
        tasks = [asyncio.create_task(each) for each in works]
        try:
            yield
        finally:
            for each in tasks:
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each

    app = Starlette(
        routes=[
            *login.ROUTES,
            *pages.ROUTES,
            *run_pages.ROUTES,
            *schedule_pages.ROUTES,
            *health_pages.ROUTES,
            *stream.ROUTES,
            *metrics.ROUTES,
            api.mount(),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        # A third of the work of the highest level, and a tenth more bytes.
        middleware=[Middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)],
        exception_handlers={Problem: _problem, HTTPException: _http_error, Exception: _fault},
        lifespan=lifespan,
        max_body_size=MAX_BODY,
    )
    # A path with a slash too many, or too few, is another one: a redirect is no answer for a program.
    app.router.redirect_slashes = False
    app.state.desk = desk
    # Around all of it: what is answered when a handler fails has its headers, too.
    app.middleware_stack = Gate(app.build_middleware_stack(), tokens, hosts, is_secure=is_secure)
    return app


async def _prepare(desk: Desk) -> None:
    """Do, once all is read, what whoever asks first would wait for."""
    while not desk.feed.is_caught_up:
        await asyncio.sleep(0.1)
    await desk.book.soon()
    for _ in pages.read_templates():
        await asyncio.sleep(0)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if pages.wants_html(request):
        return pages.error_page(request, error.status, error.title, error.detail)
    return problem(error.status, error.title, error.detail)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    if pages.wants_html(request):
        return pages.error_page(request, error.status_code, title, "" if error.detail == title else error.detail)
    detail = f"{request.method} {request.url.path[:200]}" if error.detail == title else error.detail
    return problem(error.status_code, title, detail, error.headers)


async def _fault(_request: Request, _error: Exception) -> Response:
    # The server writes the error to its own stderr; whoever asked learns nothing of it.
    return problem(500, "A fault of the dashboard", "its own log says more")
