"""The endpoints of the API: what each of them takes and tells, as types, and how a request becomes an answer.

A route is made from its `Endpoint` alone, and so is its description: there is none without the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from workers.errors import did_you_mean

from .desk import desk_of
from .problems import Problem

__all__ = ["Endpoint", "Media", "Nothing", "by_feed", "by_second", "properties_of", "routes_of"]

_MESSAGE_CHARS = 300
_PLACE = re.compile(r" - at `\$\.?(?P<place>.*)`$")
_FIELD = re.compile(r"Object (?P<wrong>contains unknown|missing required) field `(?P<name>.*?)`")
_JSON = "application/json"


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing is to be said."""


class Media(NamedTuple):
    """An answer that is no JSON: its content type."""

    type: str


class Endpoint(NamedTuple):
    """A path below `/api/v1`, and all there is to say of it.

    `handler(request, taken)` returns what is told, or a Response. `taken` is of the type `takes`: the query of a GET,
    the body of a POST. `tells` are the types that it answers with. `state` returns what the answer depends on besides
    the address, where that is known before the answer is. `problems` are the errors that not every endpoint has.
    """

    method: str
    path: str
    name: str
    group: str
    text: str
    handler: Callable[[Request, Any], Awaitable[Any]]
    tells: Sequence[Any]
    takes: type[msgspec.Struct] = Nothing
    state: Callable[[Request], object] | None = None
    problems: Sequence[int] = ()


def by_feed(request: Request) -> object:
    """Return what stays as it is for as long as the logs bring nothing new."""
    feed = desk_of(request).feed
    return feed.version, feed.read_bytes


def by_second(request: Request) -> object:
    """Return what stays as it is for as long as the logs bring nothing new, and for a second at most."""
    return by_feed(request), int(desk_of(request).now().timestamp())


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """Return the routes of these endpoints."""
    return [Route(each.path, _answering(each), methods=[each.method], name=each.name) for each in endpoints]


def _answering(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def read(request: Request) -> Response:
        query = _query(request, endpoint.takes)
        state = None if endpoint.state is None else endpoint.state(request)
        tag = None if state is None else _tag_of(repr((desk_of(request).token, str(request.url), state)).encode())
        if tag is not None and _is_known(request, tag):
            return _answer(None, 304, tag)
        told = await endpoint.handler(request, query)
        if isinstance(told, Response):
            if tag is not None:
                told.headers.update(_headers(tag))
            return told
        body = msgspec.json.encode(told)
        tag = tag or _tag_of(body)
        return _answer(None, 304, tag) if _is_known(request, tag) else _answer(body, 200, tag)

    async def change(request: Request) -> Response:
        told = await endpoint.handler(request, await _body(request, endpoint.takes))
        return Response(msgspec.json.encode(told), media_type=_JSON)

    return read if endpoint.method == "GET" else change


def _answer(body: bytes | None, status: int, tag: str) -> Response:
    return Response(body, status, _headers(tag), None if body is None else _JSON)


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def _tag_of(value: bytes) -> str:
    # A weak one: the same answer may be sent compressed (RFC 9110, 8.8.1).
    return f'W/"{hashlib.sha256(value).hexdigest()[:24]}"'


def _is_known(request: Request, tag: str) -> bool:
    known = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    return "*" in known or tag.removeprefix("W/") in [each.removeprefix("W/") for each in known]


def _query(request: Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    given = request.query_params.multi_items()
    query = dict(given)
    names = properties_of(kind)
    for name in query:
        if name not in names:
            raise Problem(400, "This query cannot be used", f"`{name[:100]}` is not known{did_you_mean(name, names)}")
    if len(query) < len(given):
        raise Problem(400, "This query cannot be used", "a name is given twice")
    try:
        return msgspec.convert(query, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, "This query cannot be used", _told(error, names)) from None


async def _body(request: Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    media = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if media != _JSON:
        raise HTTPException(415, f"a body is {_JSON}", {"Accept": _JSON})
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Problem(400, "This body cannot be used", _told(error, properties_of(kind))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "This body cannot be read", f"it is to be a JSON object: {error}"[:_MESSAGE_CHARS]) from None


@lru_cache(100)
def properties_of(kind: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each field of a type."""
    properties: dict[str, dict[str, Any]] = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    return properties


def _told(error: msgspec.ValidationError, names: dict[str, dict[str, Any]]) -> str:
    """Say what is wrong, where, and what is right there."""
    text = str(error)
    field, place = _FIELD.search(text), _PLACE.search(text)
    if field is not None and field["wrong"] == "contains unknown":
        return f"`{field['name'][:100]}` is not known{did_you_mean(field['name'], names)}"
    if field is not None:
        return f"`{field['name']}` is missing: {names.get(field['name'], {}).get('description', '')}"
    if place is None or not place["place"]:
        return text[:_MESSAGE_CHARS]
    name = re.split(r"[.\[]", place["place"])[0]
    rule = names.get(name, {}).get("description", "")
    wrong = text[: place.start()].replace("Expected", "expected", 1)
    return f"`{place['place'][:100]}`: {wrong[:_MESSAGE_CHARS]}" + (f"; it is {rule}" if rule else "")
