"""Durations: how long runs took, read from a log of any size, backward and bounded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.durations import Durations, durations_of, read_durations
from workers.event_log import EventLog
from workers.events import Event

Write = Callable[..., None]


def end(schedule_id: str | None, duration_s: Any, status: str = "success", **more: Any) -> Event:
    return {"event": "run_finished", "schedule_id": schedule_id, "status": status, "duration_s": duration_s, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.jsonl"


@pytest.fixture
def write(path: Path) -> Write:
    def append(*events: Event, rotate: bool = False) -> None:
        log = EventLog(path, fsync="off")
        for event in events:
            log.append(event)
        if rotate:
            log.rotate(0, lambda _: [])
        log.close()

    return append


def test_a_log_that_is_not_there_has_no_durations(path: Path) -> None:
    assert read_durations(path) == {}


def test_the_durations_of_each_schedule_come_from_all_segments(path: Path, write: Write) -> None:
    write(end("a", 1.0), end("b", 7.5), end("a", 2.0), rotate=True)
    write({"event": "run_started", "schedule_id": "a"}, end("a", 9.0))
    assert read_durations(path) == {"a": Durations(3, 2.0, 9.0, 9.0), "b": Durations(1, 7.5, 7.5, 7.5)}


def test_of_one_schedule_the_newest_ends_count_and_of_the_log_the_newest(path: Path, write: Write) -> None:
    write(end("old", 3.0), *(end("a", float(n)) for n in range(1, 6)), rotate=True)
    write(end("b", 1.0))
    assert read_durations(path, per_schedule=2)["a"] == Durations(2, 4.0, 5.0, 5.0)
    assert read_durations(path, newest=3) == {"b": Durations(1, 1.0, 1.0, 1.0), "a": Durations(2, 4.0, 5.0, 5.0)}


def test_what_does_not_count_is_no_end_of_the_newest(path: Path, write: Write) -> None:
    write(end("a", 1.0), end("a", 2.0, "crashed"), end("a", 3.0, "cancelled"))
    assert read_durations(path, newest=1) == {"a": Durations(1, 1.0, 1.0, 1.0)}


@pytest.mark.parametrize("status", ["success", "failed", "timeout"])
def test_an_end_that_the_work_itself_reached_counts(status: str) -> None:
    assert durations_of([end("a", 2, status)]) == {"a": Durations(1, 2.0, 2.0, 2.0)}


@pytest.mark.parametrize("status", ["cancelled", "crashed", "refused", "unheard_of", None])
def test_an_end_that_somebody_else_made_does_not_count(status: str) -> None:
    assert durations_of([end("a", 2.0, status)]) == {}


def test_each_attempt_counts_as_one() -> None:
    first = end("a", 5.0, "failed", attempt=1, next_attempt=2)
    assert durations_of([end("a", 1.0, attempt=2), first])["a"] == Durations(2, 1.0, 5.0, 5.0)


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"event": "run_finished"},
        {**end("a", 1.0), "event": "task_finished"},
        end(None, 1.0),
        end("", 1.0),
        end("a", None),
        end("a", "1.0"),
        end("a", True),
        end("a", -0.1),
        end("a", math.nan),
        end("a", math.inf),
        {**end("a", 1.0), "schedule_id": ["a"]},
        {**end("a", 1.0), "status": {}},
    ],
)
def test_lines_of_another_hand_and_runs_by_hand_are_passed_over(event: Event | None) -> None:
    assert durations_of([event, end("b", 1.0)]) == {"b": Durations(1, 1.0, 1.0, 1.0)}


def test_a_line_that_is_no_event_costs_no_other(path: Path, write: Write) -> None:
    write(end("a", 1.0))
    with path.open("ab") as file:
        file.write(b'garbage "run_finished"\n')
    write(end("a", 3.0))
    assert read_durations(path)["a"].count == 2


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60))
def test_a_quantile_is_the_least_measured_length_that_its_share_does_not_exceed(lengths: list[float]) -> None:
    found = durations_of(end("a", length) for length in lengths)["a"]
    for share, value in ((50, found.p50_s), (95, found.p95_s), (100, found.max_s)):
        enough = [each for each in lengths if sum(other <= each for other in lengths) * 100 >= share * len(lengths)]
        assert value == min(enough)
    assert found.count == len(lengths)
