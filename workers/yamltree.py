"""YAML events to plain data, read strictly: twice if need be, fast without positions and then slowly with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from .yamlhints import lines_of, quoted, syntax_fault

__all__ = ["MAX_DEPTH", "NotPlain", "Spot", "Survey", "read_plain", "survey"]

MAX_DEPTH = 32
_MOST_FAULTS = 100
_MOST_QUOTED = 200

# A plain scalar that starts with none of these is a text; the empty one is null.
_SUSPECT = "0123456789+-.~nNtTfF"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BASES = {"0o": 8, "0x": 16}


class NotPlain(Exception):
    """The fast reading met something it leaves to the slow one."""


class Spot(NamedTuple):
    """Where one value stands (line and column from 1), its text as written, and where what it holds stands."""

    line: int
    col: int
    text: str | None
    keys: dict[str, tuple[int, int]]
    items: dict[str | int, Spot]


class Survey(NamedTuple):
    """The slow reading: the data, where everything stands, and each fault as (line, col, message)."""

    data: Any
    root: Spot
    faults: list[tuple[int, int, str]]


class _Reader(Protocol):
    # Any: the stubs give the attributes to the subclasses, which `type(event)` tells apart faster than isinstance.
    def get_event(self) -> Any: ...


def _open(source: bytes) -> _Reader:
    # libyaml is seven times faster, but a PyYAML built from source may lack it.
    loader: Callable[[bytes], _Reader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    return loader(source)


def _core_scalar(text: str) -> Any:
    """Read an unquoted scalar by YAML 1.2's core schema (10.3.2). Raises ValueError where JSON has no such number."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        base = _BASES.get(text[:2], 10)
        if len(text) <= 40 and -(2**63) <= (number := int(text, base)) < 2**64:
            return number
        raise ValueError(f'{text[:40]} does not fit in 64 bits; quote it to keep it as text: "{text[:40]}"')
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        if not _NOT_FINITE.fullmatch(text) and math.isfinite(value := float(text)):
            return value
        raise ValueError(f'{text[:40]} is not a finite number; quote it to keep it as text: "{text[:40]}"')
    return text


def read_plain(source: bytes) -> tuple[Any, list[tuple[int, int]]]:
    """Return the data of a faultless file (None for an empty one), and line and column of each item of a top list.

    Raises NotPlain, ValueError or yaml.YAMLError on anything else; `survey` then says what and where. It keeps no
    other positions because they cost four times the reading itself.
    """
    get_event = _open(source).get_event
    root: list[Any] = []
    box: Any = root
    stack: list[Any] = []
    tops: list[tuple[int, int]] = []
    key: str | None = None
    while (event := get_event()) is not None:
        kind = type(event)
        if kind is ScalarEvent:
            value: Any = event.value
            if event.implicit[0] and value[:1] in _SUSPECT:
                value = _core_scalar(value)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            value = {} if kind is MappingStartEvent else []
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            box = stack.pop()
            continue
        elif kind is AliasEvent:
            raise NotPlain
        else:
            continue
        if event.tag is not None or event.anchor is not None:
            raise NotPlain
        if type(box) is list:
            box.append(value)
            if len(stack) == 1:
                tops.append((event.start_mark.line + 1, event.start_mark.column + 1))
        elif key is None:
            if type(value) is not str or value in box or value == "<<":
                raise NotPlain
            key = value
            continue
        else:
            box[key] = value
            key = None
        if kind is not ScalarEvent:
            stack.append(box)
            box = value
            if len(stack) > MAX_DEPTH:
                raise NotPlain
    if len(root) > 1:
        raise NotPlain
    return root[0] if root else None, tops


def survey(source: bytes, text: str) -> Survey:
    """Read the file again with positions, collecting every fault; a syntax error ends it."""
    return _Surveyor(text).read(source)


class _Open(NamedTuple):
    """A collection being read; `key` holds the spot of a mapping's key whose value comes next."""

    data: Any
    spot: Spot
    key: list[tuple[str, Spot]]


class _Surveyor:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = lines_of(text)
        # Shared by all scalars, which never hold anything: two dicts each would double the memory of a large file.
        self._none: dict[Any, Any] = {}
        self._faults: list[tuple[int, int, str]] = []
        self._root = Spot(1, 1, None, {}, {})
        self._documents: list[Any] = []
        self._stack = [_Open(self._documents, self._root, [])]

    def read(self, source: bytes) -> Survey:
        try:
            reader = _open(source)
            while (event := reader.get_event()) is not None:
                if not self._take(event):
                    break
                if len(self._faults) >= _MOST_FAULTS:
                    self._fault(
                        event.start_mark.line + 1, event.start_mark.column + 1, "too many faults; read no further"
                    )
                    break
        except yaml.YAMLError as error:
            fault = syntax_fault(error, self._text)
            # After `cron: *a b` the alias is the fault, and what it makes of the rest of the line is noise.
            if all(fault[0] != line for line, _, _ in self._faults):
                self._faults.append(fault)
        data = self._documents[0] if self._documents else None
        return Survey(data, self._root.items.get(0, self._root), self._faults)

    def _take(self, event: Any) -> bool:
        """Take one event; false ends the reading."""
        line, col = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._stack.pop()
        elif isinstance(event, DocumentStartEvent) and self._documents:
            self._faults.append((line, col, "a second YAML document begins here; one file holds one document"))
            return False
        elif isinstance(event, AliasEvent):
            text = quoted(self._rest(line, col))
            self._fault(line, col, f"`*` begins an alias, and aliases are refused; if it is a text, quote it: {text}")
            self._place(None, Spot(line, col, None, self._none, self._none))
        elif isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent):
            self._refuse_properties(event, line, col)
            return self._open_or_place(event, line, col)
        return True

    def _open_or_place(self, event: Any, line: int, col: int) -> bool:
        if isinstance(event, ScalarEvent):
            spot = Spot(line, col, event.value, self._none, self._none)
            self._place(self._scalar(event, spot), spot, plain=event.implicit[0])
            return True
        data: Any = {} if isinstance(event, MappingStartEvent) else []
        spot = Spot(line, col, None, {}, {})
        self._place(data, spot)
        self._stack.append(_Open(data, spot, []))
        if len(self._stack) > MAX_DEPTH + 1:
            self._fault(spot.line, spot.col, f"nested deeper than {MAX_DEPTH} levels")
            return False
        return True

    def _scalar(self, event: ScalarEvent, spot: Spot) -> Any:
        if not event.implicit[0]:
            return event.value
        try:
            return _core_scalar(event.value)
        except ValueError as error:
            self._fault(spot.line, spot.col, str(error))
            return None

    def _place(self, value: Any, spot: Spot, *, plain: bool = False) -> None:
        box = self._stack[-1]
        if isinstance(box.data, list):
            box.spot.items[len(box.data)] = spot
            box.data.append(value)
        elif box.key:
            name, _ = box.key.pop()
            box.data[name] = value
            box.spot.items[name] = spot
        else:
            box.key.append((self._key(box, value, spot, plain=plain), spot))

    def _key(self, box: _Open, value: Any, spot: Spot, *, plain: bool) -> str:
        """Return the name of a key, and record what is wrong with it."""
        if not isinstance(value, str):
            self._fault(spot.line, spot.col, self._bad_key(value, spot))
            name = spot.text or ""
        elif plain and value == "<<":
            self._fault(spot.line, spot.col, "merge keys (`<<`) are refused; write the keys out")
            name = value
        else:
            name = value
            if name in box.spot.keys:
                first = box.spot.keys[name][0]
                self._fault(spot.line, spot.col, f"key `{name[:80]}` is given twice; the first is on line {first}")
        box.spot.keys.setdefault(name, (spot.line, spot.col))
        return name

    def _bad_key(self, value: Any, spot: Spot) -> str:
        if isinstance(value, dict | list):
            if "{{" in self._rest(spot.line, max(spot.col - 1, 1)):
                return "`{{ }}` is no syntax here; write `${params.name}`, or quote the text"
            return f"a key must be a text, not a {'mapping' if isinstance(value, dict) else 'list'}"
        return f'a key must be a text; quote it: "{(spot.text or "")[:80]}"'

    def _refuse_properties(self, event: Any, line: int, col: int) -> None:
        if event.anchor is not None:
            self._fault(line, col, f"`&{event.anchor}` is an anchor, and anchors are refused; write the value out")
        if event.tag is not None:
            self._fault(line, col, "tags (`!...`) are refused; write the plain value, quoted if it is a text")

    def _rest(self, line: int, col: int) -> str:
        return self._lines[line - 1][col - 1 : col + _MOST_QUOTED] if line <= len(self._lines) else ""

    def _fault(self, line: int, col: int, message: str) -> None:
        if (line, message) not in ((each[0], each[2]) for each in self._faults[-1:]):
            self._faults.append((line, col, message))
