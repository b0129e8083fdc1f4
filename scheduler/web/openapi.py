"""The OpenAPI document of the API, made from the types that it answers with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

__all__ = ["Endpoint", "Param", "document"]

_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
_TITLES = {
    400: "something of the request cannot be used", 401: "no token, or one that is not known",
    403: "a viewer changes nothing, or the request comes from elsewhere", 404: "there is no such thing",
    405: "no such method here", 409: "it is not as it was expected to be", 413: "the body is too large",
    421: "the host is another", 429: "too many failed logins", 503: "it is not to be had now",
}  # fmt: skip


class Param(NamedTuple):
    """A parameter of a query: its name, its JSON Schema, what it means."""

    name: str
    schema: dict[str, Any]
    text: str


class Endpoint(NamedTuple):
    """A path below `/api/v1` (`/runs/{run_id}`), and what it takes and answers with."""

    method: str
    path: str
    text: str
    response: Any
    params: tuple[Param, ...] = ()
    body: Any = None


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these endpoints."""
    known = list(endpoints)
    types = [each for endpoint in known for each in (endpoint.response, endpoint.body) if each is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    found = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in known:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, found)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tickpool", "version": version, "description": "What the pages of the dashboard show."},
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[int, Any]) -> dict[str, Any]:
    places = [_in_path(name) for name in re.findall(r"{(\w+)}", endpoint.path)]
    queries = [
        {"name": each.name, "in": "query", "required": False, "schema": each.schema, "description": each.text}
        for each in endpoint.params
    ]
    operation: dict[str, Any] = {
        "summary": endpoint.text,
        "parameters": [*places, *queries],
        "responses": {
            "200": {
                "description": "so it is",
                "content": {"application/json": {"schema": schemas[id(endpoint.response)]}},
            },
            "304": {"description": "the client has it already"},
            **{str(status): _problem(text) for status, text in _TITLES.items()},
        },
    }
    if endpoint.method == "POST":
        header = {"name": "X-Tickpool", "in": "header", "required": True, "schema": {"const": "1"}}
        operation["parameters"].append(header)
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[id(endpoint.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}
