"""The service: a loop of five verbs and one wait.

It leads (one leader a log, the others stand by), replays the log, and then reloads, follows, ticks, dispatches and
tends until it is told to stop. `python scheduler/supervisor.py --dir schedules` is what systemd starts.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any

from workers.event_log import LogUnwritable
from workers.events import iso
from workers.lock import Lock, LockTimeout
from workers.process import identity
from workers.process_tree import become_subreaper
from workers.settings import Settings

from .dispatch import Dispatcher
from .notify_systemd import Systemd
from .reload import ConfigurationWatch, record_configuration, record_faults
from .ticker import Ticker

__all__ = ["Supervisor", "leader_lock"]

logger = logging.getLogger(__name__)

_JUMP_S = 2.0
_STANDBY_S = 0.5
_SETTLE_S = 0.2
_AFTER_FAILURE_S = 1.0


def leader_lock(settings: Settings) -> Lock:
    """Return the lock that makes one process the leader of a log: the only one that hands out its runs."""
    state = Path(settings.state_path)
    state.parent.mkdir(parents=True, exist_ok=True)
    return Lock(state.with_name(state.name + ".leader"))


class Supervisor:
    """One service on one directory of schedules. `say` shows a line to whoever started it."""

    def __init__(self, directory: Path, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._watch = ConfigurationWatch(directory)
        self._systemd = Systemd(os.environ)
        self._lock = leader_lock(settings)
        self._signals: list[int] = []
        self._wake_in, self._wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._dispatcher = Dispatcher(settings, settings.max_parallel)
        self._task_log = settings.task_log()
        self._stop_signals = 0
        self._failed = False
        self._scanned_at = self._synced_at = time.monotonic()
        self._status = ""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        self._install_signals()
        for fault in self._watch.current.faults:
            logger.error("%s", fault)
        self._say(f"Loaded {len(self._watch.current.schedules)} schedule(s) from {self._watch.directory}")
        if not self._lead():
            return 0
        become_subreaper()
        try:
            self._begin()
            while not self._stop_signals:
                self._turn()
            self._drain()
        finally:
            self._dispatcher.close()
            self._lock.close()
        return 0

    # -- begin ---------------------------------------------------------------------------------------------------

    def _install_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _lead(self) -> bool:
        """Wait until this process is the leader; False when it was told to stop before."""
        told = False
        while not self._lock.try_acquire():
            if not told:
                self._say(f"Process {self._lock.holder()} leads on this log; standing by...")
                self._systemd.notify(READY="1", STATUS="standing by")
                told = True
            self._systemd.notify(WATCHDOG="1")
            connection.wait([self._wake_in], _STANDBY_S)
            self._take_signals()
            if self._stop_signals:
                return False
        return True

    def _begin(self) -> None:
        settings = self._settings
        now = datetime.now(UTC)
        dispatcher = self._dispatcher
        dispatcher.recover(now)
        me = identity(os.getpid())
        started = {"event": "supervisor_started", "starttime": me.starttime, "boot_id": me.boot_id}
        options = {"max_parallel": settings.max_parallel, "tick_ms": settings.tick_ms}
        dispatcher.store.commit(lambda _: [{**started, **options, "dir": str(self._watch.directory)}])
        record_configuration(dispatcher.store, self._watch.current, now)
        self._ticker = Ticker(dispatcher.store, self._watch.current.schedules, now)
        self._late_reason = "down"
        self._clocks = _read_clocks()
        dispatcher.start_workers()
        self._say(f"Serving scheduler (tick={settings.tick_ms}ms, max_parallel={settings.max_parallel})...")
        self._say("Press Ctrl+C to stop")
        self._systemd.notify(READY="1")

    # -- the loop ------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One turn: five verbs and one wait. A fault of ours is logged and the service goes on."""
        try:
            self._reload()
            self._follow()
            self._tick()
            self._dispatch()
            self._tend()
            self._failed = False
        except (LogUnwritable, LockTimeout) as error:
            logger.error("%s", error)  # noqa: TRY400
            self._failed = True
        except Exception:  # the service's edge
            logger.exception("a turn of the service failed")
            self._failed = True
        self._wait()

    def _reload(self) -> None:
        """Take a changed configuration whole, or keep the old one and name the fault."""
        if not self._watch.is_settling() and time.monotonic() - self._scanned_at < self._settings.tick_ms / 1000:
            return
        configuration = self._watch.poll()
        self._scanned_at = time.monotonic()
        if configuration is None:
            return
        store, now = self._dispatcher.store, datetime.now(UTC)
        for fault in configuration.faults:
            logger.error("%s", fault)
        if configuration.faults:
            self._say("The configuration has faults; the one before stays in force")
            record_faults(store, configuration)
            return
        self._tick()
        record_configuration(store, configuration, now)
        self._ticker.replace(configuration.schedules, now)
        self._say(f"Loaded {len(configuration.schedules)} schedule(s) from {self._watch.directory}")

    def _follow(self) -> None:
        """Fold in what other processes appended."""
        self._dispatcher.store.refresh()

    def _tick(self) -> None:
        """Give every fire time that has come its verdict."""
        self._notice_clock()
        now = datetime.now(UTC)
        fire = self._ticker.next_fire()
        if fire is not None and fire <= now:
            self._ticker.tick(now, self._late_reason)
        self._late_reason = "late"

    def _notice_clock(self) -> None:
        """Record a step of the wall clock against the boot clock, and go on from where it stands now."""
        before, self._clocks = self._clocks, _read_clocks()
        (wall, boot), (wall_before, boot_before) = self._clocks, before
        jump_s = (wall - wall_before) - (boot - boot_before)
        if abs(jump_s) < _JUMP_S:
            return
        now = datetime.fromtimestamp(wall, UTC)
        was = datetime.fromtimestamp(wall - jump_s, UTC)
        logger.warning("the clock jumped by %+.1f s", jump_s)
        self._late_reason = "clock_jump"
        event = {"event": "clock_jumped", "from": iso(was), "to": iso(now), "jump_s": round(jump_s, 3)}
        self._dispatcher.store.commit(lambda _: [event])
        self._ticker.resume(now)

    def _dispatch(self) -> None:
        """Hand waiting runs to free workers."""
        handed = self._dispatcher.dispatch(datetime.now(UTC))
        if handed:
            self._say(f"[{datetime.now().astimezone():%H:%M:%S}] Draining {len(handed)} run(s)...")

    def _tend(self) -> None:
        """Flush and rotate the logs, and tell systemd that the loop is alive."""
        store, settings = self._dispatcher.store, self._settings
        self._tell_systemd()
        if time.monotonic() - self._synced_at < 1.0:
            return
        self._synced_at = time.monotonic()
        if settings.fsync != "off":
            store.log.sync()
        for rotated, log in (
            (store.rotate(settings.segment_bytes), store.log),
            (self._task_log.rotate(settings.segment_bytes, lambda _: ()), self._task_log),
        ):
            if rotated:
                log.prune(settings.keep_segments, settings.keep_s, time.time())

    def _wait(self) -> None:
        """Wait for a worker, a signal, or the next thing that is due; at most one tick."""
        now_s = time.time()
        ready = _wait_until(
            [self._wake_in, *self._dispatcher.waitables()], min(now_s + self._longest_wait_s(), self._next_due(now_s))
        )
        self._take_signals()
        try:
            self._dispatcher.settle(ready, datetime.now(UTC))
        except (LogUnwritable, LockTimeout) as error:
            logger.error("%s", error)  # noqa: TRY400
            self._failed = True

    def _longest_wait_s(self) -> float:
        longest_s = self._settings.tick_ms / 1000
        if self._watch.is_settling():
            longest_s = min(longest_s, _SETTLE_S)
        if self._systemd.watchdog_s:
            longest_s = min(longest_s, self._systemd.watchdog_s / 2)
        return longest_s

    def _next_due(self, now_s: float) -> float:
        if self._failed:
            return now_s + _AFTER_FAILURE_S
        fire = self._ticker.next_fire()
        wake_s = self._dispatcher.queue.next_wake()
        times = [fire.timestamp() if fire else None, wake_s]
        return min((at for at in times if at is not None), default=float("inf"))

    def _take_signals(self) -> None:
        """Turn what the handlers noted into decisions."""
        try:
            os.read(self._wake_in, 4096)
        except BlockingIOError:
            pass
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop_signals += 1
            elif number == signal.SIGHUP:
                self._scanned_at = float("-inf")

    def _tell_systemd(self) -> None:
        queue, pool = self._dispatcher.queue, self._dispatcher.pool
        status = f"{pool.busy()} running, {queue.qsize()} queued, {len(self._ticker.schedules)} schedules"
        if status != self._status:
            self._status = status
            self._systemd.notify(WATCHDOG="1", STATUS=status)
        else:
            self._systemd.notify(WATCHDOG="1")

    # -- the end -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Start nothing more; let runs end within the grace, then cancel them; a second signal kills them at once."""
        dispatcher, settings = self._dispatcher, self._settings
        self._systemd.notify(STOPPING="1")
        if dispatcher.pool.busy():
            self._say(f"Stopping: {dispatcher.pool.busy()} run(s) may take up to {settings.grace_s:g} s to end...")
        dispatcher.pool.retire()
        self._await_workers(settings.grace_s)
        if dispatcher.pool.busy() and not self._is_killing():
            self._say(f"Cancelling {dispatcher.pool.busy()} run(s)...")
            dispatcher.pool.terminate()
            self._await_workers(settings.task_grace_s + 5)
        dispatcher.kill()
        dispatcher.store.commit(lambda _: [{"event": "supervisor_stopped"}])
        self._say("Stopped")

    def _await_workers(self, timeout_s: float) -> None:
        """Wait for the end of all workers, for `timeout_s` or a second signal, whichever is first."""
        dispatcher = self._dispatcher
        deadline = time.monotonic() + timeout_s
        while not dispatcher.pool.is_empty() and time.monotonic() < deadline and not self._is_killing():
            ready = connection.wait([self._wake_in, *dispatcher.waitables()], _SETTLE_S)
            self._take_signals()
            dispatcher.settle(ready, datetime.now(UTC), restart=False)
            dispatcher.pool.retire()
            self._systemd.notify(WATCHDOG="1")

    def _is_killing(self) -> bool:
        return self._stop_signals > 1


def _read_clocks() -> tuple[float, float]:
    """Return the wall clock and the boot clock, which also counts suspended time, in seconds."""
    return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)


def _wait_until(waitables: list[Any], deadline_s: float) -> list[Any]:
    """Wait for a waitable, or for a time of the wall clock to come; the selector alone is up to 1 ms late."""
    rest_s = deadline_s - time.time()
    if rest_s <= 0:
        return connection.wait(waitables, 0)
    whole_ms = int(rest_s * 1000)
    ready = connection.wait(waitables, max(0.0, whole_ms - 0.5) / 1000)
    if not ready:
        time.sleep(max(0.0, min(deadline_s - time.time(), 0.002)))
    return ready


if __name__ == "__main__":
    # The workers import the main module again; `python -m scheduler` is one that costs them nothing.
    os.execv(sys.executable, [sys.executable, "-m", "scheduler", "--serve", *sys.argv[1:]])
