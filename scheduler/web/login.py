"""Logging in and out: a token becomes a session, in a cookie that no script can read."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from .desk import desk_of
from .gate import COOKIE, Gate
from .pages import render

__all__ = ["ROUTES"]

_PATH = re.compile(r"/(?!/)[A-Za-z0-9_./?=&%-]{0,300}")


async def _form(request: Request) -> Response:
    return render(request, "login.html", {"next": _next(request.query_params.get("next", "/")), "wrong": ""})


async def _login(request: Request) -> Response:
    gate: Gate = request.scope["gate"]
    address = request.client.host if request.client else ""
    if gate.is_locked(address):
        told = {"next": "/", "wrong": "Too many failed logins. Try again in five minutes."}
        return render(request, "login.html", told, 429)
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    token, where = form.get("token", [""])[0].strip(), _next(form.get("next", ["/"])[0])
    desk = desk_of(request)
    user = desk.tokens.user_of(token)
    if user is None:
        gate.note_failure(address)
        return render(request, "login.html", {"next": where, "wrong": "This token is not known."}, 403)
    answer = RedirectResponse(where, 303)
    answer.set_cookie(
        COOKIE, desk.tokens.session_for(user), httponly=True, samesite="strict", secure=gate.is_secure, path="/"
    )
    return answer


async def _logout(_request: Request) -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _next(path: str) -> str:
    """Return where to go after the login: a path of this server, and nothing else."""
    return path if _PATH.fullmatch(path) else "/"


ROUTES = [
    Route("/login", _form, methods=["GET"]),
    Route("/login", _login, methods=["POST"]),
    Route("/logout", _logout, methods=["POST"]),
]
