"""The task kind `dag` of a run by hand: its run, in a process of the run that asks for it.

Where there is a service, such a run is asked for and waited for (`waiting_tasks`).
"""

from __future__ import annotations

from .masking import Mask
from .process import fork
from .run_link import RunLink
from .run_request import RunRequest
from .tasks import Conclusion, Started
from .waiting import Waiting, end

__all__ = ["start_here"]


def start_here(waiting: Waiting, link: RunLink, request: RunRequest, output: int, mask: Mask) -> Started:
    """Start the run in a forked child; the log has its request without what `mask` hides. Raises CannotStart."""
    execute = link.execute
    assert execute is not None
    child = fork(lambda: execute(request, mask), output=output, keep=output)
    return Started(child, lambda _: _conclude(waiting, link))


def _conclude(waiting: Waiting, link: RunLink) -> Conclusion:
    finish = link.await_run(waiting.run)
    if finish is None:
        return Conclusion(f"run {waiting.run} has no end on record", {})
    outcome = end(waiting, finish, link.outputs_of(waiting.run, None), waiting.since_s)
    return Conclusion(outcome.reason, outcome.outputs)
