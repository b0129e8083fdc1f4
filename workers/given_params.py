"""The params that a person gives to one run: texts, read as the DAG's defaults ask for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .dag import Dag, check_params
from .errors import Fault, InvalidFile, TickpoolError, did_you_mean

__all__ = ["InvalidParam", "checked_params"]


class InvalidParam(TickpoolError):
    """A `-p` that cannot be used: (what was written, why)."""

    def __str__(self) -> str:
        return f"-p {self.args[0]}: {self.args[1]}"


def checked_params(
    dag: Dag, shown: str, given: Sequence[str], known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the params of a run from `NAME=VALUE` texts, over those `known`; `shown` is the DAG's name in messages.

    Raises InvalidParam, and InvalidFile for params that the DAG does not take.
    """
    params = {**(known or {}), **_read_params(dag, given)}
    wrong = check_params(dag, params)
    if wrong:
        raise InvalidFile([Fault(shown, 0, 0, message) for message in wrong])
    return params


def _read_params(dag: Dag, given: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` texts; where the DAG's default is no text, the value is read as JSON."""
    params: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidParam(text, "write NAME=VALUE")
        if name not in dag.params:
            raise InvalidParam(text, f"DAG `{dag.id}` has no parameter `{name}`{did_you_mean(name, dag.params)}")
        if isinstance(dag.params[name], str):
            params[name] = value
            continue
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidParam(text, f"the default is {json.dumps(dag.params[name])}; write JSON") from None
    return params
