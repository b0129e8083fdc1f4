"""Events read backward: those of one run, and those that are not older than a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from scheduler.state_store import record_event
from workers.events import Event
from workers.run_events import events_of_run, newer_than

NOW = datetime(2026, 11, 23, 15, 5, tzinfo=UTC)


def at(minutes: int, **fields: object) -> Event:
    return {"timestamp": (NOW + timedelta(minutes=minutes)).isoformat(), **fields}


def test_events_up_to_a_moment_are_those_that_are_not_older() -> None:
    events = [at(3), at(2), at(0), at(-1), at(-2)]
    assert list(newer_than(NOW, events)) == events[:3]


def test_a_few_lines_with_a_wrong_time_hide_nothing_and_many_old_ones_end_the_reading() -> None:
    wrong: list[Event] = [{"timestamp": "1970-01-01T00:00:00Z"}, {"timestamp": "soon"}, {"timestamp": 5}, {}]
    assert list(newer_than(NOW, [at(3), *wrong, at(1), *wrong, at(-1)])) == [at(3), at(1)]
    read = 0

    def old() -> object:
        nonlocal read
        while True:
            read += 1
            yield at(-1)

    assert list(newer_than(NOW, old())) == []  # type: ignore[arg-type]
    assert read == 1000


def test_the_events_of_a_run_are_read_back_to_its_request(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    day = 24 * 60
    for number in range(3):
        record_event(at(2 * day * number, event="task_started", run_id=f"r{number % 2}", n=number), log)
    assert [event["n"] for event in events_of_run(log, "r0")] == [2, 0]
    assert [event["n"] for event in events_of_run(log, "r0", at(3 * day)["timestamp"])] == [2]
    # A clock may have been set back by less than a day.
    assert [event["n"] for event in events_of_run(log, "r0", at(day - 1)["timestamp"])] == [2, 0]
    assert [event["n"] for event in events_of_run(log, "r")] == []
