"""Plain data to msgspec Structs where something is wrong: every fault, each with its place, value and rule.

msgspec.convert is the quick way and stops at the first fault; this is the slow way, taken when that has failed.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin

import msgspec

from .errors import Fault, TickpoolError, did_you_mean
from .units import Duration

__all__ = ["Converter", "read_duration", "shown"]

At = tuple[str | int, ...]
T = TypeVar("T", bound=msgspec.Struct)

_SCALARS: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_BAD: Any = object()


class PlaceFault(Protocol):
    """Makes a Fault from a path into a file (`Document.fault`)."""

    def __call__(self, at: At, message: str, *, key: bool = False) -> Fault: ...


def read_duration(expected: type, value: Any) -> Any:
    """Read a Duration for msgspec (a `dec_hook`). Raises InvalidDuration."""
    if expected is Duration:
        return Duration.parse(value)
    raise NotImplementedError(expected)


def shown(value: object) -> str:
    """Return a value short enough for a message."""
    if isinstance(value, dict | list):
        return ("a mapping" if isinstance(value, dict) else "a list") if value else ("{}" if value == {} else "[]")
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


class Converter:
    """Converts and collects `faults`. `text_at` gives a scalar as written, for numbers where a text is expected."""

    def __init__(
        self,
        fault: PlaceFault,
        text_at: Callable[[At], str | None],
        later: Mapping[str, str],
        internal: Collection[str],
    ) -> None:
        self.faults: list[Fault] = []
        self._fault = fault
        self._text_at = text_at
        self._later = later
        self._internal = internal

    def struct(self, at: At, data: Any, cls: type[T], what: str, within: str = "") -> T | None:
        """Return the Struct `data` says, or None after noting what is wrong. `within` is the key path inside `what`."""
        if not isinstance(data, dict):
            self._note(at, what, within.removesuffix("."), f"expected a mapping, got {shown(data)}")
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        before = len(self.faults)
        self._check_keys(at, data, {name: field.required for name, field in fields.items()}, what, within)
        values = {
            fields[name].name: self._value((*at, name), data[name], fields[name].type, what, f"{within}{name}")
            for name in data
            if name in fields and name not in self._internal
        }
        if len(self.faults) > before:
            return None
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            self._note(at, what, within.removesuffix("."), str(error))
            return None

    def _check_keys(self, at: At, data: dict[str, Any], required: dict[str, bool], what: str, within: str) -> None:
        allowed = [name for name in required if name not in self._internal]
        for name in data:
            if name in allowed:
                continue
            if name in self._later:
                hint = f"; {self._later[name]}" if self._later[name] else ""
                message = f"{what}: `{within}{name}` is not available in this version{hint}"
            else:
                message = f"{what}: unknown key `{within}{name[:80]}`{did_you_mean(name[:80], allowed)}"
            self.faults.append(self._fault((*at, name), message, key=True))
        for name in allowed:
            if required[name] and name not in data:
                self.faults.append(self._fault(at, f"{what}: `{within}{name}` is missing"))

    def _note(self, at: At, what: str, within: str, message: str) -> Any:
        self.faults.append(self._fault(at, f"{what}: `{within}`: {message}" if within else f"{what}: {message}"))
        return _BAD

    def _value(self, at: At, data: Any, hint: Any, what: str, within: str) -> Any:
        """Return `data` as the type `hint` says, or note the fault."""
        origin, arguments = get_origin(hint), get_args(hint)
        if hint is Any:
            return data
        if origin in (Union, types.UnionType):
            hint = _arm(data, arguments)
            if hint is None:
                return self._note(at, what, within, f"expected {_either(arguments)}, got {shown(data)}")
            return self._value(at, data, hint, what, within)
        if origin in (tuple, list):
            return self._list(at, data, hint, what, within)
        if origin is dict or hint is dict:
            return self._dict(at, data, hint, what, within)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.struct(at, data, hint, what, f"{within}.")
        return self._scalar(at, data, hint, what, within)

    def _list(self, at: At, data: Any, hint: Any, what: str, within: str) -> Any:
        item = get_args(hint)[0]
        is_struct = isinstance(item, type) and issubclass(item, msgspec.Struct)
        if not isinstance(data, list):
            if is_struct or isinstance(data, dict) or data is None:
                return self._note(at, what, within, f"expected {_rule(hint)}, got {shown(data)}")
            return get_origin(hint)([self._value(at, data, item, what, within)])
        if is_struct:
            values = [self.struct((*at, n), each, item, _name(item, each, n)) for n, each in enumerate(data)]
        else:
            values = [self._value((*at, n), each, item, what, f"{within}[{n}]") for n, each in enumerate(data)]
        return get_origin(hint)(values)

    def _dict(self, at: At, data: Any, hint: Any, what: str, within: str) -> Any:
        if not isinstance(data, dict):
            return self._note(at, what, within, f"expected a mapping, got {shown(data)}")
        item = (get_args(hint) or (str, Any))[1]
        return {name: self._value((*at, name), each, item, what, f"{within}.{name}") for name, each in data.items()}

    def _scalar(self, at: At, data: Any, hint: Any, what: str, within: str) -> Any:
        if hint is str and isinstance(data, bool | int | float):
            written = self._text_at(at)
            return str(data) if written is None else written
        try:
            return msgspec.convert(data, hint, dec_hook=read_duration)
        except TickpoolError as error:
            return self._note(at, what, within, str(error))
        except (msgspec.ValidationError, UnicodeEncodeError):  # a lone surrogate where a number is expected
            if get_origin(hint) is Literal and isinstance(data, str):
                near = did_you_mean(data, [str(word) for word in get_args(hint)])
                return self._note(at, what, within, f"{shown(data)} is not one of its values{near}")
            return self._note(at, what, within, f"expected {_rule(hint)}, got {shown(data)}")


def _name(cls: type, data: Any, index: int) -> str:
    """Name one of several: "task `clean`", or "task 3" when it has no id."""
    given = data.get("id") if isinstance(data, dict) else None
    word = cls.__name__.lower()
    return f"{word} `{given[:128]}`" if isinstance(given, str) else f"{word} {index + 1}"


def _arm(data: Any, arms: tuple[Any, ...]) -> Any:
    """Return the arm of a union that fits the shape of the data, or None."""
    if data is None:
        return types.NoneType if types.NoneType in arms else None
    for arm in arms:
        origin = get_origin(arm) or arm
        is_struct = isinstance(arm, type) and issubclass(arm, msgspec.Struct)
        fits_list = isinstance(data, list) and origin in (list, tuple)
        fits_dict = isinstance(data, dict) and (origin is dict or is_struct)
        if fits_list or fits_dict or arm is type(data):
            return arm
    if isinstance(data, dict | list):
        return None
    left = [arm for arm in arms if arm is not types.NoneType and (get_origin(arm) or arm) not in (dict, list)]
    return next((arm for arm in left if get_origin(arm) is not tuple), left[0] if left else None)


def _rule(hint: Any) -> str:
    """Say in words what a type allows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _either(arguments)
    if origin is Annotated:
        bounds = {"from": hint.__metadata__[0].ge, "to": hint.__metadata__[0].le}
        return " ".join([_rule(arguments[0]), *(f"{word} {n}" for word, n in bounds.items() if n is not None)])
    if origin is Literal:
        return "one of " + ", ".join(str(word) for word in arguments)
    if origin in (tuple, list):
        return f"a list of {_rule(arguments[0]).removeprefix('a ')}s"
    if origin is dict or (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
        return "a mapping"
    return _SCALARS.get(hint, "a duration" if hint is Duration else str(hint))


def _either(arms: tuple[Any, ...]) -> str:
    return " or ".join(_rule(arm) for arm in arms if arm is not types.NoneType)
