"""What the pages of schedules keep, and that it is as true as what it was made from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from scheduler.schedule_model import Schedule
from scheduler.web.book import entry_text
from scheduler.web.charts import calendar, hours, squares
from scheduler.web.incidents import Incidents
from scheduler.web.period_counts import Day, PeriodCounts, days_of, fire_s
from scheduler.web.run_index import RunIndex
from scheduler.web.task_grid import TaskGrid
from scheduler.web.views.forecast import HourLoad
from scheduler.web.views.schedules import Outcome
from workers.segments import Chunk, LogReader, Position

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")


def chunk(*events: dict[str, Any]) -> Chunk:
    return Chunk(Position(1, 0), b"".join(json.dumps(event).encode() + b"\n" for event in events))


def run(number: int, at: str, status: str | None = "success") -> list[dict[str, Any]]:
    names = {"run_id": f"s.{number}", "schedule_id": "s", "attempt": 1, "timestamp": at}
    asked = {"event": "schedule_enqueued", "minute": at, **names}
    return [asked, *([{"event": "run_finished", "status": status, "duration_s": 1.0, **names}] if status else [])]


def busy(days: list[Day]) -> list[tuple[str, int, int]]:
    return [(day.day, day.runs, day.failures) for day in days if day.runs]


def test_days_are_counted_on_and_a_retry_of_an_old_run_changes_its_day() -> None:
    index, counts = RunIndex(), PeriodCounts(fire_s)

    def take(*events: dict[str, Any]) -> list[tuple[str, int, int]]:
        counts.note(index.take(chunk(*events)))
        return busy(days_of(counts, "s", index.of_schedule["s"], NOW, ZONE))

    # Half past eleven in London is the next day in Berlin.
    assert take(*run(1, "2026-11-20T23:30:00Z", "failed")) == [("2026-11-21", 1, 1)]
    assert take(*run(2, "2026-11-22T10:00:00Z", None)) == [("2026-11-21", 1, 1), ("2026-11-22", 1, 0)]
    assert take(*run(3, "2026-11-22T11:00:00Z"), run(2, "2026-11-22T10:00:00Z", "timeout")[1])[1] == (
        "2026-11-22",
        2,
        1,
    )
    again = {"event": "run_requested", "run_id": "s.1", "schedule_id": "s", "retry_of": 1, "attempt": 2}
    ended = {"event": "run_finished", "run_id": "s.1", "attempt": 2, "status": "success"}
    assert take(again, ended)[0] == ("2026-11-21", 1, 0)


def test_a_run_of_a_backfill_is_counted_on_the_day_of_its_fire_time() -> None:
    index = RunIndex()
    index.take(chunk(*({**each, "minute": "2026-03-01T10:00:00Z"} for each in run(1, "2026-11-20T10:00:00Z"))))
    assert busy(days_of(PeriodCounts(fire_s), "s", index.of_schedule["s"], NOW, ZONE)) == [("2026-03-01", 1, 0)]


def test_a_year_of_days_begins_on_a_monday_and_ends_today() -> None:
    days = days_of(PeriodCounts(fire_s), "s", [], NOW, ZONE)
    assert (days[0].day, days[-1].day) == ("2025-11-24", "2026-11-28")
    assert datetime.fromisoformat(days[0].day).weekday() == 0


def test_slots_that_did_not_run_are_kept_the_newest_first_and_not_for_ever() -> None:
    incidents = Incidents()
    for minute in range(30):
        at = f"2026-11-28T10:{minute:02}:00Z"
        incidents.take(chunk({"event": "schedule_skipped", "schedule_id": "s", "minute": at, "reason": f"r{minute}"}))
    incidents.take(Chunk(Position(1, 0), b'{"event":"schedule_skipped","schedule_id":7}\n"schedule_missed\n'))
    assert [each.reason for each in incidents.not_run("s")][:2] == ["r29", "r28"]
    assert len(list(incidents.not_run("s"))) == 20


def test_a_service_that_stopped_has_not_died() -> None:
    incidents = Incidents()
    at = {"timestamp": "2026-11-28T10:00:00Z"}
    incidents.take(
        chunk({"event": "supervisor_started", "pid": 7, **at}, {"event": "supervisor_stopped", "pid": 7, **at})
    )
    incidents.take(chunk({"event": "supervisor_started", "pid": 8, **at}))
    assert not incidents.deaths
    incidents.take(chunk({"event": "supervisor_started", "pid": 9, **at}))
    assert [(each.kind, each.pid) for each in incidents.deaths] == [("service", 8)]


def test_the_grid_tells_the_newest_attempt_and_the_worst_of_a_tasks_items(tmp_path: Path) -> None:
    def task(event: str, task_id: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
        return {"event": event, "run_id": "s.1", "attempt": attempt, "task_id": task_id, **more}

    lines = chunk(
        task("task_finished", "a", status="failed"),
        task("task_kept", "a", 2),
        {**task("task_finished", "a", 2, status="failed"), "run_id": "s.2"},
        task("task_finished", "b[0]", 2, status="failed"),
        task("task_finished", "b[1]", 2, status="success"),
        task("task_started", "c", 2),
    )
    log = tmp_path / "tasks.jsonl"
    log.write_bytes(lines.lines)
    index = RunIndex()
    index.take(chunk(*run(1, "2026-11-28T10:00:00Z"), *run(2, "2026-11-28T10:00:00Z")))
    for part in LogReader(log, from_start=True).chunks():
        index.take_tasks(part)
    first, second = TaskGrid(log).of(index.of_schedule["s"])
    assert first.tasks == {"a": "kept", "b": "failed", "c": "unfinished"}
    assert second.tasks == {"a": "failed"}


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("- id: a\n  cron: x\n\n# Next.\n- id: b\n", 1, "- id: a\n  cron: x"),
        ("# One.\n- id: a\n  params:\n    - 1\n- id: b\n  cron: y\n", 5, "- id: b\n  cron: y"),
        ('[{"id": "a"}]', 1, '[{"id": "a"}]'),
    ],
)
def test_an_entry_is_shown_from_its_line_to_the_next_one(tmp_path: Path, text: str, line: int, wanted: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    assert entry_text(Schedule("a", None, "d", file=str(file), line=line)) == wanted


def test_a_chart_says_in_words_what_it_draws() -> None:
    drawn = squares([Outcome("s.1", "success", 1.0), Outcome("s.2", "crashed", None), Outcome("s.3", "running", None)])
    assert 'aria-label="last 3 runs: 1 succeeded, 1 failed, 1 open; the newest: running"' in drawn
    year = calendar([Day("2026-11-23", 4, 1), Day("2026-11-24", 2, 0)])
    assert "a year of days: 6 runs on 2 days, 1 failed on 1 day" in year
    assert "2026-11-23: 4 runs, 1 failed" in year
    week = hours(NOW.date(), 12, [HourLoad(0, 2.0, 5, 3, True), HourLoad(0, 0.5, 1, 1, False)], 2, "busy")
    assert ">!</text>" in week
    assert ">0.5</text>" in week


def test_no_chart_has_a_style_or_a_script() -> None:
    drawn = squares([Outcome('"><script>', '"><script>', 1.0)]) + calendar([Day("2026-11-23", 4, 1)])
    assert "style=" not in drawn
    assert "<script" not in drawn
