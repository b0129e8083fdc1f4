"""The worker pool: local processes, one inbox queue and one result pipe each.

A queue shared by the workers does not survive SIGKILL: an idle worker waits inside `Queue.get` holding the reader's
semaphore, and with it dies everybody's. Here a dead worker's queue is thrown away with it. At most one small request
is in an inbox, and only a free worker is given one.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Collection, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from . import worker
from .process import Identity, identity, is_alive
from .run_request import RunRequest
from .segments import Position
from .settings import Settings
from .worker import Result

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess
    from multiprocessing.queues import Queue

__all__ = ["Died", "Finished", "WorkerPool"]

logger = logging.getLogger(__name__)

# A worker that ends within this time, and without a result, counts as stillborn.
_STILLBORN_S = 1.0
_LONGEST_PAUSE_S = 30.0
# Pipes enough for the descriptors that a worker and, if need be, a fork server take: 16.
_ROOM_PIPES = 8


class Finished(NamedTuple):
    """A worker has ended a request and is free."""

    request: RunRequest
    result: Result


class Died(NamedTuple):
    """A worker process is gone, with the request it had (None: it was idle).

    `exit_code` is negative for a signal, None when nobody could tell; `expected` says that it was told to end.
    """

    process: Identity
    exit_code: int | None
    request: RunRequest | None
    expected: bool


class _Worker:
    """One worker process as its owner sees it."""

    def __init__(self, number: int, process: ForkServerProcess, inbox: Queue[Any], results: Connection) -> None:
        assert process.pid is not None
        self.number = number
        self.process = process
        self.inbox = inbox
        self.results = results
        self.identity = identity(process.pid)
        self.pidfd = os.pidfd_open(process.pid)
        self.started_at = time.monotonic()
        self.request: RunRequest | None = None
        self.runs = 0
        self.stopping = False

    def exit_code(self) -> int | None:
        """Take the status of this process, which has ended."""
        with contextlib.suppress(ChildProcessError):
            # When its fork server was killed, the worker became a child of this process (prctl(2), subreaper).
            end = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
            if end is not None:
                return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        self.process.join(1.0)
        # 255 is multiprocessing's word for a fork server that can no longer be asked; no worker ends with it.
        return self.process.exitcode if self.process.exitcode != 255 else None

    def close(self) -> None:
        """Throw away what led to this process."""
        self.inbox.cancel_join_thread()
        self.inbox.close()
        self.results.close()
        os.close(self.pidfd)
        with contextlib.suppress(ValueError):
            self.process.close()


class WorkerPool:
    """Keeps `size` workers alive; the owner waits on `waitables()` and hands what is ready to `collect`."""

    def __init__(self, settings: Settings, size: int) -> None:
        self.size = size
        self._settings = settings
        # forkserver: a fork of this process would copy the feeder threads' locks in whatever state they are.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["workers.worker"])
        self._workers: dict[int, _Worker] = {}
        self._ready: dict[Any, int] = {}
        self._stillborn = 0
        self._paused_until = 0.0

    def start(self) -> None:
        """Start the workers that are missing; not yet when the last ones ended as they began (see `pause_s`).

        Raises OSError when the system gives no process now.
        """
        if self.pause_s() != 0.0:
            return
        taken = {each.number for each in self._workers.values() if not each.stopping}
        for number in range(1, self.size + 1):
            if number not in taken:
                try:
                    self._start(number)
                except OSError:
                    self._pause()
                    raise

    def pause_s(self) -> float | None:
        """Return in how many seconds `start` has something to do: 0 is now; None when no worker is missing."""
        if sum(not each.stopping for each in self._workers.values()) >= self.size:
            return None
        return max(0.0, self._paused_until - time.monotonic())

    def forgive(self) -> None:
        """Take it that the worker that died last had claimed a request: not the installation, its run was its death."""
        self._stillborn = 0
        self._paused_until = 0.0

    def free(self) -> int:
        """Return how many workers can take a request."""
        return sum(1 for _ in self._idle())

    def busy(self) -> int:
        """Return how many workers have a request."""
        return sum(1 for each in self._workers.values() if each.request is not None)

    def pids(self) -> set[int]:
        """Return the pids of all worker processes, the stopping ones too."""
        return {each.identity.pid for each in self._workers.values()}

    def family(self) -> set[int] | None:
        """Return the pids that may be children of this process for the pool's sake; None when they are not known."""
        servers = [forkserver._forkserver, resource_tracker._resource_tracker]
        pids = [getattr(server, name, None) for server, name in zip(servers, ("_forkserver_pid", "_pid"), strict=True)]
        known = {pid for pid in pids if pid is not None}
        return known | self.pids() if len(known) == len(servers) else None

    def submit(self, request: RunRequest, since: Position) -> Identity:
        """Give a request to a free worker and return which process that is. Raises IndexError when none is free."""
        chosen = next(self._idle(), None)
        if chosen is None:
            raise IndexError("no free worker")
        chosen.inbox.put((request, since))
        chosen.request = request
        return chosen.identity

    def waitables(self) -> Collection[Any]:
        """Return what to wait on with `multiprocessing.connection.wait`."""
        return self._ready.keys()

    def collect(self, ready: Collection[Any]) -> list[Finished | Died]:
        """Return what happened on the waitables that are ready. The dead are buried after the whole batch."""
        outcomes: list[Finished | Died] = []
        dead: list[_Worker] = []
        for waitable in ready:
            each = self._workers.get(self._ready.get(waitable, 0))
            if each is None:
                continue
            if waitable is each.results:
                outcomes += self._receive(each)
            else:
                dead.append(each)
        for each in dead:
            if each.results.poll():  # its last word came with its end
                outcomes += self._receive(each)
            outcomes.append(self._bury(each))
        return outcomes

    def cancel(self, run_id: str, number: signal.Signals = signal.SIGTERM) -> bool:
        """Tell the worker that has this run to cancel it and end, or kill it; return whether one had it."""
        for each in self._workers.values():
            if each.request is not None and each.request["run_id"] == run_id:
                self._tell(each, number)
                return True
        return False

    def retire(self) -> None:
        """Ask the idle workers to end."""
        for each in list(self._idle()):
            each.stopping = True
            each.inbox.put(None)

    def terminate(self) -> None:
        """Tell every worker to cancel what it runs and end."""
        for each in self._workers.values():
            self._tell(each, signal.SIGTERM)

    def kill(self) -> None:
        """Kill every worker at once; what they ran is left for the caller to sweep."""
        for each in self._workers.values():
            self._tell(each, signal.SIGKILL)

    def is_empty(self) -> bool:
        """Say whether no worker process is left."""
        return not self._workers

    def _idle(self) -> Iterator[_Worker]:
        return (each for each in self._workers.values() if each.request is None and not each.stopping)

    def _start(self, number: int) -> None:
        _need_descriptors()
        inbox = self._context.Queue()
        reading, writing = self._context.Pipe(duplex=False)
        try:
            process = self._context.Process(
                target=worker.serve, args=(number, self._settings, inbox, writing), name=f"tickpool-w{number}"
            )
            process.start()
            each = _Worker(number, process, inbox, reading)
        except EOFError:
            reading.close()
            raise ConnectionResetError("the fork server ended while it was asked for a worker") from None
        except OSError:
            # A process that came to be all the same ends with its inbox.
            reading.close()
            raise
        finally:
            writing.close()
        self._workers[each.identity.pid] = each
        self._ready[each.results] = self._ready[each.pidfd] = each.identity.pid

    def _pause(self) -> None:
        """Start the next worker a little later each time in a row: an installation that is broken must not spin."""
        self._stillborn += 1
        self._paused_until = time.monotonic() + min(0.01 * 2 ** min(self._stillborn, 16), _LONGEST_PAUSE_S)

    def _receive(self, each: _Worker) -> list[Finished | Died]:
        """Read the result that a worker has sent: one, for it has one request at a time.

        After its last run a worker is asked to end, and another takes its number.
        """
        outcomes: list[Finished | Died] = []
        try:
            result: Result = each.results.recv()
            assert each.request is not None
            outcomes.append(Finished(each.request, result))
            each.request = None
            each.runs += 1
            self._stillborn = 0
        except (EOFError, OSError):
            self._ready.pop(each.results, None)  # its process is ending: the pidfd will tell
        if each.runs >= self._settings.worker_max_runs and not each.stopping:
            each.stopping = True
            each.inbox.put(None)
        return outcomes

    def _bury(self, each: _Worker) -> Died:
        del self._workers[each.identity.pid]
        self._ready.pop(each.results, None)
        self._ready.pop(each.pidfd, None)
        died = Died(each.identity, each.exit_code(), each.request, each.stopping)
        each.close()
        if not died.expected and not each.runs and time.monotonic() - each.started_at < _STILLBORN_S:
            self._pause()
        return died

    def _tell(self, each: _Worker, number: signal.Signals) -> None:
        each.stopping = True
        with contextlib.suppress(ProcessLookupError):
            if is_alive(each.identity):
                signal.pidfd_send_signal(each.pidfd, number)


def _need_descriptors() -> None:
    """Raise OSError when a worker cannot have its descriptors.

    A fork server ends when its client runs out of them midway, and the client loses two (CPython's
    `ForkServer.connect_to_new_process` leaves its first pipe open).
    """
    room: list[int] = []
    try:
        for _ in range(_ROOM_PIPES):
            room += os.pipe2(os.O_CLOEXEC)
    finally:
        for fd in room:
            os.close(fd)
