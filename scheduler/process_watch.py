"""The watch over processes that are not ours: each is known by a descriptor that turns readable when it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress

from workers.process import Identity, is_alive
from workers.worker import is_worker

__all__ = ["ProcessWatch"]


class ProcessWatch:
    """Foreign processes, from the first word of them until their end was dealt with."""

    def __init__(self) -> None:
        self._watched: dict[int, Identity] = {}
        self._told: list[Identity] = []
        self._ended: list[Identity] = []

    def add(self, process: Identity) -> None:
        """Note a process; `look` begins to watch it."""
        self._told.append(process)

    def waitables(self) -> Collection[int]:
        """Return what to wait on with `multiprocessing.connection.wait`."""
        return self._watched.keys()

    def workers(self) -> list[Identity]:
        """Return the workers of services that died. A run by hand is watched too, and is for its owner to end."""
        return [process for process in self._watched.values() if is_worker(process.pid)]

    def signal_workers(self, number: int) -> list[Identity]:
        """Send a signal to those that are workers; return them."""
        meant = self.workers()
        for pidfd in [pidfd for pidfd, process in self._watched.items() if process in meant]:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        return meant

    def signal(self, process: Identity, number: int) -> bool:
        """Send a signal to one of them if it is a worker; say whether it is."""
        pidfd = next((fd for fd, watched in self._watched.items() if watched == process), None)
        if pidfd is None or not is_worker(process.pid):
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        return True

    def look(self, ready: Collection[object]) -> list[Identity]:
        """Return the processes that have ended and are not `forgotten` yet. Raises OSError and forgets none."""
        for pidfd in [fd for fd in self._watched if fd in ready]:
            self._ended.append(self._unwatch(pidfd))
        while self._told:
            self._watch(self._told[-1])
            self._told.pop()
        return list(self._ended)

    def forget(self, process: Identity) -> None:
        """Take it that the end of a process has been dealt with."""
        self._ended.remove(process)

    def close(self) -> None:
        """Close the descriptors."""
        for pidfd in list(self._watched):
            self._unwatch(pidfd)

    def _watch(self, process: Identity) -> None:
        if process in self._watched.values() or process in self._ended:
            return
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            if is_alive(process):
                raise
            self._ended.append(process)
            return
        self._watched[pidfd] = process
        # The number may have been another process's by the time it was opened.
        if not is_alive(process):
            self._ended.append(self._unwatch(pidfd))

    def _unwatch(self, pidfd: int) -> Identity:
        process = self._watched.pop(pidfd)
        os.close(pidfd)
        return process
