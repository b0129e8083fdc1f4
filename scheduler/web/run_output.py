"""The output of a run's tasks as lines of a page: the newest ones, read on while they grow; found; or all, as text."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from workers.task_output import Line, RunOutput

from .ansi import Part, marked, parts_of, plain

__all__ = ["Log", "LogLine", "LogShelf", "text_of"]

_KEPT = 2000
_OPEN = 24
_LINE_CHARS = 8192
_FOUND = 1000
# Each piece of a stream goes to the loop by a thread of its own.
_BATCH = 2000


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
    many there are in all; with `find` the lines are those that hold the word, and `count` is how many do.
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
        self._output = RunOutput(directory, task)
        self._lines: deque[Line] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._count = 0

    def read(self, after: int, limit: int, *, is_over: bool) -> tuple[int, list[Line], int]:
        """Return the number of the first of the newest lines that come from `after` on, those lines, and the next."""
        with self._lock:
            new = self._output.read(is_over=is_over)
            self._lines.extend(each._replace(text=_short(each.text)) for each in new)
            self._count += len(new)
            first = max(after, self._count - min(limit, len(self._lines)))
            lines = list(islice(self._lines, first - self._count + len(self._lines), None))
            return first, lines, self._count


class LogShelf:
    """The logs that were looked at last. Safe between threads."""

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
        lines = RunOutput(self._logs / run_id / str(attempt), task).read(is_over=is_over)
        last = min(number, len(lines))
        first = max(0, last - limit)
        shown = [_shown(place, lines[place]) for place in range(first, last)]
        return Log(attempt, task, shown, first, last, len(lines), is_over)

    def find(self, run_id: str, attempt: int, task: str | None, word: str, *, is_over: bool) -> Log:
        """Return the newest lines that hold a word, in whichever case."""
        output, wanted = RunOutput(self._logs / run_id / str(attempt), task), word.casefold()
        lines = output.read(is_over=is_over)
        found = [(number, each) for number, each in enumerate(lines) if wanted in plain(each.text).casefold()]
        shown = [_shown(number, each, word) for number, each in found[-_FOUND:]]
        first = shown[0].number if shown else len(lines)
        return Log(attempt, task, shown, first, len(lines), len(found), is_over)

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
    """Yield the output of an attempt as text, as it was written; of several tasks with the time and the task."""
    lines = RunOutput(directory, task).read(is_over=is_over)
    for first in range(0, len(lines), _BATCH):
        yield b"".join(_as_text(line, is_alone=task is not None) for line in lines[first : first + _BATCH])


def _as_text(line: Line, *, is_alone: bool) -> bytes:
    text = line.text
    if not is_alone:
        at = datetime.fromtimestamp(line.time_s).astimezone().isoformat(timespec="milliseconds")
        text = f"{at} {line.task_id} | {text}"
    return f"{text}\n".encode("utf-8", "replace")


def _shown(number: int, line: Line, word: str = "") -> LogLine:
    parts = parts_of(_short(line.text))
    return LogLine(number, line.time_s, line.task_id, line.task_attempt, marked(parts, word) if word else parts)


def _short(text: str) -> str:
    return text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}… {len(text) - _LINE_CHARS} more characters"
