"""The output of a run's tasks as lines of a page: the newest ones, read on while they grow; found; or all, as text."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from workers.segments import LogUnreadable
from workers.task_output import Line, RunOutput

from .ansi import Part, marked, parts_of, plain
from .moments import local

__all__ = ["Log", "LogLine", "LogShelf", "text_of"]

_KEPT = 2000
# Of the logs of all tasks: as many lines as are kept, of 2 KiB each.
_NEWEST_BYTES = 4 * 1024 * 1024
_OPEN = 24
_LINE_CHARS = 8192
_FOUND = 1000
# Each piece of a stream goes to the loop by a thread of its own.
_BATCH_BYTES = 256 * 1024


class LogLine(msgspec.Struct):
    """A line of output: its number in this log from 0, and its text in parts, each `[classes, text]`."""

    number: int
    at_s: float
    task_id: str
    task_attempt: int
    parts: list[Part]


class Log(msgspec.Struct):
    """Lines of the output of an attempt, oldest first. Ask with `after=next` for those that come behind them.

    `first` is the number of the first line; lines before it are not shown, and come with `before=first`. `count` is how
    many there are in all; with `find` the lines are those that hold the word, and `count` is how many do. Of what is
    new, the last 4 MiB are read, of many tasks at least 64 KiB each, and the lines before them counted.
    """

    attempt: int
    task_id: str | None
    lines: list[LogLine]
    first: int
    next: int
    count: int
    is_over: bool


class _Tail:
    """The newest lines of a log, and how many there were in all."""

    def __init__(self, directory: Path, task: str | None) -> None:
        self._directory, self._task = directory, task
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._output = RunOutput(self._directory, self._task)
        self._lines: deque[Line] = deque(maxlen=_KEPT)
        self._count = 0

    def read(self, after: int, limit: int, *, is_over: bool) -> tuple[int, list[Line], int]:
        """Return the number of the first of the newest lines that come from `after` on, those lines, and the next."""
        with self._lock:
            try:
                count, new = self._output.newest(_KEPT, _NEWEST_BYTES, is_over=is_over)
            except LogUnreadable:
                self._begin()  # some of it was read, and would be missing
                raise
            if count > len(new):
                self._lines.clear()
            self._lines.extend(each._replace(text=_short(each.text)) for each in new)
            self._count += count
            first = max(after, self._count - min(limit, len(self._lines)))
            lines = list(islice(self._lines, first - self._count + len(self._lines), None))
            return first, lines, self._count


class LogShelf:
    """The logs that were looked at last. Safe between threads. Whatever reads raises LogUnreadable."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._tails: OrderedDict[tuple[str, int, str | None], _Tail] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self, run_id: str, attempt: int, task: str | None, *, after: int = 0, limit: int = 500, is_over: bool
    ) -> Log:
        """Return the newest lines of a log, those from `after` on; `limit` at most."""
        first, lines, count = self._tail(run_id, attempt, task).read(after, limit, is_over=is_over)
        shown = [_shown(first + place, line) for place, line in enumerate(lines)]
        return Log(attempt, task, shown, first, count, count, is_over)

    def before(
        self, run_id: str, attempt: int, task: str | None, number: int, *, limit: int = 500, is_over: bool
    ) -> Log:
        """Return the lines before one, read anew: a log is longer than what is kept of it."""
        lines = RunOutput(self._logs / run_id / str(attempt), task).lines(is_over=is_over)
        kept: deque[Line] = deque(maxlen=limit)
        count = 0
        for count, line in enumerate(lines, 1):
            if count <= number:
                kept.append(line._replace(text=_short(line.text)))
        last = min(number, count)
        shown = [_shown(place, line) for place, line in enumerate(kept, last - len(kept))]
        return Log(attempt, task, shown, last - len(kept), last, count, is_over)

    def find(self, run_id: str, attempt: int, task: str | None, word: str, *, is_over: bool) -> Log:
        """Return the newest lines that hold a word, in whichever case."""
        output, wanted = RunOutput(self._logs / run_id / str(attempt), task), word.casefold()
        found: deque[tuple[int, Line]] = deque(maxlen=_FOUND)
        number = count = 0
        for number, each in enumerate(output.lines(is_over=is_over), 1):
            if wanted in plain(each.text).casefold():
                found.append((number - 1, each._replace(text=_short(each.text))))
                count += 1
        shown = [_shown(place, each, word) for place, each in found]
        first = shown[0].number if shown else number
        return Log(attempt, task, shown, first, number, count, is_over)

    def _tail(self, run_id: str, attempt: int, task: str | None) -> _Tail:
        key = (run_id, attempt, task)
        with self._lock:
            if key not in self._tails:
                self._tails[key] = _Tail(self._logs / run_id / str(attempt), task)
                if len(self._tails) > _OPEN:
                    self._tails.popitem(last=False)
            self._tails.move_to_end(key)
            return self._tails[key]


def text_of(directory: Path, task: str | None, *, is_over: bool) -> Iterator[bytes]:
    """Yield the output of an attempt as text, as it was written; of several tasks with the time and the task.

    Raises LogUnreadable.
    """
    batch = bytearray()
    for line in RunOutput(directory, task).lines(is_over=is_over):
        batch += _as_text(line, is_alone=task is not None)
        if len(batch) >= _BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)


def _as_text(line: Line, *, is_alone: bool) -> bytes:
    text = line.text
    if not is_alone:
        at = local(line.time_s).isoformat(timespec="milliseconds")
        text = f"{at} {line.task_id} | {text}"
    return f"{text}\n".encode("utf-8", "replace")


def _shown(number: int, line: Line, word: str = "") -> LogLine:
    parts = parts_of(_short(line.text))
    return LogLine(number, line.time_s, line.task_id, line.task_attempt, marked(parts, word) if word else parts)


def _short(text: str) -> str:
    return text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}… {len(text) - _LINE_CHARS} more characters"
