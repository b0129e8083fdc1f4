"""One request and its answer, by urllib3: in bounds of time and size, and whatever goes wrong in words.

Importing this module imports urllib3, which takes a twelfth of a second: so only who has a request to make does.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, HTTPError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as LateError

from workers.errors import TickpoolError

from .request import BadRequest, Request, is_redirect, redirected

__all__ = ["MOST_BYTES", "Answer", "NoAnswer", "ask", "in_words"]

# Twice what outputs may have, for JSON that is written with much space.
MOST_BYTES = 64 * 1024
_MOST_REDIRECTS = 10


class NoAnswer(TickpoolError):
    """A request that has got no answer, or half of one: a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


class Answer(NamedTuple):
    """The last answer, after all redirects. Of the body, decompressed, there are the first MOST_BYTES."""

    status: int
    content_type: str
    body: bytes
    is_whole: bool
    took_s: float


class _Line:
    """The connection of the moment, so that another thread can cut it."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.connection: HTTPConnection | None = None
        self.socket: socket.socket | None = None

    def cut(self) -> None:
        """End what waits for the other side."""
        # http.client forgets the socket when the answer has begun and the connection is for it alone.
        found = self.socket or (self.connection and self.connection.sock)
        if found:
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)


def ask(request: Request, say: Callable[[str], None]) -> Answer:
    """Make a request and return its answer; `say` gets a line for each redirect. Raises NoAnswer.

    For the child of a task: the thread that it starts may outlive a request without an answer.
    """
    line, began = _Line(), time.monotonic()
    try:
        answer = _within(request.timeout.total_seconds(), lambda: _follow(request, line, say))
    except TimeoutError:
        line.cut()
        if line.status is None:
            raise NoAnswer(f"no answer within {request.timeout}") from None
        raise NoAnswer(f"{in_words(line.status)}, but not the whole answer within {request.timeout}") from None
    return answer._replace(took_s=time.monotonic() - began)


def _within(limit_s: float, action: Callable[[], Answer]) -> Answer:
    """Return or raise what `action` does, or raise TimeoutError when that takes too long.

    A thread, because nothing else ends the wait for a name: getaddrinfo(3) takes no limit and goes on after a signal.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(action)
    pool.shutdown(wait=False)
    return future.result(limit_s)


def in_words(status: int) -> str:
    """Return a status as `404 Not Found`; what the server calls it is not asked for."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _follow(request: Request, line: _Line, say: Callable[[str], None]) -> Answer:
    for _ in range(_MOST_REDIRECTS + 1):
        answer, location = _exchange(request, line)
        if location is None or not is_redirect(answer.status) or request.is_good(answer.status):
            return answer
        try:
            request = redirected(request, answer.status, location)
        except BadRequest as error:
            raise NoAnswer(f"{in_words(answer.status)}: {error}") from None
        say(f"{in_words(answer.status)}, on to {request.method} {request.address.url}")
    raise NoAnswer(f"more than {_MOST_REDIRECTS} redirects")


def _exchange(request: Request, line: _Line) -> tuple[Answer, str | None]:
    """Send one request; return the answer and the `Location` in it. Raises NoAnswer, TimeoutError."""
    line.status = line.socket = None
    line.connection = connection = _connection_to(request)
    try:
        connection.connect()
        line.socket = connection.sock
        # Who has read enough of a body to refuse it may have closed the connection; what it says is there to read.
        with suppress(BrokenPipeError, ConnectionResetError):
            headers: Any = request.headers
            connection.request(request.method, request.address.target, request.body, headers, preload_content=False)
        response = connection.getresponse()
        line.status = response.status
        body = response.read(MOST_BYTES + 1)
    except (HTTPError, http.client.HTTPException, OSError) as error:
        if isinstance(error, (TimeoutError, LateError)) and not isinstance(error, NewConnectionError):
            raise TimeoutError from None
        raise NoAnswer(_why(error, request.address.place)) from None
    finally:
        connection.close()
    whole, content_type = len(body) <= MOST_BYTES, response.headers.get("Content-Type", "")
    return Answer(response.status, content_type, body[:MOST_BYTES], whole, 0.0), response.headers.get("Location")


def _connection_to(request: Request) -> HTTPConnection:
    # The bound of each step, such as connecting to one of several addresses; that of the whole is kept by `ask`.
    _, host, port, *_ = request.address
    limit_s = request.timeout.total_seconds()
    if request.address.scheme == "http":
        return HTTPConnection(host, port, timeout=limit_s)
    return HTTPSConnection(host, port, timeout=limit_s, ssl_context=ssl.create_default_context())


def _why(error: Exception, place: str) -> str:
    """Say in words what went wrong with a connection."""
    cause = error.__cause__ or error
    system = cause.strerror if isinstance(cause, OSError) and cause.strerror else ""
    if isinstance(error, NameResolutionError):
        return f"cannot find the host {place.rpartition(':')[0]}: {system}"
    if isinstance(error, NewConnectionError):
        return f"cannot connect to {place}: {system or error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {place} is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {place}: {(error.reason or 'the connection broke off').lower().replace('_', ' ')}"
    if isinstance(error, DecodeError):
        return f"the answer of {place} cannot be decompressed"
    if isinstance(error, ConnectionError):
        # RemoteDisconnected of http.client is one of them.
        return f"{place} closed the connection without an answer"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.IncompleteRead):
        return f"what {place} answers is not HTTP: {type(error).__name__}"
    return f"the answer of {place} broke off"
