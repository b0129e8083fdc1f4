"""One attempt of a task in a process of its own: its output, its time-out, and the end of its whole tree."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from .poller import Poller, Timer
from .process import Exit, Stat
from .process_tree import find, marked_with, send
from .task_log import TaskLog
from .tasks import Conclusion, Outcome, Started, TaskStatus

__all__ = ["Attempt"]

_READ_BYTES = 64 * 1024
# A grandchild that writes without end must not keep the task from ending.
_LAST_READS = 32
# A killed process that has not gone by then is stuck in the kernel (state D).
_GONE_WITHIN_S = 5.0


class Attempt:
    """A running attempt. It calls `on_end(outcome)` once, when its tree is gone; until then its state does not change.

    When its first process ends by itself, what is left of its process group is killed at once, as systemd's
    `KillMode=control-group` does. `stop` sends TERM to the tree, and KILL when the grace is over.
    """

    def __init__(
        self,
        started: Started,
        output: int,
        *,
        poller: Poller,
        log: TaskLog,
        marks: tuple[str, ...],
        grace_s: float,
        on_end: Callable[[Outcome], None],
    ) -> None:
        self.pid = started.child.pid
        self._child = started.child
        self._conclude: Callable[[Exit], Conclusion] = started.conclude
        self._output = output
        self._poller = poller
        self._log = log
        self._marks = marks
        self._grace_s = grace_s
        self._on_end = on_end
        self._began = time.monotonic()
        self._timers: list[Timer] = []
        self._stopped: tuple[TaskStatus, str] | None = None
        self._exit: Exit | None = None
        self._left: set[int] = set()
        poller.watch(output, self._hear_output)
        poller.watch(self._child.pidfd, self._first_process_ended)

    def stop_at(self, when: float, status: TaskStatus, reason: str) -> None:
        """Stop at a point of the monotonic clock, unless it has ended before."""
        self._timers.append(self._poller.call_at(when, lambda: self.stop(status, reason)))

    def stop(self, status: TaskStatus, reason: str) -> None:
        """TERM to the whole tree now, KILL after the grace; the first call counts."""
        if self._stopped is not None or self._exit is not None:
            return
        self._stopped = status, reason
        self._child.signal_group(signal.SIGTERM)
        for stat in self._tree():
            if stat.pgrp != self.pid and (pidfd := send(stat, signal.SIGTERM)) is not None:
                os.close(pidfd)
        self._timers.append(self._poller.call_at(time.monotonic() + self._grace_s, self._end_grace))

    def abandon(self) -> None:
        """KILL the tree and take the first process's status without telling anybody: the run itself broke off."""
        self._on_end = _tell_nobody
        self._stopped = self._stopped or ("cancelled", "the run broke off")
        self._kill()
        for pidfd in list(self._left):
            self._forget(pidfd)
        self._exit = self._exit or self._child.reap()
        self._finish()

    def _tree(self) -> list[Stat]:
        is_marked = marked_with(*self._marks)
        return find(lambda stat: stat.session == self.pid or is_marked(stat))

    def _end_grace(self) -> None:
        self._kill()
        self._timers.append(self._poller.call_at(time.monotonic() + _GONE_WITHIN_S, self._give_up))

    def _give_up(self) -> None:
        """Leave behind what cannot die, but never the first process itself: its status is still to come."""
        if self._left:
            for pidfd in list(self._left):
                self._forget(pidfd)
            self._exit = self._exit or self._child.reap()
            self._finish()

    def _kill(self) -> None:
        """KILL to the tree, again and again until nothing new turns up."""
        if self._exit is None:
            self._child.signal_group(signal.SIGKILL)
        # What is found again is dying or new, so a few rounds see the end even of a tree that forks on.
        for _ in range(20):
            sent = [send(stat, signal.SIGKILL) for stat in self._tree() if stat.pid != self.pid]
            for pidfd in sent:
                if pidfd is not None:
                    os.close(pidfd)
            if not any(pidfd is not None for pidfd in sent):
                break

    def _hear_output(self) -> None:
        self._read_output()

    def _read_output(self) -> bool:
        """Take what there is, at most one chunk; return whether there was any."""
        try:
            chunk = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._log.write(chunk)
        else:
            self._close_output()
        return bool(chunk)

    def _close_output(self) -> None:
        self._poller.unwatch(self._output)
        os.close(self._output)
        self._output = -1

    def _first_process_ended(self) -> None:
        self._poller.unwatch(self._child.pidfd)
        if self._stopped is None:
            # It is a zombie until `reap`, so its number still names its group and nothing else.
            self._child.signal_group(signal.SIGKILL)
        elif self._await_tree(self._reap):
            return
        self._reap()

    def _reap(self) -> None:
        if self._stopped is not None:
            self._kill()
        self._exit = self._child.reap()
        if (self._stopped is not None or self._has_group()) and self._await_tree(self._finish):
            self._timers.append(self._poller.call_at(time.monotonic() + _GONE_WITHIN_S, self._give_up))
            return
        self._finish()

    def _has_group(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _await_tree(self, then: Callable[[], None]) -> bool:
        """Call `then` when everything found of the tree has gone; False when nothing was found."""
        for stat in self._tree():
            if stat.pid != self.pid and (pidfd := send(stat, 0)) is not None:
                self._left.add(pidfd)
                self._poller.watch(pidfd, lambda pidfd=pidfd: self._one_gone(pidfd, then))  # type: ignore[misc]
        return bool(self._left)

    def _one_gone(self, pidfd: int, then: Callable[[], None]) -> None:
        self._forget(pidfd)
        if not self._left:
            then()

    def _forget(self, pidfd: int) -> None:
        self._left.discard(pidfd)
        self._poller.unwatch(pidfd)
        os.close(pidfd)

    def _finish(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for _ in range(_LAST_READS):
            if self._output < 0 or not self._read_output():
                break
        if self._output >= 0:
            self._close_output()
        self._log.close()
        self._on_end(self._outcome(self._exit or self._child.reap()))

    def _outcome(self, end: Exit) -> Outcome:
        said = self._conclude(end)
        status: TaskStatus = "success" if end.exit_code == 0 and said.reason is None else "failed"
        reason = said.reason or (None if status == "success" else _describe(end))
        if self._stopped is not None:
            status, reason = self._stopped
        return Outcome(
            status=status,
            reason=reason,
            exit_code=end.exit_code,
            signal=end.signal,
            duration_s=round(time.monotonic() - self._began, 6),
            max_rss_kib=end.max_rss_kib,
            cpu_user_s=end.cpu_user_s,
            cpu_sys_s=end.cpu_sys_s,
            log=self._log.path if self._log.is_open else None,
            outputs=said.outputs if status == "success" else {},
        )


def _tell_nobody(outcome: Outcome) -> None:
    pass


def _describe(end: Exit) -> str:
    if end.signal is not None:
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(end.signal, f'signal {end.signal}')}"
    if end.exit_code is None:
        return "its exit status was taken by another waiter of this process"
    return f"exit code {end.exit_code}"
