"""tickpool's scheduler: schedules, the tick, the run queue and the service around the worker pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cron import parse_cron
    from .drain import drain_queue
    from .schedules import load_schedules
    from .ticker import tick_once

__all__ = ["drain_queue", "load_schedules", "parse_cron", "tick_once"]

_HOMES = {"parse_cron": "cron", "load_schedules": "schedules", "tick_once": "ticker", "drain_queue": "drain"}


def __getattr__(name: str) -> Callable[..., Any]:
    """Import the public functions when they are first used: `scripts/status` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    function: Callable[..., Any] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return function
