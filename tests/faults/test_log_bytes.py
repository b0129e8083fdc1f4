"""Damage to the bytes of a log: cut at any byte, one bit turned, writers killed within their write."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import log_attackers
import pytest
from log_attackers import ask
from service import Service

from scheduler.history import History
from scheduler.state_store import StateStore, index_by, last_runs
from workers.event_log import EventLog
from workers.events import Event, decode_line, is_intact
from workers.segments import LogReader, list_segments, read_backward

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]


@pytest.fixture
def real_log(service: Service, wait_for: WaitFor) -> Path:
    """A log of three segments as a real service and a real tick left it."""
    service.schedule("s", "@every 1s", service.dag("d", "true"), catchup="all", overlap="allow")
    supervisor = service.start()
    for segment in range(2):
        asked = [service.ask("dags/d.yaml") for _ in range(4)]
        wait_for(lambda asked=asked: service.has_ended(*asked))
        store = StateStore(EventLog(service.log))

        def is_rotated(store: StateStore = store) -> bool:
            store.refresh()
            return store.rotate(0)

        # On a slow machine many runs are open, and a segment holds more of its checkpoint than of news at first.
        wait_for(is_rotated, timeout=60, what=f"the end of segment {segment}")
        store.close()
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    return service.log


def _read(path: Path) -> tuple[list[Event], int]:
    reader = LogReader(path, from_start=True)
    events = reader.read()
    reader.close()
    return events, reader.corrupt


# -- cut -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that appends as it is told to `tmp_path/cut/log.jsonl`."""
    process = log_attackers.start(log_attackers.append_as_told, str(tmp_path / "cut" / "log.jsonl"))
    yield process
    log_attackers.end(process)


@pytest.mark.parametrize("segment", ["the only segment", "the first line of a new segment"])
def test_a_real_log_cut_at_any_byte_of_its_last_record_is_continued_by_a_real_process(
    real_log: Path, tmp_path: Path, writer: subprocess.Popen[str], figure: Figure, segment: str
) -> None:
    path, torn = tmp_path / "cut" / "log.jsonl", tmp_path / "cut" / "log.jsonl.torn"
    path.parent.mkdir()
    lines = real_log.read_bytes().splitlines(keepends=True)
    if segment != "the only segment":
        old = path.with_name(f"{path.name}.{1:012d}")
        old.write_bytes(b"".join(file.path.read_bytes() for file in list_segments(real_log)[:-1]))
        lines = lines[:1]
    head, last = b"".join(lines[:-1]), lines[-1]
    before = _read(path)[0] + [decode_line(line) for line in lines[:-1]]
    cuts = 0
    for word in ("append", "fresh"):
        for kept in range(len(last)):
            path.write_bytes(head + last[:kept])
            torn.unlink(missing_ok=True)
            seq = int(ask(writer, word))
            events, corrupt = _read(path)
            assert events[: len(before)] == before
            new = ["log_repaired", "tested"] if kept else ["tested"]
            assert [event["event"] for event in events[len(before) :]] == new
            assert (events[-1]["seq"], corrupt) == (seq, 0)
            assert path.read_bytes().startswith(head)
            assert (torn.read_bytes() if kept else b"\n") == last[:kept] + b"\n"
            cuts += 1
    figure(f"{cuts} cuts of {segment}: 0 earlier lines lost, {cuts} of {cuts} next appends readable")


# -- one bit ---------------------------------------------------------------------------------------------------------


def _lines_touched(data: bytes, offset: int) -> set[int]:
    """Return the numbers of the lines that a turned bit may cost: its own; with a newline that goes, the next too."""
    line = data.count(b"\n", 0, offset)
    return {line, line + 1} if data[offset] == 0x0A else {line}


class Place(NamedTuple):
    """A bit of a log."""

    file: str
    offset: int
    bit: int


def _random_places(log: Path, chance: random.Random) -> Iterator[Place]:
    sizes = {segment.path.name: segment.path.stat().st_size for segment in list_segments(log)}
    while True:
        name = chance.choice(list(sizes))
        yield Place(name, chance.randrange(sizes[name]), chance.randrange(8))


def _places_in_the_numbers(log: Path) -> Iterator[Place]:
    """Yield every bit of the `seq` in the first and in the last line of each segment: what all the rest goes by."""
    for segment in list_segments(log):
        data = segment.path.read_bytes()
        for line_start in (0, data.rfind(b"\n", 0, -1) + 1):
            start = data.index(b'"seq":', line_start) + len(b'"seq":')
            for offset in range(start, data.index(b",", start)):
                yield from (Place(segment.path.name, offset, bit) for bit in range(8))


class Flip:
    """A copy of a log with one bit turned."""

    def __init__(self, log: Path, place: Path, bit: Place) -> None:
        files = {segment.path.name: segment.path.read_bytes() for segment in list_segments(log)}
        name, offset, bit_number = bit
        data = files[name]
        self.path = place / log.name
        self.where = str(bit)
        self.touched = _lines_touched(data, offset)
        self.all = [line for content in files.values() for line in content.splitlines(keepends=True)]
        self.good = [
            line
            for each, content in files.items()
            for index, line in enumerate(content.splitlines(keepends=True))
            if each != name or index not in self.touched
        ]
        place.mkdir()
        for each, content in files.items():
            (place / each).write_bytes(content)
        (place / name).write_bytes(data[:offset] + bytes([data[offset] ^ (1 << bit_number)]) + data[offset + 1 :])

    def check_readers(self) -> tuple[int, str]:
        """Return how many lines the readers lost, and what told of the damage."""
        events, corrupt = _read(self.path)
        kept = Counter(map(repr, events))
        assert not Counter(repr(decode_line(line)) for line in self.good) - kept, self.where
        lost = (Counter(repr(decode_line(line)) for line in self.all) - kept).total()
        files = [segment.path.read_bytes() for segment in list_segments(self.path)]
        lines = [line for data in files for line in data.splitlines(keepends=True)]
        bad = [line for line in lines if is_intact(line) is not True]
        # Nothing of what is damaged passes for whole.
        assert bad, self.where
        assert len(lines) - len(bad) == len(self.good), self.where
        if corrupt:
            return lost, "no event"
        return lost, "checksum" if files[-1].endswith(b"\n") else "no newline"

    def check_writer(self) -> None:
        """Append, and read that and all the rest in every way there is."""
        before = len(_read(self.path)[0])
        (appended,) = EventLog(self.path, fsync="off").append({"event": "tested"})
        events, _ = _read(self.path)
        assert events[-1] == appended, self.where
        assert len(events) - before == 1 + (events[-2]["event"] == "log_repaired"), self.where
        assert [event for event in read_backward(self.path) if event] == events[::-1], self.where
        assert last_runs(1, self.path) == [appended]
        assert index_by("event", 10_000, self.path)["tested"] == [appended], self.where
        whole = [decode_line(line) for line in self.good]
        # Behind every whole line; a line that was split uses up two numbers, a mend one.
        assert max(event["seq"] for event in whole if event) < appended["seq"] <= len(self.all) + 3, self.where
        History(events)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_turned_bit_costs_its_own_line_and_stops_no_reader_and_no_writer(
    real_log: Path, tmp_path: Path, count: Count, figure: Figure
) -> None:
    seed = random.randrange(1 << 32)
    places = list(islice(_random_places(real_log, random.Random(seed)), count(100, 1000)))
    figure(f"seed {seed}: {_check_flips(real_log, tmp_path, places)}")


def test_one_turned_bit_in_the_numbers_at_either_end_of_a_segment_costs_its_own_line(
    real_log: Path, tmp_path: Path, figure: Figure
) -> None:
    figure(_check_flips(real_log, tmp_path, list(_places_in_the_numbers(real_log))))


def _check_flips(log: Path, root: Path, places: Collection[Place]) -> str:
    told, most, newlines = Counter[str](), 0, 0
    for place in places:
        flip = Flip(log, root / "flipped", place)
        lost, by = flip.check_readers()
        assert lost <= len(flip.touched), flip.where
        flip.check_writer()
        told[by] += 1
        most = max(most, lost)
        newlines += len(flip.touched) == 2
        shutil.rmtree(flip.path.parent)
    by_what = ", ".join(f"{by} {times}" for by, times in sorted(told.items()))
    return f"{len(places)} turned bits: at most {most} line(s) lost, {newlines} hit a newline; told by: {by_what}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_service_starts_and_serves_on_a_log_with_a_turned_bit(
    real_log: Path, service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    seed, starts = random.randrange(1 << 32), count(2, 40)
    for number, place in enumerate(islice(_random_places(real_log, random.Random(seed)), starts)):
        flip = Flip(real_log, service.root / f"flipped{number}", place)
        service.log = flip.path
        supervisor = service.start(STATE_STORE_PATH=str(flip.path))
        wait_for(service.is_ready, what=f"a service (seed {seed}, {flip.where})")
        asked = service.ask("dags/d.yaml", f"behind.{number}")
        wait_for(lambda asked=asked: service.has_ended(asked), what=f"the run (seed {seed}, {flip.where})")
        supervisor.terminate()
        assert supervisor.wait(10) == 0
        assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
        assert "Traceback" not in service.err(), flip.where
    figure(f"{starts} starts on a log with a turned bit (seed {seed}): {starts} served, 0 tracebacks")


# -- killed within the write -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_writers_killed_within_their_write_cost_nothing_that_was_acknowledged(
    tmp_path: Path, count: Count, figure: Figure
) -> None:
    path, acknowledged = tmp_path / "log.jsonl", tmp_path / "acknowledged"
    seed, kills, others = random.randrange(1 << 32), count(30, 300), 2
    tearers = [
        log_attackers.start(log_attackers.tear_writes, str(path), str(acknowledged), kills // others, seed + number)
        for number in range(others)
    ]
    for process in tearers:
        log_attackers.finish(process)
    promised = acknowledged.read_text("ascii").split()
    events, corrupt = _read(path)
    found = Counter(event["key"] for event in events if "key" in event)
    assert corrupt == 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len(promised) >= kills
    assert [key for key in promised if found[key] != 1] == []
    repaired = sum(event["event"] == "log_repaired" for event in events)
    torn = Path(f"{path}.torn").read_bytes().count(b"\n")
    assert repaired == torn > kills // 2
    figure(
        f"{kills} writers killed within their write (seed {seed}): {len(promised)} acknowledged events, 0 lost, "
        f"0 doubled, {repaired} torn tails moved aside"
    )
