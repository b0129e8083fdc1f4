"""The events of the state log by their places: a page of them, and those that come.

A place is `SEGMENT-OFFSET`: where the line behind an event begins. It stays true when the log is rotated, and ends with
its segment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from workers.events import Event, decode_line
from workers.lines import line_start
from workers.segments import (
    LogReader,
    LogUnreadable,
    Position,
    Segment,
    list_segments,
    open_segment,
    rotated_path,
)

from .problems import Problem

__all__ = ["Choice", "Followed", "end_of", "id_of", "open_at", "page_of"]

_PLACE = re.compile(r"([1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")
# What opens a segment says what the lines before it have said.
_REPEATED = ("checkpoint", "segment_started")
# One answer looks no further: the next one goes on there.
_MOST_BYTES = 8 << 20


class Choice(NamedTuple):
    """Which events; empty is any. `schedule` is whose run or verdict it is."""

    event: str = ""
    run: str = ""
    schedule: str = ""

    def takes(self, event: Event) -> bool:
        """Say whether an event is asked for."""
        return (
            (event.get("event") not in _REPEATED if not self.event else event.get("event") == self.event)
            and (not self.run or event.get("run_id") == self.run)
            and (not self.schedule or self.schedule in (event.get("schedule_id"), event.get("for_schedule")))
        )


class Followed:
    """The events from a place on, as they come. `is_torn` tells that some before the next one may be gone."""

    def __init__(self, path: str, position: Position, choice: Choice) -> None:
        self.place = position
        self.is_torn = False
        self.read_bytes = 0
        self._path = Path(path)
        self._choice = choice
        self._reader = LogReader(path, position)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read(self) -> Iterator[Event | None]:
        """Yield what is there now, with `place` behind it: the events asked for, and None after each part of the log.

        It ends early, with `is_torn`, where the segment that it has come from was pruned, and perhaps the next one too.
        Raises LogUnreadable.
        """
        for chunk in self._reader.chunks():
            segment, offset = chunk.at
            if segment != self.place.segment and not _has(self._path, self.place.segment):
                self.is_torn = True
                return
            # Not `splitlines`: a line of another hand may have a carriage return between its fields.
            for line in chunk.lines.split(b"\n")[:-1]:
                offset += len(line) + 1
                event = decode_line(line)
                if event is not None and self._choice.takes(event):
                    self.place = Position(segment, offset)
                    yield event
            self.place = Position(segment, offset)
            self.read_bytes += len(chunk.lines)
            yield None


def id_of(place: Position) -> str:
    """Return a place as a client keeps it."""
    return f"{place.segment}-{place.offset}"


def open_at(path: str, text: str, choice: Choice) -> Followed:
    """Return the events from a place on; from the oldest that there is without one. Raises Problem, LogUnreadable."""
    segments = list_segments(Path(path))
    if not text:
        return Followed(path, Position(segments[0].first_seq if segments else 1, 0), choice)
    found = _PLACE.fullmatch(text)
    place = None if found is None else Position(int(found[1]), int(found[2]))
    if place is None or not _is_there(Path(path), segments, place):
        first = f"the oldest that there is is {segments[0].first_seq}-0" if segments else "the log is empty"
        raise Problem(410, "These events are gone", f"the log has no place `{text[:40]}` any more; {first}")
    return Followed(path, place, choice)


def end_of(path: str) -> str:
    """Return the place behind the newest event. Raises LogUnreadable."""
    segments = list_segments(Path(path))
    if not segments:
        return "1-0"
    with _opened(Path(path), segments[-1]) as fd:
        return id_of(Position(segments[-1].first_seq, line_start(fd, os.fstat(fd).st_size)))


def page_of(path: str, text: str, choice: Choice, limit: int) -> tuple[list[Event], str, bool]:
    """Return events from a place on, the place behind them, and whether there is more. Raises Problem, LogUnreadable.

    For a thread: it reads up to 8 MiB.
    """
    followed, events = open_at(path, text, choice), []
    with closing(followed):
        for event in followed.read():
            if event is not None:
                events.append(event)
            if len(events) == limit or followed.read_bytes > _MOST_BYTES:
                break
    with closing(Followed(path, followed.place, choice)) as ahead:
        has_more = any(True for _ in ahead.read())
    return events, id_of(followed.place), has_more


def _is_there(path: Path, segments: list[Segment], place: Position) -> bool:
    """Say whether a line begins, or will begin, at a place."""
    segment = next((each for each in segments if each.first_seq == place.segment), None)
    if segment is None or place.offset == 0:
        return segment is not None or (not segments and place == Position(1, 0))
    with _opened(path, segment) as fd:
        return place.offset <= os.fstat(fd).st_size and os.pread(fd, 1, place.offset - 1) == b"\n"


def _has(path: Path, first_seq: int) -> bool:
    return any(each.first_seq == first_seq for each in list_segments(path))


@contextmanager
def _opened(path: Path, segment: Segment) -> Iterator[int]:
    """Open a segment that was listed, which may have got its rotated name since. Raises LogUnreadable."""
    for place in (segment.path, rotated_path(path, segment.first_seq)):
        fd = open_segment(place)
        if fd is not None:
            try:
                if os.fstat(fd).st_ino == segment.inode:
                    yield fd
                    return
            finally:
                os.close(fd)
    raise LogUnreadable(str(segment.path), "it was removed while the log was read")
