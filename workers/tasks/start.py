"""Starting a task of any kind that has a process."""

from __future__ import annotations

from workers.dag import Task

from . import Scene, Started, call, command, http, wait
from .imports import Imports

__all__ = ["start"]


def start(task: Task, scene: Scene, output: int, imports: Imports) -> Started:
    """Start an attempt with stdout and stderr on the descriptor `output`. Raises CannotStart, TickpoolError."""
    match task.kind:
        case "call":
            return call.start(task, scene, output, imports)
        case "http":
            return http.start(task, scene, output)
        case "wait":
            return wait.start(task, scene, output)
        case _:
            return command.start(task, scene, output)
