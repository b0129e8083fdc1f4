"""The one gate: every request passes it, and nothing reaches a route that it does not let through.

It judges the host (against DNS rebinding), who asks (a bearer token, or a session), what for (a change wants an
operator, the page's own origin and a header that no form can send), and how much; it puts the headers on every answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from urllib.parse import quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .lockout import LOCKED_S, Locked, Lockout
from .problems import problem
from .tokens import Tokens, User

__all__ = [
    "COOKIE",
    "HEADER",
    "MAX_BODY",
    "MAX_STREAMS",
    "MAX_STREAMS_OF_ONE",
    "Gate",
    "address_of",
    "cookie_name",
    "session_of",
]

COOKIE = "tickpool_session"
HEADER = "x-tickpool"
MAX_BODY = 64 * 1024
MAX_STREAMS = 400
MAX_STREAMS_OF_ONE = 256
# RFC 9110, section 9.2.1; whatever else is asked for is taken for a change, though no route may take it.
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
# What a page without a script sends as a form.
_FORMS = ("/login", "/logout")
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


class _Full(Exception):
    """A stream more than may be open."""


class _Over(Exception):
    """A stream of a session that has ended."""


class Gate:
    """The ASGI application around another. `hosts` are the names by which it may be called, with their ports.

    `is_secure` says that TLS lies between it and whoever asks.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, hosts: Collection[str], *, is_secure: bool = False) -> None:
        self._app = app
        self.tokens = tokens
        self.lockout = Lockout(tokens)
        self._hosts = {host.lower() for host in hosts}
        self.is_secure = is_secure
        self._streams: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets
        request = Request(scope)
        answer = _Answer(self, request, send)
        refusal = self._judge(request)
        try:
            await (refusal or self._app)(scope, receive, answer.send)
        except ClientDisconnect:
            pass  # it has gone while it still sent its body: there is nobody to tell
        except _Full:
            await _too_many_streams()(scope, receive, answer.send)
        except _Over:
            await send({"type": "http.response.body", "body": b""})
        finally:
            answer.close()

    def _judge(self, request: Request) -> Response | None:
        """Return the refusal of a request; None when it may pass."""
        host = request.headers.get("host", "").lower()
        if host not in self._hosts:
            return problem(421, "This is not the host that was asked for", f"`{host[:100]}` is no name of this server")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return problem(413, "The request is too large", f"at most {MAX_BODY} bytes are read")
        path = request.scope["path"]
        if not path.isprintable():
            # A route would match it with a line feed at its end.
            return problem(404, "Not Found", "no path has a control character")
        is_change = request.method not in _SAFE
        if is_change and (wrong := self._wrong_origin(request)):
            return problem(403, "The request comes from elsewhere", wrong)
        request.scope["gate"], request.scope["user"] = self, None
        try:
            user = request.scope["user"] = self.user_of(request)
        except Locked:
            return problem(429, "Too many wrong tokens", "try again in five minutes", {"Retry-After": str(LOCKED_S)})
        # What one sees before one has logged in: nothing of the logs.
        if path == "/login" or path.startswith("/static/"):
            return None
        if user is None:
            return _who_are_you(request)
        if is_change and path != "/logout" and not user.is_operator:
            return problem(403, "A viewer changes nothing", f"`{user.name}` has the role viewer")
        return None

    def user_of(self, request: Request) -> User | None:
        """Return who asks, by the token or else the session that the request brings. Raises Locked."""
        token = _token_of(request)
        if token is not None:
            return self.lockout.user_of(token, address_of(request))
        return self.tokens.user_of_session(session_of(request))

    def _wrong_origin(self, request: Request) -> str:
        """Say why a change does not come from a page of this server, or from a program."""
        headers = request.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none"):
            return f"Sec-Fetch-Site is {site[:40]}"
        if origin is not None:
            scheme, _, host = origin.partition("://")
            schemes = ("https",) if self.is_secure else ("http", "https")
            if scheme not in schemes or host.lower() != headers.get("host", "").lower():
                return f"Origin is {origin[:100]}"
        if request.scope["path"] not in _FORMS and HEADER not in headers:
            return f"the header {HEADER} is missing; a program sends `{HEADER}: 1`"
        return ""

    def open_stream(self, name: str) -> None:
        """Count a stream of a user. Raises _Full."""
        if self._streams.total() >= MAX_STREAMS or self._streams[name] >= MAX_STREAMS_OF_ONE:
            raise _Full
        self._streams[name] += 1

    def close_stream(self, name: str) -> None:
        """Count a stream of a user no more."""
        self._streams[name] -= 1


class _Answer:
    """The answer to one request: with the headers; a stream within the bounds, and until its session is over."""

    def __init__(self, gate: Gate, request: Request, send: Send) -> None:
        self._gate = gate
        self._request = request
        self._send = send
        self._streaming = ""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(MutableHeaders(scope=message))
        elif self._streaming and self._is_over():
            raise _Over
        await self._send(message)

    def close(self) -> None:
        if self._streaming:
            self._gate.close_stream(self._streaming)

    def _begin(self, headers: MutableHeaders) -> None:
        if headers.get("content-type", "").startswith("text/event-stream"):
            name = self._request.scope["user"].name
            self._gate.open_stream(name)
            self._streaming = name
        headers.update(_HEADERS)
        if self._gate.is_secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if not self._request.scope["path"].startswith("/static/"):
            headers.setdefault("Cache-Control", "no-store")

    def _is_over(self) -> bool:
        # No token ends before the process does.
        return _token_of(self._request) is None and self._gate.tokens.user_of_session(session_of(self._request)) is None


def cookie_name(request: Request) -> str:
    """Return the name of the cookie of a session: a browser keeps those of all ports of a host together."""
    port = request.headers["host"].rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() else COOKIE


def session_of(request: Request) -> str:
    """Return the value of the cookie of a session, empty where there is none."""
    return request.cookies.get(cookie_name(request), "")


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else ""


def _token_of(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _who_are_you(request: Request) -> Response:
    """Send a person to the form, and tell a program."""
    path, query = request.scope["path"], request.scope["query_string"].decode("ascii", "replace")
    if path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        wanted = {"WWW-Authenticate": "Bearer"}
        return problem(401, "Who are you?", "send `Authorization: Bearer TOKEN`, or log in at /login", wanted)
    if request.method not in _SAFE:
        return RedirectResponse("/login", 303)  # what was to be changed is no page to come back to
    back = quote(path) + (f"?{query}" if query else "")
    return RedirectResponse(f"/login?{urlencode({'next': back}, safe='/')}", 303)


def _too_many_streams() -> Response:
    most = f"{MAX_STREAMS_OF_ONE} of one user are open, or {MAX_STREAMS} in all"
    return problem(503, "Too many streams", most, {"Retry-After": "30"})
