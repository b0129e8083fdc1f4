"""JSON Schemas of the files that people write, made from the models that read them: for editors that complete YAML.

They are draft 2020-12, of the shapes only: what goes beyond (that an expression has fire times, that a task is there)
is for `tickpool validate`.
"""

from __future__ import annotations

import enum
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from workers.dag_model import Dag
from workers.dag_rules import HOOKS
from workers.ids import ID
from workers.units import Duration

from .calendar_model import OwnCalendar
from .limits import Limits
from .schedule_model import Schedule

__all__ = ["schema_texts", "schemas", "write_schemas"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Of a model, what no file may say: it is worked out when the file is read.
_INTERNAL = {Schedule: ("project", "matrix_of", "days", "file", "line"), Dag: ("project",)}
_DURATION = {
    "description": "a length of time, such as 90s, 5m, 1h30m; a number is seconds",
    "anyOf": [
        {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"},
        {"type": "number", "minimum": 0},
    ],
}
# The reader takes a number or a word such as `true` as it is written where a text is wanted.
_TEXT = {"type": ["string", "number", "boolean"]}
_WHEN = ("cron", "every", "at", "after", "on_file")
_PLAIN: dict[type, dict[str, Any]] = {
    inspect.AnyType: {},
    inspect.NoneType: {"type": "null"},
    inspect.BoolType: {"type": "boolean"},
    inspect.StrType: _TEXT,
    inspect.DateType: {"type": "string", "format": "date"},
    inspect.DateTimeType: {"type": "string", "format": "date-time"},
}
_LISTS = (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType)


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each kind of file, by its file's name."""
    dag = _schema("a DAG of tickpool", _of(Dag))
    for name in HOOKS:
        del dag["properties"][name]["items"]["required"]  # a hook is named after its list where it has no id
    return {
        "schedules.schema.json": _schema(
            "schedules of tickpool",
            {"type": "array", "items": {**_of(Schedule), "anyOf": [{"required": [key]} for key in _WHEN]}},
        ),
        "dag.schema.json": dag,
        "limits.schema.json": _schema("limits of tickpool", _of(Limits)),
        "calendars.schema.json": _schema(
            "calendars of tickpool", {"type": "object", "additionalProperties": _of(OwnCalendar)}
        ),
    }


def schema_texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each schema's file."""
    for name, schema in schemas().items():
        yield name, json.dumps(schema, indent=2) + "\n"


def write_schemas(directory: Path) -> Iterator[Path]:
    """Write each schema to a file of the directory, which is made if need be; yield their paths. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in schema_texts():
        new = directory / f".{name}.{secrets.token_hex(4)}"
        try:
            new.write_text(text, "utf-8")
            os.replace(new, directory / name)
        finally:
            new.unlink(missing_ok=True)
        yield directory / name


def _schema(title: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": _DIALECT, "title": title, **schema}


def _of(kind: Any) -> dict[str, Any]:
    """Return the schema of a type, or of what msgspec says of one."""
    shape = kind if isinstance(kind, inspect.Type) else inspect.type_info(kind)
    if isinstance(shape, inspect.Metadata):
        return _of(shape.type)
    if isinstance(shape, inspect.CustomType):
        return _DURATION if shape.cls is Duration else {}
    if isinstance(shape, inspect.StructType):
        return _object(shape)
    if isinstance(shape, inspect.UnionType):
        return _any_of(shape)
    if isinstance(shape, inspect.LiteralType):
        return {"enum": list(shape.values)}
    if isinstance(shape, inspect.EnumType):
        return {"enum": [each.value for each in shape.cls if isinstance(each, enum.Enum)]}
    if isinstance(shape, inspect.IntType | inspect.FloatType):
        return _number(shape)
    if isinstance(shape, _LISTS):
        return _list(shape.item_type)
    if isinstance(shape, inspect.DictType):
        return {"type": "object", "additionalProperties": _of(shape.value_type)}
    return dict(_PLAIN.get(type(shape), {}))


def _list(item: inspect.Type) -> dict[str, Any]:
    """Return the schema of a list; one plain value may stand for a list of it."""
    one = _of(item)
    many = {"type": "array", "items": one}
    return many if isinstance(item, inspect.StructType) else {"anyOf": [many, one]}


def _object(shape: inspect.StructType) -> dict[str, Any]:
    hidden = _INTERNAL.get(shape.cls, ())
    fields = [field for field in shape.fields if field.encode_name not in hidden]
    properties = {field.encode_name: _field(field) for field in fields}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    # An absent key counts as null.
    required = [field.encode_name for field in fields if field.required and not _may_be_null(field.type)]
    return {**schema, "required": required} if required else schema


def _field(field: inspect.Field) -> dict[str, Any]:
    schema = _of(field.type)
    if field.encode_name == "id":
        schema = {**schema, "pattern": f"^{ID.pattern}$"}
    if field.default is msgspec.NODEFAULT or field.default is None:
        return schema
    try:
        return {**schema, "default": msgspec.to_builtins(field.default, enc_hook=str)}
    except TypeError:
        return schema


def _any_of(shape: inspect.UnionType) -> dict[str, Any]:
    parts = [_of(each) for each in shape.types]
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _may_be_null(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.UnionType) and any(isinstance(each, inspect.NoneType) for each in kind.types)


def _number(shape: inspect.IntType | inspect.FloatType) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer" if isinstance(shape, inspect.IntType) else "number"}
    bounds = {"minimum": shape.ge, "maximum": shape.le, "exclusiveMinimum": shape.gt, "exclusiveMaximum": shape.lt}
    return {**schema, **{name: value for name, value in bounds.items() if value is not None}}
