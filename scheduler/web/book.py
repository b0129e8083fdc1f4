"""The schedules as their files say now: read in a thread, kept, and read again when a file has changed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from scheduler.dag_files import Stamp, stamp
from scheduler.schedule_model import Schedule
from scheduler.schedules import Configuration, read_configuration, signature
from workers.dag import Dag, load_dag
from workers.errors import InvalidFile, TickpoolError

__all__ = ["Book", "entry_text"]

# A page waits so long for the first reading, and looks for changes no more often than that.
_FIRST_S = 1.0
_LOOK_S = 2.0
_MOST_DAGS = 200
_ENTRY_LINES = 400
_ENTRY_CHARS = 20_000


class Book:
    """The configuration of one directory. `problem` says why it cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problem = ""
        self._known: Configuration | None = None
        self._by_id: dict[str, Schedule] = {}
        self._reading: asyncio.Task[None] | None = None
        self._looked = float("-inf")
        self._has_waited = False
        self._dags: dict[tuple[str, str], tuple[Stamp, Dag | InvalidFile]] = {}

    def known(self) -> Configuration | None:
        """Return what was read last; have it looked at again, in the background, where that is some time ago."""
        if time.monotonic() - self._looked > _LOOK_S:
            self._look()
        return self._known

    async def soon(self) -> Configuration | None:
        """Return what is known; the first time, wait a moment for it."""
        found = self.known()
        if found is None and not self._has_waited and self._reading is not None:
            await asyncio.wait([self._reading], timeout=_FIRST_S)
            self._has_waited = True
        return self._known

    async def fresh(self) -> Configuration | None:
        """Return the configuration as the files say it now, however long that takes."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await asyncio.wait([self._look()])
        return self._known

    def schedule(self, name: str) -> Schedule | None:
        """Return a schedule of what was read last."""
        return self._by_id.get(name)

    def names(self) -> list[str]:
        """Return the schedules of what was read last."""
        return list(self._by_id)

    def dag_of(self, schedule: Schedule) -> Dag | InvalidFile:
        """Return a schedule's DAG, or its faults; read again when its file has changed. For a thread."""
        project = Path(schedule.project)
        path, key = project / schedule.dag, (schedule.project, schedule.dag)
        now, known = stamp(path), self._dags.get(key)
        if known is None or known[0] != now:
            found: Dag | InvalidFile
            try:
                found = load_dag(path, project)
            except InvalidFile as error:
                found = error
            if len(self._dags) >= _MOST_DAGS:
                self._dags.clear()
            known = self._dags[key] = (now, found)
        return known[1]

    def _look(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            found = await run_in_threadpool(self._read_if_changed)
        except TickpoolError as error:
            self.problem = str(error)
        else:
            self.problem = ""
            if found is not self._known:
                self._known, self._by_id = found, {each.id: each for each in found.schedules}
        self._looked = time.monotonic()

    def _read_if_changed(self) -> Configuration:
        known = self._known
        return (
            known if known is not None and signature(known) == known.signature else read_configuration(self.directory)
        )


def entry_text(schedule: Schedule) -> str:
    """Return a schedule's entry as it stands in its file: from its line to the next entry. Raises OSError."""
    with open(schedule.file, encoding="utf-8", errors="replace") as file:
        lines = [line for number, line in enumerate(file, 1) if number >= schedule.line][:_ENTRY_LINES]
    kept = lines[:1]
    dash = len(kept[0]) - len(kept[0].lstrip()) if kept else 0
    for line in lines[1:]:
        text = line.lstrip()
        if text and not text.startswith("#") and len(line) - len(text) <= dash:
            break
        kept.append(line)
    while kept and (not kept[-1].strip() or kept[-1].startswith("#")):
        kept.pop()
    return "".join(kept)[:_ENTRY_CHARS].rstrip("\n")
