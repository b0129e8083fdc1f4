"""The service: a loop of five verbs and one wait.

It leads (one leader a log, the others stand by), replays the log, and then ticks, follows, dispatches, tends and
reloads until it is told to stop. `python scheduler/supervisor.py --dir schedules` is what systemd starts.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # The workers import the main module again; `python -m scheduler` is one that costs them nothing.
    _path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _path))
    os.execv(sys.executable, [sys.executable, "-m", "scheduler", "--serve", *sys.argv[1:]])

import errno
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workers.errors import TickpoolError
from workers.event_log import LogUnwritable
from workers.events import Event
from workers.lock import Lock, LockTimeout
from workers.log_files import make_directory
from workers.process import identity
from workers.process_tree import become_subreaper
from workers.settings import Settings

from .backfills import next_events
from .clock import ClockWatch
from .dispatch import Dispatcher
from .file_watch import FileWatch
from .history import History
from .notify_systemd import Systemd
from .reload import ConfigurationWatch, record_configuration, record_faults
from .schedules import Configuration, NoSchedules
from .ticker import Ticker
from .waits import Found, watched_files
from .wakeup import Wakeup

__all__ = ["Supervisor", "leader_lock"]

logger = logging.getLogger(__name__)

_STANDBY_S = 0.5
_SETTLE_S = 0.2
_AGAIN_S = 1.0
_ROTATE_S = 1.0
_SWITCH_S = 0.0002
# A full disk gets its space back; a missing permission does not come by waiting.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def leader_lock(settings: Settings) -> Lock:
    """Return the lock that makes one process the leader of a log: the only one that hands out its runs."""
    state = Path(settings.state_path)
    make_directory(state.parent)
    return Lock(state.with_name(state.name + ".leader"))


def _backfill_events(history: History) -> list[Event]:
    return [event for each in history.backfills.open.values() for event in next_events(each)]


class Supervisor:
    """One service on one directory of schedules. `say` shows a line to whoever started it."""

    def __init__(self, directory: Path, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._show = say
        self._watch = ConfigurationWatch(directory)
        self._systemd = Systemd(os.environ)
        self._lock = leader_lock(settings)
        self._wakeup = Wakeup()
        self._clock = ClockWatch()
        self._dispatcher = Dispatcher(settings, settings.max_parallel, adopts=True)
        self._ready: list[Any] = []
        self._faults: dict[str, str] = {}
        self._pending: Configuration | None = None
        self._late_reason = "down"
        self._files = FileWatch()
        self._scanned_at = self._rotated_at = self._looked_at = time.monotonic()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        # A queue's feeder thread would wait up to 5 ms for the interpreter lock, longer than all else in a run's way.
        sys.setswitchinterval(_SWITCH_S)
        self._wakeup.install()
        for fault in self._watch.current.faults:
            logger.error("%s", fault)
        self._say(f"Loaded {len(self._watch.current.schedules)} schedule(s) from {self._watch.directory}")
        become_subreaper()
        try:
            if self._lead() and self._begin():
                while not self._wakeup.stops():
                    self._turn()
                self._drain()
        finally:
            self._dispatcher.close()
            self._lock.close()
        return 0

    def _say(self, line: str) -> None:
        # Whoever started the service may have gone, and its pipe with it.
        with suppress(OSError, ValueError):
            self._show(line)

    # -- begin ---------------------------------------------------------------------------------------------------

    def _lead(self) -> bool:
        """Wait until this process is the leader; False when it was told to stop before."""
        if self._lock.try_acquire():
            return True
        self._say(f"Process {self._lock.holder()} leads on this log; standing by...")
        self._systemd.notify(READY="1", STATUS="standing by")
        while not self._lock.try_acquire():
            self._systemd.ping()
            self._wakeup.wait([], min(_STANDBY_S, self._settings.tick_ms / 1000))
            if self._wakeup.stops():
                return False
        # The leader before may have taken a newer configuration; to tick by the old one would undo that.
        with suppress(NoSchedules):
            self._watch = ConfigurationWatch(self._watch.directory)
        return True

    def _begin(self) -> bool:
        """Replay the log and go on from it; False when told to stop. A log that is locked or full is waited for."""
        self._dispatcher.recover(datetime.now(UTC))
        while not self._wakeup.stops():
            try:
                self._announce()
            except (LogUnwritable, LockTimeout) as error:
                cause = error.__context__
                if isinstance(error, LogUnwritable) and getattr(cause, "errno", None) not in _PASSING:
                    raise
                self._fail("begin", error)
                self._wakeup.wait([], _AGAIN_S)
            else:
                self._dispatcher.start_workers()
                settings = self._settings
                self._say(f"Serving scheduler (tick={settings.tick_ms}ms, max_parallel={settings.max_parallel})...")
                self._say("Press Ctrl+C to stop")
                self._systemd.notify(READY="1")
                return True
        return False

    def _announce(self) -> None:
        """Put this service and its configuration on record."""
        dispatcher, settings, now = self._dispatcher, self._settings, datetime.now(UTC)
        me = identity(os.getpid())
        started = {"event": "supervisor_started", "starttime": me.starttime, "boot_id": me.boot_id}
        options = {"max_parallel": settings.max_parallel, "tick_ms": settings.tick_ms}
        dispatcher.store.commit(lambda _: [{**started, **options, "dir": str(self._watch.directory)}])
        record_configuration(dispatcher.store, self._watch.current, now)
        self._ticker = Ticker(dispatcher.store, self._watch.current.schedules, now)
        self._files.replace(watched_files(self._watch.current.schedules))
        self._clock.accept()

    # -- the loop ------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One turn: five verbs and one wait. A verb that fails is named, and the others go on."""
        self._try(self._tick)
        self._try(self._follow)
        self._try(self._dispatch)
        self._try(self._tend)
        self._try(self._reload)
        if not self._try(self._wait):
            time.sleep(_AGAIN_S)

    def _try(self, verb: Callable[[], None]) -> bool:
        """Call a verb; say whether it went well. What goes on failing alike is logged once."""
        self._systemd.ping()
        name = verb.__name__.strip("_")
        try:
            verb()
        except Exception as error:  # noqa: BLE001 - the service's edge
            self._fail(name, error)
            return False
        if self._faults.pop(name, None):
            logger.warning("the service can %s again", name)
        return True

    def _fail(self, name: str, error: Exception) -> None:
        is_ours = not isinstance(error, TickpoolError | OSError)
        if self._faults.get(name) != repr(error):
            logger.error("the service cannot %s: %s", name, error, exc_info=error if is_ours else None)
        self._faults[name] = repr(error)

    def _follow(self) -> None:
        """Take in what came: results, the ends of workers, and what other processes appended."""
        self._dispatcher.settle(self._ready, datetime.now(UTC))
        if self._dispatcher.store.history.backfills.is_due():
            self._dispatcher.store.commit(_backfill_events)

    def _tick(self) -> None:
        """Give every fire time that has come its verdict."""
        jump = self._clock.look()
        if jump is not None:
            logger.warning("the clock jumped by %+.1f s", jump.seconds)
            self._late_reason = "clock_jump"
            self._dispatcher.store.commit(lambda _: [jump.event()])
            self._ticker.resume(jump.now)
            self._clock.accept()
        self._ticker.tick(datetime.now(UTC), self._late_reason, self._look_for_files())
        self._late_reason = "late"

    def _look_for_files(self) -> list[Found]:
        """Look once a tick: a turn may come with every end of a run."""
        moment = time.monotonic()
        if moment - self._looked_at < self._settings.tick_ms / 1000:
            return []
        self._looked_at = moment
        return list(self._files.look(moment))

    def _dispatch(self) -> None:
        """Hand waiting runs to free workers."""
        if self._wakeup.stops():
            return
        handed = self._dispatcher.dispatch(datetime.now(UTC))
        if handed:
            self._say(f"[{datetime.now().astimezone():%H:%M:%S}] Draining {len(handed)} run(s)...")

    def _tend(self) -> None:
        """Tell systemd how we are; flush the logs, and rotate them when they have grown."""
        dispatcher, settings = self._dispatcher, self._settings
        running, queued = dispatcher.pool.busy(), dispatcher.queue.qsize()
        self._systemd.show(f"{running} running, {queued} queued, {len(self._ticker.schedules)} schedules")
        dispatcher.flush()
        if time.monotonic() - self._rotated_at < _ROTATE_S:
            return
        self._rotated_at = time.monotonic()
        for rotated, log in (
            (dispatcher.store.rotate(settings.segment_bytes), dispatcher.store.log),
            (dispatcher.task_log.rotate(settings.segment_bytes, lambda _: ()), dispatcher.task_log),
        ):
            if rotated:
                log.prune(settings.keep_segments, settings.keep_s, time.time())

    def _reload(self) -> None:
        """Take a changed configuration whole, or keep the old one and name the fault."""
        if self._pending is None:
            self._pending = self._scan()
        configuration, store = self._pending, self._dispatcher.store
        if configuration is None:
            return
        if configuration.faults:
            record_faults(store, configuration)
            self._say("The configuration has faults; the one before stays in force")
        else:
            # What the old one still owes comes first: a new schedule begins now.
            self._tick()
            now = datetime.now(UTC)
            record_configuration(store, configuration, now)
            self._ticker.replace(configuration.schedules, now)
            self._files.replace(watched_files(configuration.schedules))
            self._say(f"Loaded {len(configuration.schedules)} schedule(s) from {self._watch.directory}")
        self._pending = None

    def _scan(self) -> Configuration | None:
        """Return a configuration that is to be judged; once a tick, at once when asked, and when a change settles."""
        is_asked = self._wakeup.take_reload()
        # A change has to rest, whoever asks: two scans of one moment see the same half of a file.
        rest_s = 0.0 if is_asked else self._settings.tick_ms / 1000
        if time.monotonic() - self._scanned_at < (_SETTLE_S if self._watch.is_settling() else rest_s):
            return None
        self._scanned_at = time.monotonic()
        configuration = self._watch.poll()
        for fault in configuration.faults if configuration else ():
            logger.error("%s", fault)
        return configuration

    def _wait(self) -> None:
        """Wait for a worker, a signal, or the next thing that is due; at most one tick."""
        now_s = time.time()
        # What could not be followed stays ready; to wait for it again would be to spin.
        waitables = [] if "follow" in self._faults else self._dispatcher.waitables()
        self._ready = self._wakeup.wait_until(waitables, self._next_due(now_s), self._longest_wait_s())

    def _longest_wait_s(self) -> float:
        limits_s = [self._settings.tick_ms / 1000]
        if self._watch.is_settling():
            limits_s.append(_SETTLE_S)
        if self._systemd.ping_every_s is not None:
            limits_s.append(self._systemd.ping_every_s)
        return min(limits_s)

    def _next_due(self, now_s: float) -> float:
        fire, wake_s = self._ticker.next_fire(), self._dispatcher.wake_s()
        times = [fire.timestamp() if fire else None, None if wake_s is None else now_s + wake_s]
        if self._ticker.has_arrivals():
            times.append(now_s)
        due = min((at for at in times if at is not None), default=float("inf"))
        return max(due, now_s + _AGAIN_S) if self._faults and due <= now_s else due

    # -- the end -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Start nothing more; let runs end within the grace, then cancel them; a second signal kills them at once."""
        dispatcher, settings = self._dispatcher, self._settings
        self._systemd.notify(STOPPING="1")
        if dispatcher.busy():
            self._say(f"Stopping: {dispatcher.busy()} run(s) may take up to {settings.grace_s:g} s to end...")
        self._await_workers(settings.grace_s)
        if dispatcher.busy() and not self._is_killing():
            self._say(f"Cancelling {dispatcher.busy()} run(s)...")
            dispatcher.terminate()
            self._await_workers(settings.task_grace_s + 5)
        self._try(dispatcher.kill_adopted)
        self._try(dispatcher.kill)
        self._try(self._record_stop)
        self._say("Stopped")

    def _await_workers(self, timeout_s: float) -> None:
        """Wait for the end of all workers, for `timeout_s` or a second signal, whichever is first."""
        dispatcher = self._dispatcher
        deadline = time.monotonic() + timeout_s
        self._try(dispatcher.pool.retire)
        while not dispatcher.is_quiet() and time.monotonic() < deadline and not self._is_killing():
            self._ready = self._wakeup.wait(dispatcher.waitables(), _SETTLE_S)
            self._try(self._let_go)

    def _let_go(self) -> None:
        """Take in what came, and let the workers go that are free now."""
        self._dispatcher.settle(self._ready, datetime.now(UTC), restart=False)
        self._dispatcher.pool.retire()

    def _is_killing(self) -> bool:
        return self._wakeup.stops() > 1

    def _record_stop(self) -> None:
        self._dispatcher.store.commit(lambda _: [{"event": "supervisor_stopped"}])
