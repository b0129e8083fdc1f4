"""One run as it is looked at, from events that a service would write, and from those that another hand did."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from scheduler.run_record import RunRecord
from scheduler.run_text import render_differences, render_run
from scheduler.run_view import RunFacts, differences, view, why

NOW = datetime(2026, 11, 23, 15, 10, tzinfo=UTC)
ASKED = {"event": "schedule_enqueued", "schedule_id": "s", "attempt": 1, "timestamp": "2026-11-23T15:05:00Z"}


def task(name: str, event: str, second: int, **fields: Any) -> dict[str, Any]:
    at = f"2026-11-23T15:05:{second:02}Z"
    return {"event": event, "task_id": name, "attempt": 1, "timestamp": at, "task_attempt": 1, **fields}


def started(*, ended: bool = False) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [ASKED, {"event": "run_started", "attempt": 1, "timestamp": "2026-11-23T15:05:02Z"}]
    if ended:
        end = {"event": "run_finished", "attempt": 1, "timestamp": "2026-11-23T15:06:02Z", "status": "success"}
        events.append({**end, "duration_s": 60.0})
    return events


def tree(names: list[str], needs: dict[str, list[str]]) -> list[tuple[str, int]]:
    tasks = [task(name, "task_started", number) for number, name in enumerate(names)]
    run = view(RunRecord("r", started(), tasks), needs, NOW)
    return [(each.task_id, each.depth) for each in run.tasks]


def test_tasks_stand_below_the_first_that_they_need_in_the_order_of_the_dag() -> None:
    needs: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a"], "d": ["c", "b"], "e": []}
    assert tree(["e", "a"], needs) == [("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 0)]
    assert tree(["y", "x"], {}) == [("y", 0), ("x", 0)]


def test_instances_stand_below_their_mapped_task_if_that_is_there() -> None:
    needs: dict[str, list[str]] = {"list": [], "per_region": ["list"], "sum": ["per_region"]}
    assert tree(["list", "per_region[0]", "per_region[1]", "other[0]"], needs) == [
        ("list", 0), ("per_region", 1), ("per_region[0]", 2), ("per_region[1]", 2), ("sum", 2), ("other[0]", 0),
    ]  # fmt: skip
    assert tree(["per_region[0]"], {}) == [("per_region[0]", 0)]


def test_a_task_that_will_be_tried_again_has_not_ended() -> None:
    tries = [
        task("a", "task_started", 3),
        task("a", "task_finished", 5, status="failed", exit_code=1),
        task("a", "task_retried", 5, task_attempt=2),
    ]
    (shown,) = view(RunRecord("r", started(), tries), {"a": []}, NOW).tasks
    assert (shown.status, shown.tries, shown.exit_code, shown.after_s) == ("retrying", 1, None, 1.0)
    tries += [task("a", "task_started", 9, task_attempt=2)]
    (shown,) = view(RunRecord("r", started(), tries), {"a": []}, NOW).tasks
    assert (shown.status, shown.tries) == ("running", 2)
    told = [(each.status, each.after_s, each.duration_s) for each in shown.tries_at]
    assert told == [("failed", 1.0, 2.0), ("running", 7.0, 291.0)]
    tries += [task("a", "task_finished", 12, status="success", exit_code=0, task_attempt=2)]
    (shown,) = view(RunRecord("r", started(), tries), {"a": []}, NOW).tasks
    assert (shown.status, shown.exit_code, shown.duration_s) == ("success", 0, 9.0)
    assert [(each.status, each.duration_s) for each in shown.tries_at] == [("failed", 2.0), ("success", 3.0)]


def test_a_run_that_was_parked_has_taken_its_whole_time_and_was_at_work_for_a_part_of_it() -> None:
    def event(name: str, second: int, **fields: Any) -> dict[str, Any]:
        return {"event": name, "attempt": 1, "timestamp": f"2026-11-23T15:05:{second:02}Z", **fields}

    def lengths(*events: dict[str, Any], at: int = 58) -> tuple[float | None, float | None]:
        run = view(RunRecord("r", [ASKED, *events]), {}, NOW.replace(minute=5, second=at))
        return run.duration_s, run.worked_s

    start, park, again = event("run_started", 2), event("run_parked", 4, worked_s=1.5), event("run_started", 50)
    assert lengths(start) == (56.0, 56.0)
    assert lengths(start, park) == (56.0, 1.5)
    assert lengths(start, park, event("run_resumed", 49)) == (56.0, 1.5)
    assert lengths(start, park, again) == (56.0, 9.5)
    assert lengths(start, park, again, event("run_finished", 52, duration_s=3.5)) == (50.0, 3.5)
    assert lengths(start, park, event("run_finished", 52)) == (50.0, 1.5)
    assert lengths(start, park, again, event("run_finished", 52)) == (50.0, None)
    assert lengths(start, event("run_finished", 52, duration_s=49.9)) == (49.9, 49.9)
    run = view(RunRecord("r", [ASKED, start, park, event("run_finished", 52)]), {}, NOW)
    assert "at work    1.5s of 50.0s" in render_run(run, NOW)
    assert "at work" not in render_run(view(RunRecord("r", started(ended=True)), {}, NOW), NOW)


def test_a_wait_is_counted_from_when_the_attempt_might_have_started() -> None:
    later = {**ASKED, "not_before": "2026-11-23T15:05:01Z"}
    assert view(RunRecord("r", [later, *started()[1:]]), {}, NOW).waited_s == 1.0
    assert view(RunRecord("r", [ASKED]), {}, NOW).waited_s == 300.0


def test_what_a_run_was_due_for_is_told() -> None:
    for fields, told in (
        ({"catchup": "latest"}, "schedule s was due, caught up (latest)"),
        ({"trigger": {"after": {"a": "a.1", "b": "b.2"}}}, "schedule s follows a.1, b.2"),
        ({"trigger": {"file": {"path": "in/x.csv"}}}, "schedule s waited for the file in/x.csv"),
        ({"trigger": {"after": 5}}, "schedule s follows "),
        ({"trigger": []}, "schedule s was due"),
    ):
        assert why(RunRecord("r", [{**ASKED, **fields}])) == told
    assert why(RunRecord("r", started()[1:])) == "nobody knows: its request is not on record any more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["2026-11-23T15:05:03Z", "success", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
STATE = [*started(ended=True), {"event": "run_requested", "retry_of": 1, "kept": ["a"], "by": "x", "attempt": 2}]
FIELDS = ["timestamp", "status", "reason", "duration_s", "params", "dag", "project", "by", "kept", "trigger", "minute",
          "pid", "dag_version", "not_before", "retry_at", "tenant", "schedule_id", "for_schedule", "catchup",
          "retry_of", "backfill"]  # fmt: skip
OF_TASKS = ["timestamp", "status", "reason", "outputs", "exit_code", "signal", "cpu_user_s", "cpu_sys_s", "hook",
            "max_rss_kib", "task_id", "task_attempt"]  # fmt: skip
TASKS = [task("a", "task_started", 3), task("a", "task_finished", 5, status="success"), task("b", "task_skipped", 6)]


@given(st.data())
def test_fields_of_any_type_are_shown_or_left_out_and_never_a_fault(data: st.DataObject) -> None:
    def misshape(events: list[dict[str, Any]], fields: list[str]) -> list[dict[str, Any]]:
        return [{**e, **data.draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=3))} for e in events]

    record = RunRecord("r", misshape(STATE, FIELDS), misshape(TASKS, OF_TASKS))
    needs: dict[str, list[str]] = {"a": [], "b": ["a"]}
    run, other = view(record, needs, NOW), view(RunRecord("r", STATE, TASKS), needs, NOW, attempt=1)
    for each in (run, other):
        msgspec.json.decode(msgspec.json.encode(each), type=RunFacts)
    for width in (None, 40, 80, 200):
        render_run(run, NOW, width)
        render_differences(("r", "r"), differences(run, other), [], width)
