"""One OS process of ours: start it, know it again, send it a signal, learn how it ended.

Every process started here leads its own session and process group, so `os.killpg(child.pid, ...)` reaches what it
started, and its pid names the session for `process_tree.sweep`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from .errors import TickpoolError
from .process_id import Identity, Stat, identity, is_alive, read_stat

__all__ = [
    "UMASK",
    "CannotStart",
    "Child",
    "Exit",
    "Identity",
    "Stat",
    "fork",
    "identity",
    "is_alive",
    "read_stat",
    "spawn",
]

# What a task writes is its user's own, whatever the umask of the service: that one is for logs that a group may read.
UMASK = 0o077
_PR_SET_PDEATHSIG = 1


class Exit(NamedTuple):
    """How a process ended and what it used; exactly one of `exit_code` and `signal` is set unless another reaped it."""

    exit_code: int | None
    signal: int | None
    max_rss_kib: int
    cpu_user_s: float
    cpu_sys_s: float


class CannotStart(TickpoolError):
    """A process that never came to be: the code a shell would give (127 not found, 126 not executable), and why."""

    def __init__(self, exit_code: int | None, why: str) -> None:
        super().__init__(exit_code, why)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[1])


class Child:
    """A child of this process that leads its own session, and the pidfd that turns readable when it ends."""

    __slots__ = ("_popen", "pid", "pidfd")

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._popen = popen
        self.pidfd = os.pidfd_open(pid)

    def signal_group(self, number: int) -> None:
        """Send a signal to its whole process group; nothing happens when all have gone. Only before `reap`."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self) -> Exit:
        """Wait for it to end and take its status. To be called once; closes the pidfd."""
        os.close(self.pidfd)
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            # Somebody else in this process waits for any child, or SIGCHLD is ignored: the status is lost.
            return self._ended(Exit(None, None, 0, 0.0, 0.0))
        code = os.waitstatus_to_exitcode(status)
        return self._ended(
            Exit(
                code if code >= 0 else None,
                -code if code < 0 else None,
                usage.ru_maxrss,
                round(usage.ru_utime, 6),
                round(usage.ru_stime, 6),
            )
        )

    def _ended(self, end: Exit) -> Exit:
        if self._popen is not None:
            # Or Popen's finaliser would take the pid for one that still runs; 0 is its own word for a lost status.
            self._popen.returncode = -end.signal if end.signal is not None else end.exit_code or 0
        return end


def spawn(argv: Sequence[str], *, env: Mapping[str, str], cwd: str, output: int) -> Child:
    """Start a command in its own session: stdin empty, stdout and stderr on the descriptor `output`, the rest closed.

    Its umask is UMASK. Raises CannotStart.
    """
    try:
        # Without preexec_fn CPython uses vfork here, which is as fast as posix_spawn; a umask changes nothing in that.
        popen = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=UMASK,
        )
    except (OSError, ValueError) as error:
        raise _cannot_start(error, argv[0] if argv else "", cwd) from error
    return _watched(popen.pid, popen)


def _watched(pid: int, popen: subprocess.Popen[bytes] | None = None) -> Child:
    try:
        return Child(pid, popen)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if popen is not None:
            popen.returncode = -signal.SIGKILL
        raise _cannot_start(error, "pidfd", "") from error


def _cannot_start(error: OSError | ValueError, program: str, cwd: str) -> CannotStart:
    if not isinstance(error, OSError):
        return CannotStart(126, f"cannot start `{program}`: {error}")
    if cwd and error.filename == cwd and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
        return CannotStart(None, f"cannot enter the working directory `{cwd}`: {os.strerror(error.errno)}")
    number = error.errno or 0
    if number == errno.ENOENT:
        return CannotStart(127, f"`{program}`: command not found")
    hints = {
        errno.EACCES: "permission denied; is it executable?",
        errno.ENOEXEC: "not a program this system can run; does its first line lack `#!`?",
        errno.E2BIG: "its arguments and environment are too long together",
    }
    if number in hints:
        return CannotStart(126, f"`{program}`: {hints[number]}")
    return CannotStart(None, f"cannot start `{program}`: {os.strerror(number)}")


def fork(body: Callable[[], int], *, output: int, keep: int) -> Child:
    """Run `body` in a forked child with its own session and exit with what it returns.

    The child has stdin empty, stdout and stderr on `output`, default signal handlers and UMASK; of all other
    descriptors `keep`, and the pipe to multiprocessing's resource tracker if there is one. It is killed when this
    process dies. Raises CannotStart.
    """
    _flush_streams()
    dies_with_us = threading.current_thread() is threading.main_thread()
    parent = os.getpid()
    set_death_signal = prctl()
    # A signal between the fork and the child's fresh handlers would run the parent's handler in the child.
    handled = _handled_signals()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        pid = _fork_quietly()
        if pid == 0:
            _become_task(body, output, keep, (handled, mask), (set_death_signal, parent) if dies_with_us else None)
    except OSError as error:
        raise _cannot_start(error, "a forked Python", "") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return _watched(pid)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _fork_quietly() -> int:
    if threading.active_count() == 1:
        return os.fork()
    with warnings.catch_warnings():
        # Python >= 3.12 warns; a script that has threads and wants isolated calls has been told in the reference.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _become_task(
    body: Callable[[], int],
    output: int,
    keep: int,
    signals: tuple[Sequence[int], Iterable[int]],
    tie: tuple[Callable[..., int], int] | None,
) -> None:
    """Never return: the frames above belong to the parent."""
    code = 70
    try:
        os.setsid()
        os.umask(UMASK)
        if tie is not None:
            tie[0](_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != tie[1]:
                os._exit(code)
        handled, mask = signals
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        _keep_only(output, keep)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = body()
        _flush_streams()
    except BaseException:  # noqa: BLE001 - the last frame of the process
        sys.excepthook(*sys.exc_info())
        _flush_streams()
    finally:
        os._exit(code)


def _handled_signals() -> tuple[int, ...]:
    # Not the real-time ones: asking for a handler costs a microsecond, and each fork asks.
    return tuple(number for number in range(1, 32) if callable(signal.getsignal(number)))


def _keep_only(output: int, keep: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # multiprocessing in a task must still reach the resource tracker it was born with (CPython gh-88887 shows why).
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    kept = sorted({keep, *([tracker._fd] if tracker is not None and tracker._fd is not None else [])})
    start = 3
    for fd in kept:
        os.closerange(start, fd)
        start = max(start, fd + 1)
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


@functools.cache
def prctl() -> Callable[..., int]:
    """Return the C library's prctl(2)."""
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return function
