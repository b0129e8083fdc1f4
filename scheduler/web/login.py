"""Logging in and out: a token becomes a session, in a cookie that no script can read."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from .gate import Gate, address_of, cookie_name, session_of
from .lockout import Locked
from .pages import render, wants_html

__all__ = ["ROUTES"]

_PATH = re.compile(r"/(?!/)[A-Za-z0-9_./?=&%+:,~-]{0,500}")


async def _form(request: Request) -> Response:
    return render(request, "login.html", {"next": _next(request.query_params.get("next", "/")), "wrong": ""})


async def _login(request: Request) -> Response:
    gate: Gate = request.scope["gate"]
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    token, where = form.get("token", [""])[0].strip(), _next(form.get("next", ["/"])[0])
    try:
        user = gate.lockout.user_of(token, address_of(request))
    except Locked:
        told = {"next": where, "wrong": "Too many wrong tokens came from where you are. Try again in five minutes."}
        return render(request, "login.html", told, 429)
    if user is None:
        return render(request, "login.html", {"next": where, "wrong": "This token is not known."}, 403)
    gate.tokens.end_session(session_of(request))
    answer = RedirectResponse(where, 303)
    session = gate.tokens.session_for(user)
    answer.set_cookie(cookie_name(request), session, httponly=True, samesite="strict", secure=gate.is_secure, path="/")
    return answer


async def _logout(request: Request) -> Response:
    gate: Gate = request.scope["gate"]
    gate.tokens.end_session(session_of(request))
    told = {"message": "Logged out", "location": "/login"}
    answer = RedirectResponse("/login", 303) if wants_html(request) else JSONResponse(told)
    answer.delete_cookie(cookie_name(request), path="/", httponly=True, samesite="strict", secure=gate.is_secure)
    return answer


def _next(path: str) -> str:
    """Return where to go after the login: a path of this server, and nothing else."""
    return path if _PATH.fullmatch(path) else "/"


ROUTES = [
    Route("/login", _form, methods=["GET"]),
    Route("/login", _login, methods=["POST"]),
    Route("/logout", _logout, methods=["POST"]),
]
