"""An operating system that refuses: the Nth call on files of a process fails, as SQLite's tests have it.

The functions of `os` are played in a fork that does one thing under them. A case below is a generator: what is before
its `yield` goes well, what is behind it meets the fault. Afterwards the same process has to be able to go on.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scheduler import cli
from workers.event_log import EventLog, LogNotFlushed, LogUnwritable
from workers.lock import LockTimeout
from workers.segments import LogReader, LogUnreadable, list_segments, read_backward, rotated_path

SHORT = "short"  # no error: a write takes half, as on a disk that is getting full
# fmt: off
_CALLS = (
    "open", "close", "read", "write", "pread", "fsync", "fdatasync", "ftruncate", "rename", "link", "unlink", "stat",
    "lstat", "fstat", "mkdir", "scandir", "readlink", "fchmod", "fchown", "dup",
)
# fmt: on
_HANGS_S = 60


class Refusals:
    """Lets the calls from number `first` on fail with the errors of these names, one each, while it is on."""

    def __init__(self, first: int, errors: Sequence[str]) -> None:
        self.calls: list[str] = []
        self.refused: list[str] = []
        self.is_on = False
        self._errors = dict(enumerate(errors, first))
        for module, names in ((os, _CALLS), (fcntl, ["flock"]), (io, ["open"])):
            for name in names:
                setattr(module, name, self._played(name, getattr(module, name)))

    def _played(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def played(*args: Any, **options: Any) -> Any:
            if not self.is_on or _is_pythons_own():
                return call(*args, **options)
            self.calls.append(name)
            error = self._errors.get(len(self.calls))
            if error is None or (error == SHORT and name != "write"):
                return call(*args, **options)
            self.refused.append(name)
            if error == SHORT:
                return call(args[0], args[1][: len(args[1]) // 2])
            if name == "close":  # Linux closes it all the same (close(2))
                call(*args, **options)
            number = getattr(errno, error)
            path = args[0] if args and isinstance(args[0], str | os.PathLike) else None
            raise OSError(number, os.strerror(number), path)

        return played


def _is_pythons_own() -> bool:
    """Say whether `multiprocessing` calls, for its pipes and semaphores: what it makes of errors is its own affair."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if "/multiprocessing/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


class Notes:
    """What the process was told: which keys are on record, which are not, and what it should never have met."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.refused: list[str] = []
        self.wrong: list[str] = []

    def append(self, call: Callable[[], Any], *keys: str) -> None:
        """Do something that appends `keys`."""
        if self.attempt(call):
            self.there += keys
        else:
            self.refused += keys

    def attempt(self, call: Callable[[], Any]) -> bool:
        """Do something that writes; return whether it is on record."""
        try:
            call()
        except LogNotFlushed:
            return True
        except (LogUnwritable, LockTimeout):
            return False
        except Exception:  # noqa: BLE001 - whatever it is, it should not have come
            self.wrong.append(traceback.format_exc())
        return True

    def read(self, call: Callable[[], Any]) -> Any:
        """Do something that reads; return what it did."""
        try:
            return call()
        except LogUnreadable:
            return None
        except Exception:  # noqa: BLE001 - whatever it is, it should not have come
            self.wrong.append(traceback.format_exc())


def events(*keys: str) -> list[dict[str, str]]:
    """Return an event for each key."""
    return [{"event": "tested", "key": key, "text": "x" * 40} for key in keys]


# -- the cases -------------------------------------------------------------------------------------------------------


def _segments(path: Path, notes: Notes) -> EventLog:
    """Make a log of three segments."""
    log = EventLog(path, fsync="off")
    for number in range(3):
        notes.append(lambda n=number: log.append(*events(f"{n}.0", f"{n}.1")), f"{number}.0", f"{number}.1")  # type: ignore[misc]
        if number < 2:
            log.rotate(0, lambda _new: [{"event": "checkpoint"}])
    log.close()
    return EventLog(path, fsync="always", lock_timeout_s=5)


def _first_append(path: Path, notes: Notes) -> Iterator[EventLog]:
    """The directories are made as well."""
    log = EventLog(path, fsync="always", lock_timeout_s=5)
    yield log
    notes.append(lambda: log.append(*events("a", "b")), "a", "b")


def _append(path: Path, notes: Notes) -> Iterator[EventLog]:
    log = _segments(path, notes)
    log.append({"event": "opened"})
    yield log
    notes.append(lambda: log.append(*events("a", "b")), "a", "b")


def _opening_append(path: Path, notes: Notes) -> Iterator[EventLog]:
    log = _segments(path, notes)
    log.fsync = "interval"
    yield log
    notes.append(lambda: log.append(*events("a")), "a")


def _append_behind_torn(path: Path, notes: Notes) -> Iterator[EventLog]:
    log = _segments(path, notes)
    log.append({"event": "opened"})
    with path.open("ab") as file:
        file.write(b'{"timestamp":"2026-03-01T12:00:00.000000Z","event":"tested","key":"torn')
    yield log
    notes.append(lambda: log.append(*events("a", "b")), "a", "b")


def _append_behind_rotation(path: Path, notes: Notes) -> Iterator[EventLog]:
    log = _segments(path, notes)
    log.append({"event": "opened"})
    other = EventLog(path, fsync="off")
    other.rotate(0, lambda _new: [])
    other.close()
    yield log
    notes.append(lambda: log.append(*events("a", "b")), "a", "b")


def _transact(path: Path, notes: Notes) -> Iterator[EventLog]:
    """Events that others appended are read under the lock; those of a refused decision are news again."""
    log, reader = _segments(path, notes), LogReader(path, from_start=True)
    other = EventLog(path, fsync="off")
    notes.append(lambda: other.append(*events("other")), "other")
    other.close()
    seen: list[str] = []

    def decide(new: list[dict[str, Any]]) -> list[dict[str, str]]:
        seen.extend(event["key"] for event in new if "key" in event)
        return events("a", "b")

    yield log
    notes.append(lambda: log.transact(decide, reader), "a", "b")
    yield log
    seen += [event["key"] for event in reader.read() if "key" in event]
    if missed := {"0.0", "2.1", "other"} - set(seen):
        notes.wrong.append(f"the reader never had {missed}")
    reader.close()


def _append_if(path: Path, notes: Notes) -> Iterator[EventLog]:
    log, reader = _segments(path, notes), LogReader(path)
    yield log
    notes.append(lambda: log.append_if(lambda new: bool(new), events("a"), reader), "a")
    yield log
    reader.close()


def _rotate(path: Path, notes: Notes) -> Iterator[EventLog]:
    log, reader = _segments(path, notes), LogReader(path)
    yield log
    notes.attempt(lambda: log.rotate(1, lambda _new: [{"event": "checkpoint"}], reader))
    notes.append(lambda: log.append(*events("a")), "a")
    yield log
    reader.close()


def _rotate_again(path: Path, notes: Notes) -> Iterator[EventLog]:
    """A rotation was cut off between its two names."""
    log = _segments(path, notes)
    first = list_segments(path)[-1].first_seq
    rotated_path(path, first).hardlink_to(path)
    path.with_name(f"{path.name}.next").write_bytes(b"half a seg")
    yield log
    notes.attempt(lambda: log.rotate(1, lambda _new: [{"event": "checkpoint"}]))


def _prune(path: Path, notes: Notes) -> Iterator[EventLog]:
    """All but one of three segments; what is gone is gone from the oldest on."""
    log = _segments(path, notes)
    notes.there = [key for key in notes.there if key.startswith("2")]
    yield log
    notes.attempt(lambda: log.prune(0, 0.0, 4e9))


def _sync(path: Path, notes: Notes) -> Iterator[EventLog]:
    log = _segments(path, notes)
    log.fsync = "off"
    log.append({"event": "opened"})
    yield log
    notes.attempt(log.sync)


def _read_forward(path: Path, notes: Notes) -> Iterator[EventLog]:
    """A read that was refused is done again from the same place, and no line is there twice."""
    log, reader = _segments(path, notes), LogReader(path, from_start=True)
    yield log
    first = notes.read(reader.read) or []
    yield log
    keys = [event["key"] for event in first + reader.read() if "key" in event]
    if keys != notes.there:
        notes.wrong.append(f"read {keys}")
    reader.close()


def _read_batches(path: Path, notes: Notes) -> Iterator[EventLog]:
    """As a fold does: what was read before a refusal is kept, and the next read goes on behind it."""
    log, reader = _segments(path, notes), LogReader(path, from_start=True)
    found: list[Any] = []

    def fold() -> None:
        for batch in reader.batches():
            found.extend(batch)

    yield log
    notes.read(fold)
    yield log
    fold()
    keys = [event["key"] for event in found if "key" in event]
    if keys != notes.there:
        notes.wrong.append(f"read {keys}")
    reader.close()


def _read_backward(path: Path, notes: Notes) -> Iterator[EventLog]:
    log = _segments(path, notes)
    yield log
    found: list[Any] = []
    notes.read(lambda: found.extend(read_backward(path)))
    yield log
    keys = [event["key"] for event in found if "key" in event]
    if keys != notes.there[::-1][: len(keys)]:
        notes.wrong.append(f"read {keys}")


CASES = {
    name.strip("_"): case
    for name, case in list(globals().items())
    if getattr(case, "__annotations__", {}).get("return") == "Iterator[EventLog]"
}


# -- the process -----------------------------------------------------------------------------------------------------


def serve() -> None:
    """For each line on stdin, a mapping in JSON, do what it says in a fork; answer with what came of it, in JSON."""
    import filelock  # noqa: F401 - it takes longer than a fork lives

    from scheduler import once  # noqa: F401

    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        print(json.dumps(_in_fork(**json.loads(line))), flush=True)


def _in_fork(root: str, **point: Any) -> dict[str, Any]:
    shutil.rmtree(root, ignore_errors=True) if "case" in point else None
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        # A handler of Python's would wait for the call that hangs.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_HANGS_S)
        os.close(answer)
        os.set_inheritable(told, False)
        write, end = os.write, os._exit
        said = _do_case(Path(root), **point) if "case" in point else _call_cli(Path(root), **point)
        write(told, json.dumps(said).encode())
        end(0)
    os.close(told)
    with open(answer, "rb") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(said) if code == 0 and said else {"wrong": [f"it ended with {code}"], "refused_calls": ["?"]}


def _descriptors() -> list[str]:
    return [f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}" for fd in _numbers()]


def _numbers() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


def _do_case(root: Path, case: str, **fault: Any) -> dict[str, Any]:
    notes = Notes()
    before = _descriptors()
    refusals = Refusals(**fault)
    acts = CASES[case](root / "logs" / "log.jsonl", notes)
    log = next(acts)
    refusals.is_on = True
    next(acts, None)
    refusals.is_on = False
    try:
        next(acts, None)
        notes.append(lambda: log.append(*events("later")), "later")
        if notes.refused[-1:] == ["later"]:
            notes.wrong.append("the process could not go on")
        log.close()
    except Exception:  # noqa: BLE001 - whatever it is, it should not have come
        notes.wrong.append(traceback.format_exc())
    if leaked := set(_descriptors()) - set(before):
        notes.wrong.append(f"left open: {leaked}")
    return {"there": notes.there, "refused": notes.refused, "wrong": notes.wrong, **_seen(refusals)}


def _seen(refusals: Refusals) -> dict[str, Any]:
    return {"calls": refusals.calls, "refused_calls": refusals.refused}


def _call_cli(root: Path, words: list[str], environ: dict[str, str], **fault: Any) -> dict[str, Any]:
    """Be the command line in `root`; what it prints goes to the files `out` and `err` there."""
    logging.disable(logging.NOTSET)
    os.chdir(root)
    os.environ.update(environ)
    for fd, name in ((0, os.devnull), (1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), fd)
    refusals = Refusals(**fault)
    refusals.is_on = True
    wrong = []
    code: object = None
    try:
        code = cli.main(words)
    except Exception:  # noqa: BLE001 - whatever it is, it should not have come
        refusals.is_on = False
        wrong.append(traceback.format_exc())
    refusals.is_on = False
    return {"code": code, "wrong": wrong, **_seen(refusals)}
