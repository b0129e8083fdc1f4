"""The feed: follows both logs, keeps their folds in step, and tells whoever listens what has changed.

It is a task of the server's own loop, so that no page sees a fold that is half done, and reads in slices, so that no
page waits for it. What went before is read first, while pages are served already.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from scheduler.history import History
from workers.errors import TickpoolError
from workers.events import Event, decode_lines
from workers.segments import Chunk, LogReader
from workers.settings import Settings

from .fire_times import FireTimes
from .incidents import Incidents
from .period_counts import PeriodCounts, asked_s, fire_s
from .places import Places
from .run_ends import RunEnds
from .run_index import RunIndex
from .standing import Standing
from .views.figures import Tally

__all__ = ["Change", "Feed"]

logger = logging.getLogger(__name__)

_LOOK_S = 0.03
# A page that is told more often has no time to show it. All are told at once, and the same.
_LEAST_S = 0.1
_SEEN_WITHIN_S = 2.0
# Longer than this in one go would hold up a page.
_SLICE_S = 0.008


class Change(NamedTuple):
    """What has changed up to the line `seq`: the runs and schedules concerned."""

    seq: int
    runs: frozenset[str]
    schedules: frozenset[str]

    def and_later(self, more: Change) -> Change:
        """Return the one change that both are."""
        return Change(more.seq, self.runs | more.runs, self.schedules | more.schedules)


class Feed:
    """The folds of the logs as they are now, and the changes as they come."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history = History()
        self.index = RunIndex()
        self.tally = Tally(self.index)
        self.fire_times = FireTimes()
        self.incidents = Incidents()
        self.days = PeriodCounts(fire_s)
        self.lanes = PeriodCounts(asked_s)
        self.ends = RunEnds()
        self.standing = Standing()
        self.places = Places()
        # How often schedules were loaded: who keeps what depends on their specs makes it anew when it has grown.
        self.loads = 0
        self.seq = 0
        # Counts what was read: as long as it stays, so does all that the logs say.
        self.version = 0
        self.corrupt = 0
        self.is_caught_up = False
        self.read_bytes = 0
        self.all_bytes = 0
        self.has_ended = False
        # Why a log cannot be read at present, and what this code has stumbled over, which stays.
        self._unread = self._fault = ""
        self._present = LogReader(settings.state_path)
        self._past = LogReader(settings.state_path, from_start=True)
        self._tasks = LogReader(settings.events_path, from_start=True)
        self._listeners: set[asyncio.Queue[Change]] = set()
        self._untold: Change | None = None
        self._told_at = float("-inf")

    async def run(self) -> None:
        """Follow the logs until it is cancelled. Whatever comes, it is logged, `problem` tells it, and it goes on."""
        self.all_bytes = sum(_size_of(path) for path in (self.settings.state_path, self.settings.events_path))
        while True:
            is_done = True
            try:
                is_done = await self._look()
            except Exception as error:  # the feed's edge: whoever looks at a page must not see what was for what is
                fault = f"the dashboard passed over a part of the logs: {type(error).__name__}: {error}"
                # As it may come each time.
                if fault != self._fault:
                    logger.exception("the dashboard passed over a part of the logs")
                self._fault = fault
                self.announce()
            await asyncio.sleep(_LOOK_S if is_done else 0)

    @property
    def problem(self) -> str:
        """Say why pages may not tell what is; empty where they do."""
        return self._unread or self._fault

    async def _look(self) -> bool:
        """Take in what is new; say whether all is done that there is to do."""
        if changed := self._guarded(self._look_at_present):
            self._note_change(changed)
        runs: set[str] = set()
        async for chunk in self._in_slices(self._past):
            rows = self.index.take(chunk)
            self.days.note(rows)
            self.lanes.note(rows)
            self.tally.advance(time.time())
            self.incidents.take(chunk)
            self.ends.take(chunk)
            self.standing.take(chunk)
            self.places.take(chunk)
            runs.update(row.run_id for row in rows)
        async for chunk in self._in_slices(self._tasks):
            runs |= self.index.take_tasks(chunk)
        if not self.is_caught_up:
            self.is_caught_up = True
            self.announce()
        elif runs:
            self._note_change(Change(self.seq, frozenset(runs), frozenset()))
        if time.monotonic() - self._told_at >= _LEAST_S:
            self._tell()
        return self.fire_times.refresh(self.history, self.loads, datetime.now(UTC), _SLICE_S)

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yield what changes from now on, until the feed has ended; of a listener that is slow, several become one."""
        queue: asyncio.Queue[Change] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        try:
            while not self.has_ended:
                yield _merged(await queue.get(), queue)
        finally:
            self._listeners.discard(queue)

    async def until_seen(self, run_id: str, attempt: int = 1) -> None:
        """Wait until pages know of an attempt that was asked for; for two seconds at most."""
        deadline = time.monotonic() + _SEEN_WITHIN_S
        while time.monotonic() < deadline:
            row = self.index.by_id.get(run_id)
            if row is not None and row.attempt >= attempt:
                break
            await asyncio.sleep(_LOOK_S / 2)

    def listeners(self) -> int:
        """Return how many listen."""
        return len(self._listeners)

    def announce(self) -> None:
        """Tell those who listen that there is something to see that no log has brought."""
        self._note_change(Change(self.seq, frozenset(), frozenset()))
        self._tell()

    def end(self) -> None:
        """Let those who listen go."""
        self.has_ended = True
        self.announce()

    def _note_change(self, change: Change) -> None:
        self.version += 1
        self._untold = change if self._untold is None else self._untold.and_later(change)

    def _tell(self) -> None:
        change, self._untold = self._untold, None
        if change is None:
            return
        self._told_at = time.monotonic()
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(change)

    def _look_at_present(self) -> Change | None:
        """Fold in what was appended; return what that changed."""
        runs: set[str] = set()
        schedules: set[str] = set()
        came = False
        for chunk in self._present.chunks():
            events, corrupt = decode_lines(chunk.lines)
            self.corrupt += corrupt
            for event in events:
                came = True
                self.history.apply(event)
                self._note(event, runs, schedules)
        return Change(self.seq, frozenset(runs), frozenset(schedules)) if came else None

    def _note(self, event: Event, runs: set[str], schedules: set[str]) -> None:
        name = event.get("event")
        if type(event.get("seq")) is int:
            self.seq = event["seq"]
        self.loads += name in ("checkpoint", "schedules_loaded")
        if name in ("checkpoint", "segment_started"):
            return
        for key, found in (("run_id", runs), ("schedule_id", schedules), ("for_schedule", schedules)):
            if isinstance(event.get(key), str):
                found.add(event[key])
        if isinstance(event.get("specs"), dict):
            schedules.update(event["specs"])

    async def _in_slices(self, reader: LogReader) -> AsyncIterator[Chunk]:
        """Yield what is new in a log, and let the pages have their turn in between."""
        began = time.monotonic()
        try:
            for chunk in reader.chunks():
                yield chunk
                if not self.is_caught_up:
                    self.read_bytes += len(chunk.lines)
                if time.monotonic() - began > _SLICE_S:
                    await asyncio.sleep(0)
                    began = time.monotonic()
        except TickpoolError as error:
            self._unread = str(error)

    def _guarded(self, look: Callable[[], Change | None]) -> Change | None:
        try:
            found = look()
        except TickpoolError as error:
            self._unread = str(error)
            return None
        self._unread = ""
        return found


def _merged(change: Change, queue: asyncio.Queue[Change]) -> Change:
    while not queue.empty():
        change = change.and_later(queue.get_nowait())
    return change


def _size_of(path: str) -> int:
    at = Path(path)
    try:
        return sum(each.stat().st_size for each in at.parent.glob(f"{at.name}*") if _is_segment(each, at))
    except OSError:
        return 0


def _is_segment(path: Path, log: Path) -> bool:
    return path == log or path.name.removeprefix(f"{log.name}.").isdecimal()
