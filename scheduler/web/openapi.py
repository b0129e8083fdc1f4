"""The OpenAPI 3.1 document of the API, made from its endpoints and their types."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from .endpoints import Endpoint, Media, Nothing, properties_of

__all__ = ["document"]

_REF = "#/components/schemas/{name}"
_TEXT = (
    "What the pages of the dashboard show, and what is done on them. Every list is told in pages: ask for the next one"
    " with `cursor`, the `next_cursor` of the one before, which is null at the end. Moments with names in `_s` are"
    " seconds since the epoch, lengths are seconds."
)
_GROUPS = {
    "service": "The service as a whole",
    "schedules": "Schedules, and what is asked of them",
    "runs": "Runs, and what is done with them",
    "events": "The log itself",
}
_PLACES = {
    "run_id": (r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$", "The id of a run"),
    "schedule_id": (r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", "The id of a schedule"),
    "task_id": (r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}(\[[0-9]{1,4}\])?$", "The id of a task, or of an item of one"),
}
_PROBLEMS = {
    400: "Something of the request cannot be used; `detail` says what, where, and what can be",
    401: "There is no token, or one that is not known",
    403: "A viewer changes nothing; or the request comes from elsewhere",
    404: "There is no such thing",
    409: "It is not as it would have to be",
    410: "It is gone, and does not come back",
    413: "The body is too large",
    415: "The body is no JSON",
    421: "The server is not called so",
    429: "There were too many wrong tokens",
    503: "It is not to be had now",
}
_ALWAYS = (400, 401, 421, 429, 503)
_CHANGING = (403, 413, 415)


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Return the document of these endpoints."""
    known = list(endpoints)
    types = [told for each in known for told in each.tells if not isinstance(told, Media)]
    types += [each.takes for each in known if _has_body(each)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for each in known:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tickpool", "version": version, "description": _TEXT},
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "tags": [{"name": name, "description": text} for name, text in _GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _problem_schema()},
            "responses": {f"Problem{status}": _problem(text) for status, text in _PROBLEMS.items()},
            "parameters": _parameters(),
            "headers": {"ETag": {"required": True, "schema": {"type": "string", "pattern": '^W/"[0-9a-f]{24}"$'}}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _has_body(endpoint: Endpoint) -> bool:
    return endpoint.method == "POST" and endpoint.takes is not Nothing


def _operation(endpoint: Endpoint, schema_of: dict[int, Any]) -> dict[str, Any]:
    is_read = endpoint.method == "GET"
    places = [_in_path(name) for name in re.findall(r"{(\w+)}", endpoint.path)]
    is_stream = Media("text/event-stream") in endpoint.tells
    shared = ["LastEventId"] if is_stream else ["IfNoneMatch"] if is_read else ["XTickpool"]
    headers = [{"$ref": f"#/components/parameters/{name}"} for name in shared]
    statuses = sorted({*_ALWAYS, *endpoint.problems, *(() if is_read else _CHANGING)})
    is_tagged = is_read and not is_stream
    tag = {"headers": {"ETag": {"$ref": "#/components/headers/ETag"}}} if is_tagged else {}
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.group],
        "summary": endpoint.text,
        "parameters": [*places, *(_queries(endpoint) if is_read else []), *headers],
        "responses": {
            "200": {
                "description": "So it is" if is_read else "It is recorded",
                **tag,
                "content": _content(endpoint, schema_of),
            },
            **({"304": {"description": "The client has it already", **tag}} if is_tagged else {}),
            **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses},
        },
    }
    if _has_body(endpoint):
        content = {"application/json": {"schema": schema_of[id(endpoint.takes)]}}
        operation["requestBody"] = {"required": _wants_body(endpoint), "content": content}
    return operation


def _wants_body(endpoint: Endpoint) -> bool:
    return any(field.required for field in msgspec.structs.fields(endpoint.takes))


def _content(endpoint: Endpoint, schema_of: dict[int, Any]) -> dict[str, Any]:
    (first, *more) = endpoint.tells
    if isinstance(first, Media):
        return {first.type: {"schema": {"type": "string"}}}
    schemas = [schema_of[id(each)] for each in (first, *more)]
    return {"application/json": {"schema": schemas[0] if not more else {"anyOf": schemas}}}


def _queries(endpoint: Endpoint) -> list[dict[str, Any]]:
    required = {field.encode_name for field in msgspec.structs.fields(endpoint.takes) if field.required}
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in properties_of(endpoint.takes).items()
    ]


def _in_path(name: str) -> dict[str, Any]:
    pattern, text = _PLACES[name]
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _parameters() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "IfNoneMatch": {
            "name": "If-None-Match", "in": "header", "schema": text,
            "description": "The `ETag` of an answer that the client has: 304 where it would be the same",
        },
        "XTickpool": {
            "name": "X-Tickpool", "in": "header", "required": True, "schema": text, "example": "1",
            "description": "Anything: a header that no form of another site can send",
        },
        "LastEventId": {
            "name": "Last-Event-ID", "in": "header", "schema": text,
            "description": "The `id` of the last event that the client has: those behind it come first",
        },
    }  # fmt: skip


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    properties = {"type": text, "title": text, "status": {"type": "integer"}, "detail": text}
    return {
        "type": "object",
        "description": "What is wrong (RFC 9457)",
        "properties": properties,
        "required": list(properties),
    }


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}
