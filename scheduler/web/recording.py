"""A change is recorded, and told to whom it concerns: also where the disk has refused to flush what the log has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from scheduler.history import History
from scheduler.state_store import StateStore
from workers.event_log import LogNotFlushed
from workers.events import Event

from .problems import Problem

__all__ = ["record"]

T = TypeVar("T")


def record(
    store: StateStore, decide: Callable[[History], Sequence[Mapping[str, Any]]], tell: Callable[[History], T]
) -> tuple[list[Event], T]:
    """Record what `decide` returns under the lock; return it, and what `tell` returns, which is called then.

    Raises Problem for what was recorded and not flushed, which is told all the same, and what `commit` raises.
    """
    try:
        events = store.commit(decide)
    except LogNotFlushed as error:
        tell(store.history)
        told = f"{error}. It is done, and a power cut may undo it; do not ask for it again"
        raise Problem(503, "Recorded, but not flushed to the disk", told) from None
    return events, tell(store.history)
