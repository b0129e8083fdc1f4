"""Starting a task of any kind that has a process."""

from __future__ import annotations

from workers.dag import Task

from . import Scene, Started, call, command
from .imports import Imports

__all__ = ["start"]


def start(task: Task, scene: Scene, output: int, imports: Imports) -> Started:
    """Start an attempt with stdout and stderr on the descriptor `output`. Raises CannotStart, TickpoolError."""
    if task.kind == "call":
        return call.start(task, scene, output, imports)
    return command.start(task, scene, output)
