"""What the dashboard counts on from one look to the next is what counting all of it anew comes to."""

from __future__ import annotations

import asyncio
import gzip
import math
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from loops import run_async
from service import Service

from scheduler.history import History
from scheduler.web.feed import Change, Feed
from scheduler.web.past import Past, PastState
from scheduler.web.run_index import RunIndex
from scheduler.web.run_output import LogShelf, text_of
from scheduler.web.views.figures import WINDOWS, Tally, _Window
from workers.events import encode_line, stamp, time_of
from workers.segments import Chunk, Position
from workers.settings import Settings

DAY_S = 86_400.0
NOW_S = datetime(2026, 11, 29, 12, 3, 7, tzinfo=UTC).timestamp()


def at(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat().replace("+00:00", "Z")


def story(name: str, asked_s: float, waits_s: float, takes_s: float, status: str) -> list[dict[str, Any]]:
    of = {"run_id": name, "schedule_id": name.partition(".")[0], "attempt": 1}
    process = {"pid": 7, "starttime": 1, "boot_id": "b"}
    return [
        {"event": "schedule_enqueued", **of, "minute": at(asked_s), "timestamp": at(asked_s), "dag": "d.yaml"},
        {"event": "run_started", **of, **process, "timestamp": at(asked_s + waits_s)},
        {"event": "run_finished", **of, "status": status, "timestamp": at(asked_s + waits_s + takes_s)},
    ]


def drawn(count: int, reach_s: float) -> list[dict[str, Any]]:
    """Return the events of so many runs in order of time, up to now."""
    draw, events = random.Random(3), []
    for number in range(count):
        asked_s = int(NOW_S - reach_s * draw.random())
        status = draw.choice(("success", "success", "failed", "cancelled", "timeout"))
        events += story(f"s{number % 9}.{number}", asked_s, draw.random() * 9, draw.expovariate(1 / 60), status)
    return sorted((each for each in events if moment_of(each) <= NOW_S), key=moment_of)


def moment_of(event: dict[str, Any]) -> float:
    return time_of(event["timestamp"]) or 0.0


def taken(index: RunIndex, events: list[dict[str, Any]], first: int = 1) -> None:
    lines = b"".join(encode_line(stamp(event, seq, "h", 7)) for seq, event in enumerate(events, first))
    index.take(Chunk(Position(1, 0), lines))


@pytest.mark.parametrize("window", WINDOWS)
def test_figures_that_are_counted_on_are_those_of_a_fresh_count(window: str) -> None:
    events, index = drawn(600, 1.2 * WINDOWS[window][0]), RunIndex()
    tally, part = Tally(index), len(events) // 7
    for first in range(0, len(events), part):
        taken(index, events[first : first + part])
        tally.figures(window, moment_of(events[min(first + part, len(events)) - 1]))
    assert tally.figures(window, NOW_S) == Tally(index).figures(window, NOW_S)
    again = {"event": "run_requested", "run_id": index.ended[-3].run_id, "attempt": 2, "retry_of": 1}
    taken(index, [{**again, "timestamp": at(NOW_S)}])
    found = tally.figures(window, NOW_S)
    assert found == Tally(index).figures(window, NOW_S)

    length_s, parts = WINDOWS[window]
    begin_s = (NOW_S // (length_s / parts) - parts + 1) * (length_s / parts)
    ended = [row for row in index.rows if row.ended_s is not None and row.ended_s >= begin_s]
    late = sorted(
        row.late_s for row in index.rows if row.late_s is not None and row.started_s and row.started_s >= begin_s
    )
    assert 0 < found.runs == len(ended) < 600
    assert found.failures == sum(row.status in ("failed", "timeout") for row in ended)
    assert found.late_p50_s == late[(len(late) + 1) // 2 - 1]
    assert sum(each.success for each in found.bins) == sum(row.status == "success" for row in ended)


def test_a_retry_has_nothing_counted_again_that_is_older_than_all_windows() -> None:
    old = [
        event for number in range(400) for event in story(f"old.{number}", NOW_S - 40 * DAY_S + number, 1, 1, "failed")
    ]
    events, index = drawn(100, DAY_S), RunIndex()
    taken(index, [*old, *events])
    tally, counted = Tally(index), list[int]()
    tally.advance(NOW_S)

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is _Window.advance.__code__:
            counted.append(len(frame.f_locals["starts"]) + len(frame.f_locals["ends"]))

    for again in ("old.7", "old.399", index.ended[-1].run_id):
        counted.clear()
        taken(index, [{"event": "run_requested", "run_id": again, "attempt": 2, "retry_of": 1, "timestamp": at(NOW_S)}])
        sys.setprofile(note)
        try:
            tally.advance(NOW_S)
        finally:
            sys.setprofile(None)
        # The hundred of a day, and what was asked for again before.
        assert 200 <= max(counted) <= 203
        assert [tally.figures(name, NOW_S) for name in WINDOWS] == [
            Tally(index).figures(name, NOW_S) for name in WINDOWS
        ]
        ended = {"event": "run_finished", "run_id": again, "attempt": 2, "status": "success", "timestamp": at(NOW_S)}
        taken(index, [ended])
        assert tally.figures("1h", NOW_S) == Tally(index).figures("1h", NOW_S)
    assert tally.figures("30d", NOW_S).runs == sum(row.ended_s is not None for row in index.rows) - 398


def has_folded(feed: Feed) -> bool:
    last = feed.places.piece(math.inf)
    return last is not None and last.end.offset == Path(feed.settings.state_path).stat().st_size


def fed(feed: Feed, events: int) -> Feed:
    """Return a feed when it has read so many events of the state log."""

    async def read() -> None:
        following = asyncio.create_task(feed.run())
        while feed.seq < events or not feed.is_caught_up or not has_folded(feed):
            await asyncio.sleep(0)
        following.cancel()

    run_async(read())
    return feed


def open_of(state: PastState) -> list[tuple[str, str]]:
    return sorted((each.run_id, each.status) for each in [*state.running, *state.waiting])


def ahead(at_s: float) -> list[dict[str, Any]]:
    """Return what a service records at a boot with a clock two hours ahead, before it is set."""
    at_s += 7200
    process = {"pid": 7, "starttime": 1, "boot_id": "b"}
    return [
        {"event": "supervisor_started", **process, "max_parallel": 3, "timestamp": at(at_s)},
        {"event": "schedules_loaded", "specs": {"s9": {"cron": "* * * * *"}}, "timestamp": at(at_s + 1)},
        {"event": "schedule_paused", "schedule_id": "s9", "by": "ann", "timestamp": at(at_s + 2)},
        *story("s9.ahead", int(at_s + 3), 1, 5, "success")[:2],
    ]


@pytest.mark.parametrize("first", ["begin", "checkpoint", "set back"])
def test_the_state_at_each_past_moment_is_that_of_the_whole_fold(tmp_path: Path, first: str) -> None:
    settings = Settings(state_path=f"{tmp_path}/state.jsonl", events_path=f"{tmp_path}/tasks.jsonl")
    specs = {f"s{number}": {"cron": "* * * * *", "dag": "d.yaml", "enabled": True} for number in range(9)}
    events = drawn(1200, 3600)
    mid_s = moment_of(events[len(events) // 2])
    begin_s = moment_of(events[0])
    events += [
        {"event": "schedules_loaded", "specs": specs, "timestamp": at(begin_s)},
        {"event": "schedule_paused", "schedule_id": "s1", "by": "ann", "timestamp": at(mid_s)},
        {"event": "schedule_resumed", "schedule_id": "s1", "by": "ann", "timestamp": at(mid_s + 300)},
        {"event": "drain_started", "by": "bob", "timestamp": at(mid_s + 200)},
        {"event": "schedules_loaded", "specs": {}, "removed": ["s2"], "timestamp": at(mid_s + 100)},
        # A run that is open for some of the time.
        *story("s3.long", int(begin_s) + 60, 5, 900, "success"),
    ]
    events.sort(key=moment_of)
    cut = len(events) // 3 if first == "checkpoint" else 0
    opening = [
        {**line, "timestamp": events[cut]["timestamp"]}
        for line in ([{"event": "segment_started"}, *History(events[:cut]).checkpoint()] if cut else [])
    ]
    kept = [*opening, *events[cut:]]
    # A run that had ended is asked for again, and stays open.
    later = 4 * len(kept) // 5
    ended = next(event["run_id"] for event in kept if event["event"] == "run_finished")
    again = {"event": "run_requested", "run_id": ended, "attempt": 2, "retry_of": 1, "dag": "d.yaml"}
    kept.insert(later, {**again, "timestamp": kept[later]["timestamp"]})
    if first == "set back":
        # A clock that is not set at all tells of no moment.
        early = {"event": "drain_started", "by": "eve", "timestamp": "1970-01-01T00:00:07Z"}
        kept[later // 2 : later // 2] = [*ahead(moment_of(kept[later // 2])), early]
        later += 6
        kept.append({"event": "drain_ended", "by": "eve", "timestamp": "1970-01-01T00:00:07Z"})
    lines = [encode_line(stamp(event, seq, "h", 7)) for seq, event in enumerate(kept, cut + 1)]
    (tmp_path / "state.jsonl").write_bytes(b"".join(lines[:later]))
    feed = fed(Feed(settings), cut + later)
    past = Past(feed)
    check(past, kept[:later])
    with open(tmp_path / "state.jsonl", "ab") as log:
        log.write(b"".join(lines[later:]))
    fed(feed, cut + len(lines))
    assert feed.index.by_id[ended].attempt == 2
    check(past, kept)


def check(past: Past, events: list[dict[str, Any]]) -> None:
    """Compare the state at moments of an hour, and at the last one, with the fold of all events up to each."""
    moments = [*(moment_of(events[0]) + number * 80 for number in range(45)), max(map(moment_of, events))]
    # What was found out on the way forward is used on the way back.
    for moment_s in [*moments, *reversed(moments)]:
        begin_s = moment_of(events[0])
        last = max(place for place, event in enumerate(events) if begin_s <= moment_of(event) <= moment_s)
        whole = History(events[: last + 1])
        state = past.state_at(moment_s)
        assert open_of(state) == sorted((run.run_id, run.status) for run in whole.runs.values())
        assert state.schedules == sum(bool(each.spec) for each in whole.schedules.values())
        assert len(state.paused) == len(list(whole.pauses.in_force(datetime.fromtimestamp(moment_s, UTC))))
        assert (state.drain is None) is (whole.drain is None)


def test_all_who_listen_are_told_the_same_at_once_and_what_came_too_soon_with_the_next(service: Service) -> None:
    service.ask("d.yaml", "first")
    feed = Feed(Settings(state_path=str(service.log), events_path=f"{service.root}/tasks.jsonl"))

    async def listen() -> list[Change]:
        following = asyncio.create_task(feed.run())
        while not feed.is_caught_up:
            await asyncio.sleep(0)
        listeners = [feed.changes(), feed.changes()]
        waiting = [asyncio.ensure_future(anext(each)) for each in listeners]
        while feed.listeners() < 2:
            await asyncio.sleep(0)
        told: list[Change] = []
        for name in ("second", "third"):
            service.ask("d.yaml", name)
        while "third" not in {run_id for change in told for run_id in change.runs}:
            one, other = await asyncio.wait_for(asyncio.gather(*waiting), 20)
            assert one is other
            told.append(one)
            waiting = [asyncio.ensure_future(anext(each)) for each in listeners]
        for each in (following, *waiting):
            each.cancel()
        return told

    told = run_async(listen())
    assert set().union(*(change.runs for change in told)) == {"second", "third"}


# More than the 4 MiB that are read of a log at once.
LINES = 400_000


def test_the_lines_of_a_long_log_keep_their_numbers_and_all_of_them_are_found(tmp_path: Path) -> None:
    place = tmp_path / "r.1" / "1"
    place.mkdir(parents=True)
    text = b"".join(b"line %07d\n" % number for number in range(LINES))
    (place / "t.1.log").write_bytes(text)
    log = LogShelf(tmp_path).read("r.1", 1, None, is_over=True)
    assert (log.first, log.next, log.count, len(log.lines)) == (LINES - 500, LINES, LINES, 500)
    assert [each.parts[0][1] for each in log.lines[:2]] == [f"line {LINES - 500:07d}", f"line {LINES - 499:07d}"]
    found = LogShelf(tmp_path).find("r.1", 1, "t", "LINE 0000042", is_over=True)
    assert [(each.number, found.count) for each in found.lines] == [(42, 1)]
    before = LogShelf(tmp_path).before("r.1", 1, None, 1000, limit=10, is_over=True)
    assert [each.number for each in before.lines] == list(range(990, 1000))
    assert b"".join(text_of(place, "t", is_over=True)) == text
    (place / "t.1.log.gz").write_bytes(gzip.compress(text, 1))
    (place / "t.1.log").unlink()
    assert LogShelf(tmp_path).read("r.1", 1, None, is_over=True) == log
