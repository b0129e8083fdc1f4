"""A request as it will be sent: references filled in and checked, and what becomes of it by a redirect. Pure.

A secret goes to the host that the task names. What carries one (`Authorization`, `Cookie`, a header or a body with
`${secrets...}`) goes to no other host, port or scheme that an answer may point to.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import msgspec

from workers import params
from workers.dag_model import Http, Task
from workers.errors import TickpoolError
from workers.params import Lookup, UnknownReference, references
from workers.units import Duration

from . import Scene

__all__ = ["Address", "BadRequest", "Request", "is_redirect", "lookup_of", "parse_address", "redirected", "request_of"]

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")
_USER = re.compile(r"(?P<scheme>[A-Za-z]+://)(?P<user>(?:\$\{[^}]*\}|[^/?#@])*)@")
_PRINTABLE = "".join(map(chr, range(33, 127)))
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
# Never to another host; `Host` because it names this one.
_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
_OF_BODY = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding"})


class BadRequest(TickpoolError):
    """A request that cannot be made: (which part of it, why)."""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]}"


class Address(NamedTuple):
    """Where a request goes. `target` is the path with the query, in printable ASCII; `user` is `name:password`."""

    scheme: str
    host: str
    port: int
    target: str
    user: bytes | None = None

    @property
    def place(self) -> str:
        """The host and the port, as a person writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address without name and password."""
        return f"{self.scheme}://{self.place.removesuffix(f':{_DEFAULT_PORTS[self.scheme]}')}{self.target}"

    def has_origin_of(self, other: Address) -> bool:
        """Say whether scheme, host and port are the same."""
        return self[:3] == other[:3]


class Request(NamedTuple):
    """What is sent, and which answers are good. The headers named in `private` (in lower case) and a private body stay
    with the host of `address`; `timeout` is that of the whole, redirects included.
    """

    method: str
    address: Address
    headers: Mapping[str, bytes]
    body: bytes | None
    expect: tuple[str, ...]
    timeout: Duration
    private: frozenset[str] = _PRIVATE
    is_body_private: bool = False

    def is_good(self, status: int) -> bool:
        """Say whether an answer with this status is one that is expected."""
        return not {str(status), f"{status // 100}xx"}.isdisjoint(self.expect)


def lookup_of(task: Task, scene: Scene) -> Lookup:
    """Return the lookup for places that may name secrets: the task's own, and none else."""

    def lookup(dotted: str) -> Any:
        space, _, name = dotted.partition(".")
        if space != "secrets":
            return scene.lookup(dotted)
        if name not in task.secrets:
            raise UnknownReference(dotted, tuple(f"secrets.{each}" for each in task.secrets))
        return scene.env[name]

    return lookup


def request_of(http: str | Http, lookup: Lookup) -> Request:
    """Fill in the references of a request and check what has come of it. Raises BadRequest, and what `lookup` does."""
    try:
        return _filled(Http(http) if isinstance(http, str) else http, lookup)
    except UnicodeEncodeError:
        raise BadRequest("the request", "holds half a character, a lone surrogate") from None


def _filled(http: Http, lookup: Lookup) -> Request:
    address = parse_address(_filled_url(http.url, lookup))
    headers = {name: _header(name, params.resolve_text(value, lookup)) for name, value in http.headers.items()}
    given = {name.lower() for name in headers}
    if address.user is not None and "authorization" not in given:
        headers["Authorization"] = b"Basic " + b64encode(address.user)
    if http.json is not None and "content-type" not in given:
        headers["Content-Type"] = b"application/json"
    secret = {name.lower() for name, value in http.headers.items() if _has_secret(value)}
    return Request(
        http.method,
        address,
        headers,
        _body(http, lookup),
        http.expect,
        http.timeout,
        _PRIVATE | secret,
        _has_secret(http.body) or _has_secret(http.json),
    )


def _has_secret(value: Any) -> bool:
    return any(name.startswith("secrets.") for name in references(value))


def _filled_url(template: str, lookup: Lookup) -> str:
    user = _USER.match(template)
    if user is None:
        return params.resolve_text(template, lookup)
    # A password with a `/` or an `@` would make another host of its beginning.
    name_and_password = params.resolve_text(user["user"], _quoted(lookup))
    return f"{user['scheme']}{name_and_password}@{params.resolve_text(template[user.end() :], lookup)}"


def _quoted(lookup: Lookup) -> Callable[[str], str]:
    return lambda dotted: quote(str(lookup(dotted)), safe="", errors="surrogateescape")


def parse_address(text: str) -> Address:
    """Read `http://host/path` or `https://...`. Raises BadRequest, which shows nothing of the text."""
    if _UNPRINTABLE.search(text):
        raise BadRequest("the URL", "holds a space, a line break or a control character; write `%20` for a space")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise BadRequest("the URL", "has a host or a port that cannot be read") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise BadRequest("the URL", "is no address of the web: it begins with neither `http://` nor `https://`")
    if not host.isascii():
        raise BadRequest("the URL", "has a host with letters beyond ASCII; write its `xn--` form")
    if port == 0 or not _is_host(host):
        raise BadRequest("the URL", "has no host, or one that no name or port can have")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    user = None
    if parts.username is not None:
        user = unquote_to_bytes(_ascii(parts.username)) + b":" + unquote_to_bytes(_ascii(parts.password or ""))
    return Address(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], _ascii(target), user)


def _ascii(text: str) -> str:
    return quote(text, safe=_PRINTABLE, errors="surrogateescape")


def _is_host(host: str) -> bool:
    if ":" in host:
        return _IPV6.fullmatch(host) is not None
    try:
        # What the resolver does with it: no empty part, none of more than 63 letters.
        return _HOST.fullmatch(host) is not None and bool(host.encode("idna"))
    except UnicodeError:
        return False


def _header(name: str, value: str) -> bytes:
    if _CONTROL.search(value):
        raise BadRequest(f"header `{name[:80]}`", "holds a line break or another control character")
    return value.encode("utf-8", "surrogateescape")


def _body(http: Http, lookup: Lookup) -> bytes | None:
    if http.json is not None:
        try:
            return msgspec.json.encode(params.resolve(http.json, lookup))
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise BadRequest("`json`", f"cannot be written as JSON: {error}") from None
    if http.body is None:
        return None
    return params.resolve_text(http.body, lookup).encode("utf-8", "surrogateescape")


def is_redirect(status: int) -> bool:
    """Say whether a status sends the client elsewhere, by a `Location`."""
    return status in _REDIRECTS


def redirected(request: Request, status: int, location: str) -> Request:
    """Return the request that an answer points to, as browsers understand it. Raises BadRequest.

    `location` is what http.client makes of the header: its bytes, as Latin-1.
    """
    there = quote(location.strip().encode("latin-1", "replace"), safe=_PRINTABLE)
    try:
        address = parse_address(urljoin(request.address.url, there))._replace(user=None)
    except (BadRequest, ValueError):
        raise BadRequest("the redirect", f"to `{there}` is not followed: it is no http or https URL") from None
    if request.address.scheme == "https" and address.scheme == "http":
        raise BadRequest("the redirect", f"to `{address.url}` is not followed: it leads from https to http")
    becomes_get = (status == 303 and request.method != "HEAD") or (status in (301, 302) and request.method == "POST")
    kept = dict(request.headers)
    if becomes_get:
        request = request._replace(method="GET", body=None)
        kept = {name: value for name, value in kept.items() if name.lower() not in _OF_BODY}
    if not address.has_origin_of(request.address):
        kept = {name: value for name, value in kept.items() if name.lower() not in request.private}
        if request.body is not None and request.is_body_private:
            raise BadRequest("the redirect", f"to {address.place} is not followed: the body has a secret")
    return request._replace(address=address, headers=kept)
