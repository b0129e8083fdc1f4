"""The grid of tasks tells the last word of each, however long a run's lines stand among those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scheduler.web.run_index import RunIndex, RunRow
from scheduler.web.task_grid import TaskGrid
from workers.events import encode_line, stamp
from workers.segments import Chunk, Position, rotated_path

OF = {"run_id": "long.1", "schedule_id": "long"}
OTHERS = [{"event": "task_started", "run_id": "other.1", "task_id": "t", "text": "x" * 30_000}] * 160
STATE = [
    {"event": "run_requested", **OF},
    {"event": "run_started", **OF, "attempt": 1},
    {"event": "run_finished", **OF, "attempt": 1, "status": "failed", "next_attempt": 2},
    {"event": "run_started", **OF, "attempt": 2},
    {"event": "run_finished", **OF, "attempt": 2, "status": "success"},
]


def word(event: str, task: str, attempt: int = 1, **more: str) -> dict[str, Any]:
    return {"event": event, **OF, "task_id": task, "attempt": attempt, **more}


FIRST = [word("task_started", "load"), word("task_finished", "load", status="failed")]
SECOND = [
    word("task_started", "load", 2),
    word("task_finished", "load", 2, status="success"),
    word("task_started", "tell", 2),
]


def written(log: Path, segments: list[list[dict[str, Any]]]) -> RunRow:
    """Write a log of tasks in segments; return the row of the long run."""
    index, seq = RunIndex(), 1
    index.take(Chunk(Position(1, 0), b"".join(encode_line(stamp(each, 1, "h", 7)) for each in STATE)))
    for number, events in enumerate(segments):
        lines = b"".join(encode_line(stamp(each, seq + place, "h", 7)) for place, each in enumerate(events))
        (log if number == len(segments) - 1 else rotated_path(log, seq)).write_bytes(lines)
        index.take_tasks(Chunk(Position(seq, 0), lines))
        seq += len(events)
    return index.by_id["long.1"]


@pytest.mark.parametrize(
    "segments",
    [
        [[*FIRST, *OTHERS, *SECOND]],
        [FIRST, OTHERS, SECOND],
        [[*FIRST, *SECOND[:1]], [*OTHERS[:9], *SECOND[1:], *OTHERS]],
    ],
    ids=["far apart", "in other segments", "across a rotation"],
)
def test_a_run_whose_lines_stand_far_apart_shows_its_last_attempt(
    tmp_path: Path, segments: list[list[dict[str, Any]]]
) -> None:
    row = written(tmp_path / "tasks.jsonl", segments)
    assert TaskGrid(tmp_path / "tasks.jsonl").of([row])[0].tasks == {"load": "success", "tell": "unfinished"}


def test_what_could_not_be_read_is_read_at_the_next_look(tmp_path: Path) -> None:
    log = tmp_path / "tasks.jsonl"
    row, grid = written(log, [SECOND]), TaskGrid(log)
    log.rename(tmp_path / "away")
    log.mkdir()
    assert grid.of([row])[0].tasks == {}
    log.rmdir()
    (tmp_path / "away").rename(log)
    assert grid.of([row])[0].tasks == {"load": "success", "tell": "unfinished"}
