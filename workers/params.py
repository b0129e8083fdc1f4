"""`${dotted.name}` references: no template language, one value for one name, and unknown names are errors.

`$${` is a literal `${`. Namespaces: `params.NAME`, `run.id` and its like, `tasks.ID.outputs.NAME`, and, in a task with
`foreach`, `item` or `item.NAME`.
In a list element, an `env` value or an argument every `${...}` must be a reference; in a shell string only dotted ones
are, since `${HOME}` is the shell's own. The value of a reference is never itself searched for references.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .errors import TickpoolError, did_you_mean
from .shelltext import Insertion, InvalidReference, split_shell

__all__ = [
    "PARAM_NAME",
    "RUN_NAMES",
    "InvalidReference",
    "Lookup",
    "Reference",
    "UnknownReference",
    "UnusableValue",
    "parse_reference",
    "references",
    "resolve",
    "resolve_params",
    "resolve_text",
    "scope",
    "shell",
    "shell_references",
]

Lookup = Callable[[str], Any]

RUN_NAMES = ("id", "fire_time", "fire_date", "attempt", "dir", "schedule_id", "dag_id")
PARAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)(\})?")
_OUTPUT = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)\.outputs\.([A-Za-z0-9_-]+)")
_PART = re.compile(r"[A-Za-z0-9_-]+")
_NO_ITEM: Any = object()
_FORMS = {"unquoted": '"${%s}"', "double": "${%s}", "single": "'\"${%s}\"'"}


class UnknownReference(TickpoolError):
    """A reference nothing answers to: (the name, the names there are)."""

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(name, known)

    def __str__(self) -> str:
        name, known = self.args
        return f"unknown reference `{name}`{did_you_mean(name, known)}"


class UnusableValue(TickpoolError):
    """A value that cannot be written into a text: (the reference's name, why)."""

    def __str__(self) -> str:
        return f"the value of `{self.args[0]}` cannot be used: {self.args[1]}"


class Reference(NamedTuple):
    """A parsed name: `space` is params, run, tasks or item; `task` is empty but for tasks; `name` is the last part."""

    space: str
    task: str
    name: str


def parse_reference(dotted: str) -> Reference:
    """Read what stands between `${` and `}`. Raises InvalidReference, or UnknownReference for a `run.` name.

    A task id may hold dots, an output's name may not: the last `.outputs.` divides them.
    """
    space, _, rest = dotted.partition(".")
    if space == "item" and (dotted == "item" or _PART.fullmatch(rest)):
        return Reference(space, "", rest)
    if not rest:
        why = f"names are dotted (`params.x`, `run.id`, `tasks.x.outputs.y`); write `$${{{dotted[:80]}}}` for a literal"
        raise InvalidReference(dotted, why)
    if space == "params" and PARAM_NAME.fullmatch(rest):
        return Reference(space, "", rest)
    if space == "run":
        if rest not in RUN_NAMES:
            raise UnknownReference(dotted, tuple(f"run.{name}" for name in RUN_NAMES))
        return Reference(space, "", rest)
    if space == "tasks" and (match := _OUTPUT.fullmatch(rest)):
        return Reference(space, match[1], match[2])
    if space == "secrets":
        name = rest[:80]
        why = f"name `{name}` in the task's `secrets`; it comes as the environment variable `{name}`"
        raise InvalidReference(dotted, why)
    raise InvalidReference(
        dotted, "write `params.NAME`, `run.NAME`, `tasks.ID.outputs.NAME` or `item`; `$${` is a literal `${`"
    )


def references(value: Any) -> Iterator[str]:
    """Yield the names referred to anywhere in nested data (not a shell string). Raises InvalidReference."""
    if isinstance(value, str):
        yield from _names(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def resolve(value: Any, lookup: Lookup) -> Any:
    """Return nested data with each reference replaced; a text that is one reference takes the value's own type.

    Raises what `lookup` raises (UnknownReference) and InvalidReference.
    """
    if isinstance(value, str):
        token = _TOKEN.fullmatch(value)
        if token is not None and token[1] is not None and token[2]:
            return lookup(token[1])
        return resolve_text(value, lookup)
    if isinstance(value, Mapping):
        return {key: resolve(each, lookup) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(each, lookup) for each in value]
    return value


def resolve_text(template: str, lookup: Lookup) -> str:
    """Return `template` with each reference replaced by its value as text: JSON for what is no text itself.

    Raises what `lookup` raises (UnknownReference), InvalidReference, and UnusableValue for a NUL.
    """
    if "${" not in template:
        return template
    return _TOKEN.sub(lambda token: "${" if token[1] is None else _as_text(_name(token), lookup), template)


def resolve_params(declared: Mapping[str, Any], given: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a run: the DAG's defaults, whose references may name `run.*` only, under what was given."""
    defaults = {name: value for name, value in declared.items() if name not in given}
    return {**resolve(defaults, scope({}, run, {})), **given}


def scope(
    params: Mapping[str, Any],
    run: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
    item: Any = _NO_ITEM,
) -> Lookup:
    """Return the lookup of one task: `run` by short name (`id`), `outputs` by task id, `item` where it has `foreach`.

    It raises UnknownReference.
    """

    def lookup(dotted: str) -> Any:
        space, task, name = parse_reference(dotted)
        if space == "item":
            return _of_item(dotted, name, item)
        if space == "tasks":
            if task not in outputs:
                raise UnknownReference(dotted, tuple(f"tasks.{each}.outputs.{name}" for each in outputs))
            values, prefix = outputs[task], f"tasks.{task}.outputs."
        else:
            values, prefix = (params if space == "params" else run), f"{space}."
        if name not in values:
            raise UnknownReference(dotted, tuple(f"{prefix}{each}" for each in values))
        return values[name]

    return lookup


def _of_item(dotted: str, name: str, item: Any) -> Any:
    if item is _NO_ITEM:
        raise UnknownReference(dotted)
    if not name:
        return item
    if not isinstance(item, Mapping) or name not in item:
        raise UnknownReference(
            dotted, tuple(f"item.{each}" for each in item) if isinstance(item, Mapping) else ("item",)
        )
    return item[name]


def shell(command: str, lookup: Lookup) -> tuple[str, dict[str, str]]:
    """Return the command for `sh -c` and the environment variables it needs.

    A value is never pasted: each reference becomes the expansion of a variable that carries it, quoted as its place
    asks for, so no value can be read as code and each arrives as one word, byte for byte.
    Raises InvalidReference where the shell would not expand it, what `lookup` raises, and UnusableValue for a NUL.
    """
    if "${" not in command:
        return command, {}
    variables: dict[str, str] = {}
    parts = []
    for piece in split_shell(command):
        if isinstance(piece, Insertion):
            variable = variables.setdefault(piece.name, f"TICKPOOL_REF_{len(variables) + 1}")
            parts.append(_FORMS[piece.context] % variable)
        else:
            parts.append(piece)
    return "".join(parts), {variable: _as_text(name, lookup) for name, variable in variables.items()}


def shell_references(command: str) -> Iterator[str]:
    """Yield the names a shell string refers to. Raises InvalidReference as `shell` does."""
    if "${" in command:
        yield from (piece.name for piece in split_shell(command) if isinstance(piece, Insertion))


def _names(template: str) -> Iterator[str]:
    if "${" in template:
        yield from (_name(token) for token in _TOKEN.finditer(template) if token[1] is not None)


def _name(token: re.Match[str]) -> str:
    if not token[2]:
        raise InvalidReference(token[1], "its `${` is never closed by `}`; write `$${` for a literal `${`")
    return token[1]


def _as_text(name: str, lookup: Lookup) -> str:
    value = lookup(name)
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\0" in written:
        raise UnusableValue(name, "it holds a NUL byte")
    return written
