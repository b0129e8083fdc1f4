"""What the kinds of task must hold to: which keys go together, and what each kind's own keys may say. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from .dag_model import ANY_END, KINDS, STATUSES, Approval, Http, Task, Wait
from .errors import Fault, did_you_mean
from .ids import is_run_id
from .units import read_instant
from .yamlfile import At, Document

__all__ = ["MOST_ITEMS", "WAITS", "kind_faults"]

MOST_ITEMS = 1000
# What a `wait` can be for; each has one of them.
WAITS = ("file", "port", "http", "time", "delay", "run")
# The kinds that each of these keys goes with.
_GOES_WITH = {
    "args": ("call",),
    "isolate": ("call",),
    "params": ("dag",),
    "env": ("run", "call"),
    "cwd": ("run", "call"),
    "secrets": ("run", "call", "http", "wait"),
    "retries": ("run", "call", "http", "wait", "dag"),
    "skip_on_exit_code": ("run", "call"),
}
# A hook runs when the run's tasks have ended: nothing may hold up the run's own end.
_HOOK_KINDS = ("run", "call", "http")
_URL = re.compile(r"https?://[^\s/].*|.*\$\{.*")
_STATUS = re.compile(r"[1-5]xx|[1-5][0-9][0-9]")
_PORT = re.compile(r"(?P<host>[^\s:]+|\[[0-9A-Fa-f:]+\]):(?P<port>[0-9]{1,5})")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?")
_CALL = re.compile(r"[^:]+:[^:]+")


def kind_faults(document: Document, at: At, task: Task, *, is_hook: bool) -> Iterator[Fault]:
    """Yield what is wrong with the kind of a task, and with the keys that depend on it."""
    what = f"task `{task.id[:128]}`"
    given = [kind for kind in KINDS if getattr(task, kind) is not None]
    if not given:
        yield document.fault(at, f"{what}: needs one of {_names(KINDS)}, and has none")
    for kind in given[1:]:
        yield document.fault((*at, kind), f"{what}: has both `{given[0]}` and `{kind}`; leave one out", key=True)
    if is_hook and given and given[0] not in _HOOK_KINDS:
        message = f"{what}: `{given[0]}` does not go with a hook; it may be {_names(_HOOK_KINDS)}"
        yield document.fault((*at, given[0]), message, key=True)
    keys = _mapping(document, at)
    for name, kinds in _GOES_WITH.items():
        if name in keys and given and given[0] not in kinds:
            yield document.fault((*at, name), f"{what}: `{name}` goes with {_names(kinds)} only", key=True)
    if isinstance(task.approval, Approval) and task.approval.default is not None and task.timeout is None:
        rule = "`default` is what counts after the task's `timeout`, and it has none"
        yield document.fault((*at, "approval", "default"), f"{what}: `approval`: {rule}", key=True)
    for kind in given[:1]:
        if kind in _RULES:
            yield from _RULES[kind](document, (*at, kind), getattr(task, kind), f"{what}: `{kind}`")
    yield from _foreach_faults(document, at, task, what, is_hook=is_hook)


def _foreach_faults(document: Document, at: At, task: Task, what: str, *, is_hook: bool) -> Iterator[Fault]:
    keys = _mapping(document, at)
    if task.foreach is None:
        if "max_parallel" in keys:
            message = f"{what}: `max_parallel` goes with `foreach` only; the DAG has `max_parallel_tasks`"
            yield document.fault((*at, "max_parallel"), message, key=True)
        return
    if is_hook:
        yield document.fault((*at, "foreach"), f"{what}: `foreach` does not go with a hook", key=True)
    if task.max_parallel is not None and task.max_parallel < 1:
        yield document.fault((*at, "max_parallel"), f"{what}: `max_parallel` must be at least 1")
    if isinstance(task.foreach, str):
        if not re.fullmatch(r"\$\{[^}]*\}", task.foreach):
            rule = "write a list, or one reference to one, such as `${tasks.find.outputs.files}`"
            yield document.fault((*at, "foreach"), f"{what}: `foreach` is {task.foreach[:80]!r}; {rule}")
    elif len(task.foreach) > MOST_ITEMS:
        yield document.fault((*at, "foreach"), f"{what}: `foreach` has {len(task.foreach)} items; at most {MOST_ITEMS}")


def _call_faults(document: Document, at: At, call: str, what: str) -> Iterator[Fault]:
    module, _, function = call.partition(":")
    if not _CALL.fullmatch(call) or not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        yield document.fault(at, f"{what} is {call[:80]!r}; write `module:function`, such as `jobs.clean:main`")


def _http_faults(document: Document, at: At, http: str | Http, what: str) -> Iterator[Fault]:
    if isinstance(http, str):
        http, url_at = Http(http), at
    else:
        url_at = (*at, "url")
    if not _URL.fullmatch(http.url):
        yield document.fault(url_at, f"{what}: {http.url[:80]!r} is no address; write `https://host/path`")
    if http.body is not None and http.json is not None:
        yield document.fault((*at, "json"), f"{what}: has both `body` and `json`; leave one out", key=True)
    for name, value in http.headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):  # a token of RFC 9110, section 5.6.2
            yield document.fault((*at, "headers", name), f"{what}: {name[:80]!r} is no name of a header", key=True)
        elif re.search(r"[\r\n\0]", value):
            yield document.fault((*at, "headers", name), f"{what}: header `{name[:80]}` holds a line break or a NUL")
    for number, status in enumerate(http.expect):
        if not _STATUS.fullmatch(status):
            rule = "write a status such as 201, or a class such as 2xx"
            yield document.fault((*at, "expect", number), f"{what}: `expect` {status[:40]!r}: {rule}")
    if not http.expect:
        yield document.fault((*at, "expect"), f"{what}: `expect` is empty, so no answer would be good")
    if not http.timeout:
        yield document.fault((*at, "timeout"), f"{what}: `timeout` must be longer than 0s")


def _wait_faults(document: Document, at: At, wait: Wait, what: str) -> Iterator[Fault]:
    given = [name for name in WAITS if getattr(wait, name) is not None]
    keys = _mapping(document, at)
    if not given:
        yield document.fault(at, f"{what}: needs one of {_names(WAITS)}, and has none")
    for name in given[1:]:
        yield document.fault((*at, name), f"{what}: has both `{given[0]}` and `{name}`; leave one out", key=True)
    for name, goes_with in {"every": ("file", "port", "http"), "timezone": ("time",), "status": ("run",)}.items():
        if name in keys and given and given[0] not in goes_with:
            yield document.fault((*at, name), f"{what}: `{name}` goes with {_names(goes_with)} only", key=True)
    if not wait.every:
        yield document.fault((*at, "every"), f"{what}: `every` must be longer than 0s")
    if wait.http is not None:
        yield from _http_faults(document, (*at, "http"), wait.http, f"{what}: `http`")
    for name, rule in _wrong_in(wait):
        yield document.fault((*at, name), f"{what}: `{name}`: {rule}")


def _wrong_in(wait: Wait) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong with its value); what has references is looked at when the task runs."""
    if wait.file is not None and (not wait.file or "\0" in wait.file):
        yield "file", "must name a file"
    if wait.port is not None and "${" not in wait.port and not is_port(wait.port):
        yield "port", f"{wait.port[:80]!r} is no place to connect to; write `host:port`, such as `127.0.0.1:5432`"
    if wait.time is not None and "${" not in wait.time and not is_time(wait.time):
        yield "time", f"{wait.time[:80]!r} is no time; write `06:30`, or an ISO 8601 time with its zone"
    if wait.run is not None and "${" not in wait.run and not is_run_id(wait.run):
        yield "run", f"{wait.run[:80]!r} is no id of a schedule or a run"
    try:
        ZoneInfo(wait.timezone)
    except (ValueError, OSError, LookupError):
        yield "timezone", f"unknown time zone {wait.timezone[:80]!r}; write one such as Europe/Paris"
    for status in wait.status:
        if status not in (*STATUSES, ANY_END):
            yield "status", f"{status[:40]!r} is no end of a run{did_you_mean(status, (*STATUSES, ANY_END))}"


def is_port(text: str) -> bool:
    """Say whether a text is `host:port`, with an IPv6 address in brackets."""
    found = _PORT.fullmatch(text)
    return found is not None and 0 < int(found["port"]) < 65536


def is_time(text: str) -> bool:
    """Say whether a text is a time of day, or a moment with its zone, before the year 9999."""
    return bool(_CLOCK.fullmatch(text)) or read_instant(text) is not None


def _dag_faults(document: Document, at: At, dag: str, what: str) -> Iterator[Fault]:
    if not dag.endswith((".yaml", ".yml")) or "${" in dag or not dag.isprintable():
        yield document.fault(at, f"{what} is {dag[:80]!r}; name a DAG file of the project, such as `dags/load.yaml`")


def _approval_faults(document: Document, at: At, approval: str | Approval, what: str) -> Iterator[Fault]:
    message = approval if isinstance(approval, str) else approval.message
    if len(message) > 1000:
        yield document.fault(at, f"{what}: the message has {len(message)} characters; at most 1000")


_RULES: Mapping[str, Callable[[Document, At, Any, str], Iterator[Fault]]] = {
    "call": _call_faults,
    "http": _http_faults,
    "wait": _wait_faults,
    "dag": _dag_faults,
    "approval": _approval_faults,
}


def _mapping(document: Document, at: At) -> Mapping[str, Any]:
    data = document.data
    for step in at:
        data = data[step]
    return data if isinstance(data, dict) else {}


def _names(names: tuple[str, ...]) -> str:
    listed = [f"`{name}`" for name in names]
    return " and ".join([", ".join(listed[:-1]), listed[-1]]) if len(listed) > 1 else listed[0]
