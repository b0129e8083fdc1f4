"""What the references of a DAG file must hold to: each names what is there, and what has ended before. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .dag_order import upstream_test
from .dag_rules import Entry, Sheet
from .errors import Fault, TickpoolError
from .params import UnknownReference, parse_reference, references, shell_references
from .yamlfile import At, Document

__all__ = ["reference_faults"]

# The keys of a task whose values may have references.
_FIELDS = ("run", "env", "args", "http", "wait", "params", "approval", "foreach")
# Those whose values reach no command line, where all users of the machine could read them.
_SECRET_FIELDS = ("http", "wait")


def reference_faults(document: Document, sheet: Sheet) -> Iterator[Fault]:
    """Yield a fault for each reference to what is not there, or not known yet, where it stands."""
    if sheet.dag is not None:
        for key, value in (("params", sheet.dag.params), ("env", sheet.dag.env)):
            for at, problem, name in _names((key,), value):
                if rule := problem or _dag_rule(name, key, sheet):
                    yield document.fault(at, f"{sheet.what}: `{key}`: {rule}")
    is_upstream = _upstream(sheet)
    for entry in sheet.entries:
        task = entry.task
        values = document.data
        for step in entry.at:
            values = values[step]
        for key in _FIELDS:
            value = values.get(key)
            for at, problem, name in _names((*entry.at, key), value, is_shell=key == "run" and isinstance(value, str)):
                if rule := problem or _task_rule(name, key, entry, sheet, is_upstream):
                    yield document.fault(at, f"task `{task.id[:128]}`: `{key}`: {rule}")


def _upstream(sheet: Sheet) -> Callable[[str, str], bool]:
    tasks = [entry.task for entry in sheet.entries if not entry.is_hook]
    return upstream_test({task.id: task.needs for task in tasks})


def _names(at: At, value: Any, *, is_shell: bool = False) -> Iterator[tuple[At, str, str]]:
    """Yield (place, what is wrong with it, name) of each reference in nested data."""
    if isinstance(value, str):
        if "${" not in value:
            return
        try:
            names = list(shell_references(value) if is_shell else references(value))
        except TickpoolError as error:
            yield at, str(error), ""
            return
        yield from ((at, "", name) for name in names)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _names((*at, key), each)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _names((*at, number), each)


def _dag_rule(name: str, key: str, sheet: Sheet) -> str:
    """Say what is wrong with a reference outside the tasks, where no task has run yet."""
    try:
        space, _, rest = parse_reference(name)
        if space == "params" and key == "env":
            _check_param(name, rest, sheet)
        elif space != "run":
            allowed = "`run.NAME`" if key == "params" else "`params.NAME` and `run.NAME`"
            return f"`{name[:128]}` is not known here; only {allowed} are"
    except TickpoolError as error:
        return str(error)
    return ""


def _task_rule(name: str, key: str, entry: Entry, sheet: Sheet, is_upstream: Callable[[str, str], bool]) -> str:
    """Say what is wrong with a reference in a task; a hook may name every task, for all have ended."""
    if key in _SECRET_FIELDS and name.startswith("secrets."):
        secret = name.removeprefix("secrets.")
        return "" if secret in entry.task.secrets else f"`{name[:128]}`: add `{secret[:80]}` to the task's `secrets`"
    try:
        space, other, rest = parse_reference(name)
        if space == "item" and (entry.task.foreach is None or key == "foreach"):
            return f"`{name[:128]}` is known only in a task with `foreach`, and not in that key itself"
        if space == "params":
            _check_param(name, rest, sheet)
        elif space == "tasks" and other not in sheet.task_ids:
            raise UnknownReference(name, tuple(f"tasks.{each}.outputs.{rest}" for each in sheet.task_ids))
        elif space == "tasks" and not entry.is_hook and not is_upstream(other, entry.task.id):
            return f"`{name}` is not upstream of `{entry.task.id}`; add `{other}` to its `needs`"
    except TickpoolError as error:
        return str(error)
    return ""


def _check_param(dotted: str, name: str, sheet: Sheet) -> None:
    if name not in sheet.params:
        raise UnknownReference(dotted, tuple(f"params.{each}" for each in sheet.params))
