"""The watch over the files that schedules with `on_file` wait for: one look a tick, no inotify.

A look is a stat(2), which works on every file system and loses nothing while nobody looks. A file counts once it has
not changed for `stable_for`: a program that still writes it is left to finish.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from stat import S_ISREG
from typing import Any, NamedTuple

__all__ = ["FileId", "FileWatch", "WatchedFile", "file_at", "rested"]

# What tells one file from the next at the same path.
FileId = dict[str, Any]


class WatchedFile(NamedTuple):
    """What one schedule waits for: a regular file at `path` that has not changed for `stable_s` seconds."""

    schedule_id: str
    path: str
    stable_s: float


class FileWatch:
    """Files and since when each has been as it is, by a monotonic clock: the wall clock may be set."""

    def __init__(self, files: Iterable[WatchedFile] = ()) -> None:
        self._files = list(files)
        self._seen: dict[str, tuple[FileId, float]] = {}

    def replace(self, files: Iterable[WatchedFile]) -> None:
        """Watch other files; those that are watched already keep how long they have rested."""
        self._files = list(files)
        kept = {each.path for each in self._files}
        self._seen = {path: seen for path, seen in self._seen.items() if path in kept}

    def look(self, monotonic_s: float) -> Iterator[tuple[str, FileId]]:
        """Yield the schedules whose file lies there and has rested, and which file it is."""
        looks: dict[str, FileId | None] = {}
        for each in self._files:
            if each.path not in looks:
                looks[each.path] = self._look(each.path, monotonic_s)
            found = looks[each.path]
            if found is not None and monotonic_s - self._seen[each.path][1] >= each.stable_s:
                yield each.schedule_id, found

    def _look(self, path: str, monotonic_s: float) -> FileId | None:
        found = file_at(path)
        if found is None:
            self._seen.pop(path, None)
        elif path not in self._seen or self._seen[path][0] != found:
            self._seen[path] = (found, monotonic_s)
        return found


def rested(files: Iterable[WatchedFile], now_s: float) -> Iterator[tuple[str, FileId]]:
    """Yield the same by one look, at `now_s` since the Unix epoch: a file has rested since it was last written."""
    for each in files:
        found = file_at(each.path)
        if found is not None and now_s - datetime.fromisoformat(found["mtime"]).timestamp() >= each.stable_s:
            yield each.schedule_id, found


def file_at(path: str) -> FileId | None:
    """Return what tells one file from the next at the same path, or None while there is no regular file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not S_ISREG(found.st_mode):
        return None
    changed = datetime.fromtimestamp(found.st_mtime_ns // 1_000_000_000, UTC).replace(tzinfo=None).isoformat()
    mtime = f"{changed}.{found.st_mtime_ns % 1_000_000_000:09d}Z"
    return {"path": path, "size": found.st_size, "mtime": mtime, "inode": found.st_ino}
