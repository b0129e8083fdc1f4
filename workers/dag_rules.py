"""What a DAG file must hold to beyond the types of its keys. Pure: each rule yields faults."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .dag_model import Dag, Retries, Task
from .dag_order import find_cycles
from .errors import Fault, did_you_mean
from .ids import ID_RULE, is_id
from .kind_rules import kind_faults
from .params import PARAM_NAME
from .yamlfile import At, Document

__all__ = ["ENV_NAME", "HOOKS", "OWN_ENV", "Entry", "Sheet", "faults_of"]

HOOKS = ("on_success", "on_failure", "on_exit")

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
OWN_ENV = re.compile(r"RUN_ID|SCHEDULE_ID|FIRE_TIME|ATTEMPT|TASK_ID|RUN_DIR|TASK_OUTPUT|PARAM_.*|TICKPOOL_.*")
_MOST_RETRIES = 1000


class Entry(NamedTuple):
    """One task or hook, and where it stands in the file."""

    at: At
    task: Task
    is_hook: bool


class Sheet(NamedTuple):
    """What could be read of a file. `dag` is None, or has no tasks, where its own keys or its tasks are faulty."""

    what: str
    dag: Dag | None
    entries: list[Entry]
    task_ids: set[str]
    params: set[str]


def faults_of(document: Document, sheet: Sheet) -> list[Fault]:
    """Return every fault that the types alone do not show."""
    faults = list(_dag_faults(document, sheet))
    for entry in sheet.entries:
        faults += _task_faults(document, entry)
    faults += _id_faults(document, sheet)
    faults += _order_faults(document, sheet)
    return faults


def _dag_faults(document: Document, sheet: Sheet) -> Iterator[Fault]:
    dag, what = sheet.dag, sheet.what
    if isinstance(document.data, dict) and document.data.get("tasks") == []:
        yield document.fault(("tasks",), f"{what}: `tasks` is empty; a DAG needs at least one task")
    if dag is None:
        return
    if not is_id(dag.id):
        yield document.fault(("id",), f"{what}: {dag.id[:128]!r} is not an id; {ID_RULE}")
    if dag.max_parallel_tasks < 1:
        yield document.fault(("max_parallel_tasks",), f"{what}: `max_parallel_tasks` must be at least 1")
    for name in dag.params:
        if not PARAM_NAME.fullmatch(name):
            message = (
                f"{what}: {name[:80]!r} is not a param name; write a letter or `_`, then letters, digits, `_`, `-`"
            )
            yield document.fault(("params", name), message, key=True)
    yield from _place_faults(document, (), dag, what)


def _place_faults(document: Document, at: At, item: Dag | Task, what: str) -> Iterator[Fault]:
    """The keys a DAG and a task have in common: `timeout`, `env`, `cwd`."""
    if item.timeout is not None and not item.timeout:
        yield document.fault((*at, "timeout"), f"{what}: `timeout` must be longer than 0s; leave it out for none")
    for name, value in item.env.items():
        if not ENV_NAME.fullmatch(name):
            rule = "write a letter or `_`, then letters, digits and `_`"
            message = f"{what}: {name[:80]!r} is not a name of an environment variable; {rule}"
            yield document.fault((*at, "env", name), message, key=True)
        elif OWN_ENV.fullmatch(name):
            message = f"{what}: `{name[:80]}` is set for every task and may not be set in `env`"
            yield document.fault((*at, "env", name), message, key=True)
        if "\0" in value:
            yield document.fault((*at, "env", name), f"{what}: `env.{name}` holds a NUL, which no process can be given")
    if item.cwd is not None and (rule := _cwd_rule(item.cwd)):
        yield document.fault((*at, "cwd"), f"{what}: `cwd` {rule}")


def _cwd_rule(cwd: str) -> str:
    if not cwd or "\0" in cwd:
        return "must name a directory"
    if "${" in cwd:
        return "takes no references; use them in `run`, `env`, `args` and `params`"
    if not os.path.isabs(cwd) and os.path.normpath(cwd).split(os.sep)[0] == os.pardir:
        return f"leaves the project directory: {cwd[:80]!r}; write an absolute path to mean that"
    return ""


def _task_faults(document: Document, entry: Entry) -> Iterator[Fault]:
    at, task = entry.at, entry.task
    what = _what(task)
    keys = _keys(document, at)
    if not is_id(task.id):
        yield document.fault((*at, "id"), f"task: {task.id[:128]!r} is not an id; {ID_RULE}")
    yield from kind_faults(document, at, task, is_hook=entry.is_hook)
    for name in ("needs", "trigger_rule"):
        if entry.is_hook and name in keys:
            yield document.fault((*at, name), f"{what}: `{name}` does not go with a hook", key=True)
    yield from _run_faults(document, at, task, what)
    for code in task.skip_on_exit_code:
        if not 0 <= code <= 255:
            message = f"{what}: `skip_on_exit_code` {code} is no exit code; they go from 0 to 255"
            yield document.fault((*at, "skip_on_exit_code", task.skip_on_exit_code.index(code)), message)
    yield from _retries_faults(document, (*at, "retries"), task.retries, what)
    yield from _place_faults(document, at, task, what)


def _run_faults(document: Document, at: At, task: Task, what: str) -> Iterator[Fault]:
    argv = (task.run,) if isinstance(task.run, str) else task.run
    if argv is None:
        return
    if not argv or not argv[0].strip():
        yield document.fault((*at, "run"), f"{what}: `run` names no command")
    for number, part in enumerate(argv):
        if "\0" in part:
            yield document.fault((*at, "run", number), f"{what}: `run` holds a NUL, which no process can be given")


def _retries_faults(document: Document, at: At, retries: Retries, what: str) -> Iterator[Fault]:
    if not 0 <= retries.max <= _MOST_RETRIES:
        yield document.fault(
            (*at, "max"), f"{what}: `retries.max` must be from 0 to {_MOST_RETRIES}, got {retries.max}"
        )
    if not 1 <= retries.backoff <= 100:
        message = f"{what}: `retries.backoff` must be from 1 to 100, got {retries.backoff:g}"
        yield document.fault((*at, "backoff"), message)
    if retries.delay > retries.max_delay:
        message = f"{what}: `retries.delay` ({retries.delay}) is longer than `max_delay` ({retries.max_delay})"
        yield document.fault((*at, "delay"), message)


def _id_faults(document: Document, sheet: Sheet) -> Iterator[Fault]:
    first: dict[str, At] = {}
    for entry in sheet.entries:
        name = entry.task.id
        if name in first:
            line = document.fault((*first[name], "id"), "").line
            message = f"task id `{name}` is given twice; the first is on line {line}"
            yield document.fault((*entry.at, "id"), message)
        first.setdefault(name, entry.at)


def _order_faults(document: Document, sheet: Sheet) -> Iterator[Fault]:
    tasks = [entry for entry in sheet.entries if not entry.is_hook]
    for entry in tasks:
        for number, name in enumerate(entry.task.needs):
            at = (*entry.at, "needs", number)
            if name == entry.task.id:
                yield document.fault(at, f"{_what(entry.task)}: needs itself")
            elif name not in sheet.task_ids:
                near = did_you_mean(name, sheet.task_ids - {entry.task.id})
                yield document.fault(at, f"{_what(entry.task)}: needs unknown task `{name[:128]}`{near}")
    places = {entry.task.id: entry.at for entry in tasks}
    for cycle in find_cycles({entry.task.id: entry.task.needs for entry in tasks}):
        message = f"{_what_id(cycle[0])}: `needs` goes round in a circle: {' -> '.join(cycle)}"
        yield document.fault((*places[cycle[0]], "needs"), message, key=True)


def _keys(document: Document, at: At) -> Mapping[str, Any]:
    data = document.data
    for step in at:
        data = data[step]
    keys: Mapping[str, Any] = data
    return keys


def _what(task: Task) -> str:
    return _what_id(task.id)


def _what_id(name: str) -> str:
    return f"task `{name[:128]}`"
