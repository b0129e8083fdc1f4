"""DAG files: `load_dag` reads one, checks all of it, and returns the model or every fault."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .beneath import is_inside
from .dag_model import Dag, Retries, Task, TriggerRule
from .dag_rules import HOOKS, Entry, Sheet, faults_of
from .errors import Fault, InvalidFile, did_you_mean
from .ownership import directories_between, foreign_faults
from .reference_rules import reference_faults
from .secret_rules import secret_faults
from .yamlfile import At, Document, load_yaml

__all__ = ["Dag", "Retries", "Task", "TriggerRule", "check_params", "dag_owners", "load_dag", "project_of"]

# Known words of later versions: refused by name, so that nobody thinks they work.
_LATER = dict.fromkeys(("pool", "notify"), "")
_INTERNAL = ("project",)
_PATH_CHARS = 500


def load_dag(path: Path, project: Path, *, alone: bool = False) -> Dag:
    """Read a DAG file; a relative `path` starts at `project`. Raises InvalidFile with every fault of the file.

    The DAGs that its tasks run are read too, unless it is to be read `alone`.

    A file that lies outside the project once links are followed is refused; so is one that others may write, when this
    process is root's. A hook without an id gets the name of its list, and its number if there are several
    (`on_failure-2`).
    """
    return _load(path, project, None if alone else ())


def _load(path: Path, project: Path, above: tuple[str, ...] | None) -> Dag:
    """Read a DAG file that those `above` run, each by a task of the one before; None: without those that it runs."""
    full = project / path
    shown = full.relative_to(project) if full.is_relative_to(project) else full
    if not str(path).isprintable():
        raise InvalidFile([Fault(f"{str(path)[:_PATH_CHARS]!r}", 0, 0, "is no path; name a DAG file of the project")])
    if foreign := dag_owners(path, project):
        raise InvalidFile(foreign)
    document = load_yaml(full, shown_as=str(shown)[:_PATH_CHARS], inside=project)
    if document.data is None:
        raise InvalidFile([Fault(document.path, 0, 0, "is empty; a DAG needs `id` and `tasks`")])
    _name_hooks(document.data)
    given = document.data.get("id") if isinstance(document.data, dict) else None
    what = f"dag `{given[:128]}`" if isinstance(given, str) else "dag"
    dag, faults = document.model((), Dag, what, later=_LATER, internal=_INTERNAL)
    sheet = _whole(dag, what) if dag else _parts(document, what)
    faults += [*faults_of(document, sheet), *reference_faults(document, sheet), *secret_faults(document, sheet)]
    if above is not None:
        faults += _child_faults(document, sheet, project, (*above, os.path.relpath(os.path.realpath(full), project)))
    if faults or dag is None:
        raise InvalidFile(sorted(faults, key=lambda fault: fault[1:]))
    return msgspec.structs.replace(dag, project=str(project))


def _child_faults(document: Document, sheet: Sheet, project: Path, above: tuple[str, ...]) -> Iterator[Fault]:
    """Yield what is wrong with the DAGs that tasks run: their files, their params, and that one runs itself."""
    for entry in sheet.entries:
        if entry.task.dag is None or not entry.task.dag.endswith((".yaml", ".yml")):
            continue  # the rules of its kind tell of the second
        at, what, name = (*entry.at, "dag"), f"task `{entry.task.id[:128]}`: `dag`", entry.task.dag
        real = os.path.realpath(project / name)
        if not is_inside(real, os.path.realpath(project)):
            yield document.fault(at, f"{what}: {name[:_PATH_CHARS]!r} lies outside the project {project}")
        elif not os.path.lexists(project / name):
            yield document.fault(at, f"{what}: no such file {name[:_PATH_CHARS]!r} in {project}")
        elif (file := os.path.relpath(real, project)) in above:
            circle = " -> ".join([*above[above.index(file) :], file])
            yield document.fault(at, f"{what}: goes round in a circle: {circle[:_PATH_CHARS]}")
        else:
            yield from _wrong_in_child(document, entry, project, above)


def _wrong_in_child(document: Document, entry: Entry, project: Path, above: tuple[str, ...]) -> Iterator[Fault]:
    what, name = f"task `{entry.task.id[:128]}`", str(entry.task.dag)
    try:
        dag = _load(Path(name), project, above)
    except InvalidFile as error:
        yield document.fault((*entry.at, "dag"), f"{what}: {name[:_PATH_CHARS]} has a fault: {error.faults[0]}")
        return
    for message in check_params(dag, entry.task.params):
        yield document.fault((*entry.at, "params"), f"{what}: {message}")


def dag_owners(path: Path, project: Path) -> list[Fault]:
    """Return what is wrong with the owners and modes of a DAG file and of the directories above it in the project."""
    if os.geteuid() != 0:
        return []
    full = project / path
    places = [*directories_between(project, path), str(full)]
    return [fault for place in places for fault in foreign_faults(place)]


def project_of(path: Path) -> Path:
    """Return the project of a DAG file for which none is named.

    That is the parent of `dags`; or the current directory, if the file is below it; or else the file's own directory.
    """
    full = Path(os.path.abspath(path))
    here = Path.cwd()
    return full.parent.parent if full.parent.name == "dags" else here if full.is_relative_to(here) else full.parent


def check_params(dag: Dag, given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with params given to a DAG: it takes only those it declares."""
    return [
        f"dag `{dag.id}` has no param `{name}`{did_you_mean(name, dag.params) or '; it declares none'}"
        for name in given
        if name not in dag.params
    ]


def _name_hooks(data: Any) -> None:
    if not isinstance(data, dict):
        return
    for hook in HOOKS:
        items = data.get(hook)
        if not isinstance(items, list):
            continue
        for number, item in enumerate(items, start=1):
            if isinstance(item, dict):
                item.setdefault("id", hook if len(items) == 1 else f"{hook}-{number}")


def _whole(dag: Dag, what: str) -> Sheet:
    entries = [Entry(("tasks", n), task, is_hook=False) for n, task in enumerate(dag.tasks)]
    hooks = {hook: getattr(dag, hook) for hook in HOOKS}
    entries += [Entry((hook, n), task, is_hook=True) for hook in HOOKS for n, task in enumerate(hooks[hook])]
    return Sheet(what, dag, entries, {task.id for task in dag.tasks}, set(dag.params))


def _parts(document: Document, what: str) -> Sheet:
    """Return what can be read of a file with faults, so that the rules find theirs in the same pass."""
    data = document.data
    if not isinstance(data, dict):
        return Sheet(what, None, [], set(), set())
    lists = {name: data[name] for name in ("tasks", *HOOKS) if isinstance(data.get(name), list)}
    header = {"tasks": [], **data, **{name: [] for name in lists}}
    dag, _ = document.convert((), header, Dag, what, later=_LATER, internal=_INTERNAL)
    places: list[At] = [(name, n) for name in lists for n in range(len(lists[name]))]
    read = [(at, document.model(at, Task, "", later=_LATER)[0]) for at in places]
    names = {
        task["id"] for task in lists.get("tasks", ()) if isinstance(task, dict) and isinstance(task.get("id"), str)
    }
    params = data.get("params")
    return Sheet(
        what,
        dag,
        [Entry(at, task, is_hook=at[0] != "tasks") for at, task in read if task],
        names,
        set(params) if isinstance(params, dict) else set(),
    )
