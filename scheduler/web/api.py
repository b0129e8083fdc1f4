"""The API: what the pages show, as JSON."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .desk import desk_of
from .problems import Problem
from .views.figures import WINDOWS
from .views.now import now_view

__all__ = ["ROUTES", "answer"]


def answer(request: Request, value: Any) -> Response:
    """Return a value as JSON, with an ETag; 304 where the client has it already."""
    body = msgspec.json.encode(value)
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(body, 200, headers, "application/json")


async def _now(request: Request) -> Response:
    desk = desk_of(request)
    return answer(request, now_view(desk.feed, desk.processes, desk.now(), window_of(request)))


def window_of(request: Request) -> str:
    """Return the window that a request names. Raises Problem."""
    window = request.query_params.get("window", "24h")
    if window not in WINDOWS:
        raise Problem(400, "No such window", f"`window` is one of {', '.join(WINDOWS)}")
    return window


ROUTES = [Route("/now", _now)]
