"""The task kind `run`: a command as a list of arguments, or a line for `sh -c`."""

from __future__ import annotations

from workers import params
from workers.dag import Task
from workers.process import Exit, spawn

from . import BadOutputs, Conclusion, Scene, Started, read_outputs

__all__ = ["start"]


def start(task: Task, scene: Scene, output: int) -> Started:
    """Start the command with stdout and stderr on the descriptor `output`. Raises CannotStart, TickpoolError."""
    run, env = task.run, scene.env
    if isinstance(run, str):
        text, values = params.shell(run, scene.lookup)
        argv = ["/bin/sh", "-c", text]
        env = {**env, **values} if values else env
    else:
        argv = [params.resolve_text(part, scene.lookup) for part in run or ()]
    child = spawn(argv, env=env, cwd=scene.cwd, output=output)
    return Started(child, lambda end: _conclude(end, scene))


def _conclude(end: Exit, scene: Scene) -> Conclusion:
    if end.exit_code != 0:
        return Conclusion(None, {})
    try:
        return Conclusion(None, read_outputs(scene.output_path))
    except BadOutputs as error:
        return Conclusion(str(error), {})
