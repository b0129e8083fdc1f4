"""The one gate: every request passes it, and nothing reaches a route that it does not let through.

It judges the host (against DNS rebinding), who asks (a bearer token, or a session), what for (a change wants an
operator, the page's own origin and a header that no form can send), and how much; it puts the headers on every answer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import problem
from .tokens import Tokens, User

__all__ = ["COOKIE", "HEADER", "OPEN_PATHS", "Gate"]

COOKIE = "tickpool_session"
HEADER = "x-tickpool"
# What one sees before one has logged in: nothing of the logs.
OPEN_PATHS = ("/login", "/static/")
_MAX_BODY = 64 * 1024
_MAX_STREAMS = 256
_MOST_FAILURES = 10
_FAILURES_S = 300.0
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Gate:
    """An ASGI middleware. `hosts` are the names by which the server may be called, with their ports."""

    def __init__(self, app: ASGIApp, tokens: Tokens, hosts: Collection[str], *, is_secure: bool = False) -> None:
        self._app = app
        self.tokens = tokens
        self._hosts = {host.lower() for host in hosts}
        self.is_secure = is_secure
        self._failures: dict[str, list[float]] = {}
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets
        request = Request(scope)
        refusal = self._judge(request)
        guarded = self._with_headers(send, request)
        if refusal is not None:
            await refusal(scope, receive, guarded)
        elif request.url.path.endswith("/stream"):
            await self._stream(scope, receive, guarded)
        else:
            await self._app(scope, _limited(receive), guarded)

    def _judge(self, request: Request) -> Response | None:
        """Return the refusal of a request; None when it may pass."""
        host = request.headers.get("host", "").lower()
        if host not in self._hosts:
            return problem(421, "This is not the host that was asked for", f"`{host[:100]}` is no name of this server")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _MAX_BODY:
            return problem(413, "The request is too large", f"at most {_MAX_BODY} bytes are read")
        path = request.url.path
        user = self._user_of(request)
        request.scope["user"], request.scope["gate"] = user, self
        if request.method == "POST" and (wrong := self._wrong_origin(request)):
            return problem(403, "The request comes from elsewhere", wrong)
        if path == "/login" or path.startswith("/static/"):
            return None
        if user is None:
            if self.is_locked(_address(request)):
                return problem(429, "Too many failed logins", "try again in five minutes", {"Retry-After": "300"})
            if (
                path.startswith("/api/")
                or path.endswith("/stream")
                or "text/html" not in request.headers.get("accept", "")
            ):
                if "authorization" in request.headers:
                    self.note_failure(_address(request))
                return problem(401, "Who are you?", "send `Authorization: Bearer TOKEN`, or log in at /login")
            return RedirectResponse(f"/login?next={request.url.path}", 303)
        if request.method == "POST" and path != "/logout" and not user.is_operator:
            return problem(403, "A viewer changes nothing", f"`{user.name}` has the role viewer")
        return None

    def _user_of(self, request: Request) -> User | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.tokens.user_of(token.strip())
        try:
            morsel = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
            return None if morsel is None else self.tokens.user_of_session(morsel.value)
        except (CookieError, ValueError, TypeError):
            return None

    @staticmethod
    def _wrong_origin(request: Request) -> str:
        """Say why a change does not come from a page of this server, or from a program."""
        headers = request.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none"):
            return f"Sec-Fetch-Site is {site[:40]}"
        if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
            return f"Origin is {origin[:100]}"
        if request.url.path != "/login" and HEADER not in headers:
            return f"the header {HEADER} is missing; a program sends `{HEADER}: 1`"
        return ""

    def is_locked(self, address: str) -> bool:
        """Say whether an address has failed to log in too often of late."""
        recent = [at for at in self._failures.get(address, ()) if at > time.monotonic() - _FAILURES_S]
        self._failures[address] = recent
        return len(recent) >= _MOST_FAILURES

    def note_failure(self, address: str) -> None:
        """Take note of a login that failed."""
        if len(self._failures) > 10_000:
            self._failures.clear()
        self._failures.setdefault(address, []).append(time.monotonic())

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._streams >= _MAX_STREAMS:
            refusal = problem(503, "Too many streams", f"{_MAX_STREAMS} are open", {"Retry-After": "30"})
            await refusal(scope, receive, send)
            return
        self._streams += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._streams -= 1

    def _with_headers(self, send: Send, request: Request) -> Callable[[Message], Awaitable[None]]:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if self.is_secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                if not request.url.path.startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        return guarded


def _is_page(request: Request) -> bool:
    path = request.url.path
    is_data = path.startswith("/api/") or path.endswith("/stream")
    return not is_data and "text/html" in request.headers.get("accept", "")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _limited(receive: Receive) -> Receive:
    """Count the body: whoever sends it in chunks names no length."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message: dict[str, Any] = dict(await receive())
        read += len(message.get("body", b""))
        if read > _MAX_BODY:
            return {"type": "http.disconnect"}
        return message

    return counted
