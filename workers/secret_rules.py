"""What a DAG file must hold to in its `secrets`: which names there may be, and who may name them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .dag_model import Task
from .dag_rules import ENV_NAME, OWN_ENV, Sheet
from .errors import Fault, did_you_mean
from .settings import INHERITED
from .yamlfile import At, Document

__all__ = ["secret_faults"]

_TAKEN = ("DAG_ID", "TASK_ATTEMPT", "RUN_STATUS", "RUN_REASON", "CREDENTIALS_DIRECTORY")


def secret_faults(document: Document, sheet: Sheet) -> list[Fault]:
    """Return every fault of the `secrets` of a DAG, its tasks and its hooks, and of an `env` that sets one of them."""
    faults = []
    if sheet.dag is not None:
        faults += list(_declared_faults(document, sheet.dag.secrets, sheet.what))
        faults += list(_env_faults(document, (), sheet.dag.env, sheet.dag.secrets, sheet.what))
    for entry in sheet.entries:
        faults += list(_task_faults(document, entry.at, entry.task, sheet))
    # Where a task cannot be read, nobody knows what it names.
    if sheet.dag is not None and sheet.dag.tasks:
        named = {name for entry in sheet.entries for name in entry.task.secrets}
        for number, name in enumerate(sheet.dag.secrets):
            if name not in named:
                message = f"{sheet.what}: no task and no hook names the secret `{name[:80]}`; add it to one's `secrets`"
                faults.append(document.fault(("secrets", number), message))
    return faults


def _declared_faults(document: Document, names: Sequence[str], what: str) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if rule := _name_rule(name):
            yield document.fault(("secrets", number), f"{what}: `secrets`: {rule}")
    yield from _repeated(document, ("secrets",), names, what)


def _name_rule(name: str) -> str:
    if not ENV_NAME.fullmatch(name):
        return f"{name[:80]!r} is not a name of a secret; write a letter or `_`, then letters, digits and `_`"
    if OWN_ENV.fullmatch(name) or name in _TAKEN:
        return f"`{name[:80]}` has a meaning of its own and cannot be a secret"
    if name in INHERITED or name.startswith("LC_"):
        return f"`{name[:80]}` is given to every task and cannot be a secret"
    return ""


def _task_faults(document: Document, at: At, task: Task, sheet: Sheet) -> Iterator[Fault]:
    what = f"task `{task.id[:128]}`"
    if task.secrets and task.call is not None and not task.isolate:
        why = "a callable with `isolate: false` has no environment of its own, so every task of the worker would see it"
        yield document.fault((*at, "secrets"), f"{what}: `secrets` does not go with `isolate: false`: {why}", key=True)
    yield from _repeated(document, (*at, "secrets"), task.secrets, what)
    if sheet.dag is None:
        return
    declared = sheet.dag.secrets
    for number, name in enumerate(task.secrets):
        if name not in declared:
            near = did_you_mean(name, declared) or "; it declares none, add `secrets` to the DAG"
            message = f"{what}: {sheet.what} declares no secret `{name[:80]}`{near}"
            yield document.fault((*at, "secrets", number), message)
    yield from _env_faults(document, at, task.env, declared, what)


def _repeated(document: Document, at: At, names: Sequence[str], what: str) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield document.fault((*at, number), f"{what}: `secrets` names `{name[:80]}` twice")


def _env_faults(document: Document, at: At, env: dict[str, str], names: Sequence[str], what: str) -> Iterator[Fault]:
    for name in env:
        if name in names:
            message = f"{what}: `{name[:80]}` is a secret and may not be set in `env`"
            yield document.fault((*at, "env", name), message, key=True)
