"""Why what an operator asks for is refused: the sentences of the command line and of the dashboard."""

from __future__ import annotations

from workers.errors import TickpoolError, did_you_mean

__all__ = [
    "COMMENT_CHARS",
    "Changed",
    "LongComment",
    "NoRequest",
    "NotAsked",
    "NotOpen",
    "NothingToRetry",
    "StillOpen",
    "UnknownTask",
]

COMMENT_CHARS = 1000


class NotOpen(TickpoolError):
    """A run that is not open: (its id, the open runs)."""

    def __str__(self) -> str:
        name, names = self.args
        return f"no open run `{name[:128]}`{did_you_mean(name, names) if names else '; none is open'}"


class StillOpen(TickpoolError):
    """A run that has not ended: (its id,)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` has not ended; `tickpool cancel` ends it"


class Changed(TickpoolError):
    """A run of which something new has come on record: (its id,)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` has just been asked for by somebody else; look at it again"


class NoRequest(TickpoolError):
    """A run that cannot be repeated: (its id, why)."""

    def __str__(self) -> str:
        return f"run `{self.args[0]}` cannot be repeated: {self.args[1]}"


class NothingToRetry(TickpoolError):
    """A retry of what failed in a run in which nothing did: (its id,)."""

    def __str__(self) -> str:
        return f"no task of run `{self.args[0]}` has failed; leave out --failed, or name --from TASK"


class UnknownTask(TickpoolError):
    """A task that a DAG has not: (the task, the DAG, its tasks)."""

    def __str__(self) -> str:
        name, dag, names = self.args
        return f"DAG `{dag}` has no task `{name[:128]}`{did_you_mean(name, names)}"


class NotAsked(TickpoolError):
    """A run that does not ask for this approval: (the run, the task or None, the tasks for which it asks)."""

    def __str__(self) -> str:
        run_id, task, asked = self.args
        if not asked:
            return f"run `{run_id}` asks for no approval"
        if task is None:
            return f"run `{run_id}` asks for several approvals; name one of {', '.join(asked)}"
        return f"run `{run_id}` does not ask for `{task[:128]}`{did_you_mean(task, asked)}"


class LongComment(TickpoolError):
    """A comment that is too long: (its length,)."""

    def __str__(self) -> str:
        return f"--comment has {self.args[0]} characters; at most {COMMENT_CHARS}"
