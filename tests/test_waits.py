"""Schedules that wait for something other than the time: runs of other schedules, and files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, kill9
from story import Story

from scheduler.audit import audit
from scheduler.history import History
from scheduler.judge import judge_arrival
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import load_schedules, read_configuration
from workers.events import Event

WaitFor = Callable[..., None]
NOW = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
EXTRACT = {"id": "extract", "cron": "* * * * *", "overlap": "queue"}
LOAD = {"id": "load", "after": "extract", "overlap": "queue"}
PAGE = {"id": "page", "after": {"schedule": "extract", "status": ["failed", "timeout", "crashed"]}, "overlap": "allow"}


def told(story: Story) -> list[Event]:
    """Return a list into which the story's events go."""
    events: list[Event] = []
    story.store.follow(events.append)
    return events


def verdicts(events: list[Event], name: str) -> list[list[str]]:
    """Return the runs after which the schedule got its verdicts."""
    judged = [event for event in events if event.get("schedule_id") == name and "trigger" in event]
    return [sorted(event["trigger"]["after"].values()) for event in judged]


def ends(events: list[Event], name: str, *statuses: str) -> list[list[str]]:
    ended = [event for event in events if event["event"] == "run_finished" and event["schedule_id"] == name]
    return [[each["run_id"]] for each in ended if each["status"] in statuses and not each.get("next_attempt")]


# -- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_each_end_that_counts_has_one_verdict_whatever_befalls_the_service(tmp_path: Path, seed: int) -> None:
    story = Story(tmp_path / "log", seed=seed)
    events = told(story)
    story.begin(EXTRACT, LOAD, PAGE)
    for happening in (story.rotate, story.die, story.rotate, story.stop):
        story.live(30)
        happening()
        if happening in (story.die, story.stop):
            story.pass_time(90)
            story.begin(EXTRACT, LOAD, PAGE)
            story.recover()
    story.live(30)
    story.drain()
    story.stop()
    assert verdicts(events, "load") == ends(events, "extract", "success")
    assert verdicts(events, "page") == ends(events, "extract", "failed", "timeout", "crashed")
    assert len(verdicts(events, "load")) > 50
    assert len(verdicts(events, "page")) > 5
    assert audit(tmp_path / "log", story.now, final=True).violations == []


def test_a_chain_of_three_runs_one_after_the_other_and_a_join_once_for_both(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", seed=3)
    events = told(story)
    other = {"id": "other", "cron": "*/5 * * * *", "overlap": "queue"}
    join = {"id": "join", "after": ["load", {"schedule": "other", "status": "any"}], "overlap": "queue"}
    story.begin(EXTRACT, LOAD, other, join)
    story.live(60)
    story.drain()
    story.stop()
    joined = verdicts(events, "join")
    assert len(joined) == len(ends(events, "other", "success", "failed", "timeout", "crashed"))
    assert all(names[0].startswith("load.") and names[1].startswith("other.") for names in joined)
    assert len({name for names in joined for name in names}) == 2 * len(joined)
    assert audit(tmp_path / "log", story.now, final=True).violations == []


def finished(status: str = "success", second: int = 5) -> list[Event]:
    """Return what makes `load` due: a run of `extract` that ends."""
    spec = {"enabled": True, "dag": "d", "after": {"extract": ["success"]}}
    request = {"run_id": "extract.1", "schedule_id": "extract", "attempt": 1}
    stamp = {"timestamp": f"2026-11-23T12:00:{second:02}.250000Z"}
    return [
        {"event": "schedules_loaded", "since": "2026-11-23T11:59:59Z", "specs": {"load": spec}},
        {"event": "run_requested", **request},
        {"event": "run_started", **request, **stamp, "pid": 7, "boot_id": "b", "starttime": 9},
        {"event": "run_finished", **request, **stamp, "status": status},
    ]


def judged(now: datetime, *before: Event, **fields: Any) -> list[Event]:
    history = History([*finished(), *before])
    schedule = schedule_from({"id": "load", "after": "extract", "dag": "dags/d.yaml", **fields})
    return [event for _, due in history.arrivals.due() for event in judge_arrival(schedule, due, now, history)]


def open_run(**fields: Any) -> Event:
    return {"event": "schedule_enqueued", "run_id": "load.0", "schedule_id": "load", "attempt": 1, **fields}


def test_the_request_is_named_by_the_second_of_the_end_and_names_the_runs_it_follows() -> None:
    (request,) = judged(NOW)
    assert (request["run_id"], request["minute"]) == ("load.20261123T120005Z", "2026-11-23T12:00:05Z")
    assert request["trigger"] == {"after": {"extract": "extract.1"}}
    assert History([*finished(), request]).arrivals.is_due() is False


@pytest.mark.parametrize(
    ("fields", "late_s", "reason"),
    [
        ({}, 0, {"reason": "overlap", "open_run": "load.0"}),
        ({"overlap": "queue", "max_queued": 1}, 0, {"reason": "max_queued", "waiting": 1}),
        (
            {"overlap": "queue", "start_deadline": "10m"},
            600,
            {"reason": "start_deadline", "start_by": "2026-11-23T12:10:05Z"},
        ),
    ],
)
def test_the_policies_of_a_fire_time_hold_for_what_has_come(
    fields: dict[str, Any], late_s: int, reason: dict[str, Any]
) -> None:
    (skipped,) = judged(NOW + timedelta(seconds=late_s), open_run(), **fields)
    assert skipped["event"] == "schedule_skipped"
    assert {name: skipped[name] for name in reason} == reason
    assert History([*finished(), open_run(), skipped]).arrivals.is_due() is False


def test_replace_cancels_the_run_that_is_open_for_the_one_that_comes() -> None:
    request, cancel = judged(NOW, open_run(), overlap="replace")
    assert (cancel["event"], cancel["run_id"], cancel["by"]) == ("cancel_requested", "load.0", request["run_id"])


def test_what_came_for_a_definition_that_is_edited_or_removed_is_skipped_with_the_reason(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", seed=1)
    events = told(story)
    story.begin(EXTRACT, LOAD, {**LOAD, "id": "gone"})
    story.live(20)
    while not story.store.history.arrivals.due_of("load"):
        story.live(1)
    story.load(EXTRACT, {**LOAD, "after": {"schedule": "extract", "status": "any"}})
    redefined = [event["schedule_id"] for event in events if event.get("reason") == "redefined"]
    assert sorted(redefined) == ["gone", "load"]
    story.live(10)
    story.drain()
    story.stop()
    assert audit(tmp_path / "log", story.now, final=True).violations == []


# -- the file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"after": "extrakt"}, "`after` names `extrakt`, and no schedule has that id; did you mean `extract`?"),
        ({"after": "s"}, "`after` names the schedule itself; name another than `s`"),
        ({"after": []}, "`after` names no schedule; write `after: other_schedule`"),
        ({"after": {"schedule": "extract", "status": "done"}}, "`after.status` 'done' is no end of a run; allowed: "),
        ({"after": {"schedule": "extract", "status": []}}, "`after.status` '' is no end of a run"),
        ({"after": ["extract", {"schedule": "extract"}]}, "`after` names a schedule twice; write it once"),
        ({"after": "extract", "cron": "* * * * *"}, "`after` stands alone, and `cron` beside it; write two schedules"),
        ({"after": "extract", "catchup": "latest"}, "`catchup` is for fire times, which `after` has none of; "),
        ({"on_file": {"path": ""}}, "`on_file.path` '' is no path; name a file, such as `incoming/orders.csv`"),
        ({"on_file": {"path": "a", "stable_for": "soon"}}, "`on_file.stable_for`: 'soon' is not a duration"),
        ({"on_file": {"path": "a"}, "every": "90s"}, "`on_file` stands alone, and `every` beside it; write two"),
        (
            {"after": "d1"},
            "`after` leads in a circle: `s` after `d1` after `d2` after `s`; none of them would",
        ),
    ],
)
def test_a_contradiction_is_refused_with_its_place_and_the_way_out(
    tmp_path: Path, keys: dict[str, Any], fault: str
) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text("id: d\ntasks: [{id: t, run: 'true'}]\n")
    directory = tmp_path / "schedules"
    directory.mkdir()
    given = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in keys.items())
    (directory / "a.yaml").write_text(f"- id: s\n  dag: dags/d.yaml\n{given}")
    others = [{"id": "extract", "cron": "* * * * *", "dag": "dags/d.yaml"}]
    others += [{"id": "d1", "after": "d2", "dag": "dags/d.yaml"}, {"id": "d2", "after": "s", "dag": "dags/d.yaml"}]
    others = others if keys == {"after": "d1"} else others[:1]
    (directory / "b.yaml").write_text(json.dumps(others))
    (found,) = read_configuration(directory).faults
    assert (Path(found.path).name, found.line > 2) == ("a.yaml", True)
    assert found.message.startswith(f"schedule `s`: {fault}")
    assert [schedule.id for schedule in load_schedules(directory)] == ["extract"]


def test_a_schedule_that_follows_another_in_a_file_with_a_fault_is_left_out_with_it(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text("id: d\ntasks: [{id: t, run: 'true'}]\n")
    (tmp_path / "schedules").mkdir()
    follower = {"id": "s", "after": "extract", "dag": "dags/d.yaml"}
    wrong = {"id": "extract", "cron": "* * * *", "dag": "dags/d.yaml"}
    (tmp_path / "schedules" / "a.yaml").write_text(json.dumps([follower, wrong]))
    found = read_configuration(tmp_path / "schedules")
    assert (found.schedules, [fault.message[:20] for fault in found.faults]) == ([], ["schedule `extract`: "])


def test_a_name_with_a_matrix_stands_for_all_its_combinations(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text("id: d\nparams: {region: x}\ntasks: [{id: t, run: 'true'}]\n")
    (tmp_path / "schedules").mkdir()
    each = {"id": "each", "cron": "* * * * *", "dag": "dags/d.yaml", "matrix": {"region": ["eu", "us"]}}
    join = {"id": "join", "dag": "dags/d.yaml", "after": "each"}
    (tmp_path / "schedules" / "a.yaml").write_text(json.dumps([join, each]))
    (join_read,) = [schedule for schedule in load_schedules(tmp_path / "schedules") if schedule.id == "join"]
    assert join_read.upstream == {"each.eu": ["success"], "each.us": ["success"]}
    assert join_read.spec["after"] == join_read.upstream


# -- real processes -----------------------------------------------------------------------------------------------


def follow(service: Service, name: str, dag: str, **fields: Any) -> None:
    entry = {"id": name, "dag": dag, **fields}
    (service.root / "schedules" / f"{name}.yaml").write_text(json.dumps([entry]), "ascii")


def test_one_tick_runs_the_whole_chain_and_its_exit_code_is_the_outcome_of_all(service: Service) -> None:
    service.schedule("a", "* * * * *", service.dag("a", "echo a >> order"))
    follow(service, "b", service.dag("b", "echo b >> order; exit 3"), after="a")
    follow(service, "c", service.dag("c", "echo c >> order"), after={"schedule": "b", "status": "failed"})
    follow(service, "never", service.dag("never", "echo never >> order"), after="b")
    assert service.start("--once").wait(30) == 1
    assert (service.root / "order").read_text().split() == ["a", "b", "c"]
    assert service.err() == ""
    assert audit(service.log, datetime.now(UTC), final=True).violations == []


def test_a_service_that_dies_between_an_end_and_its_verdict_is_followed_by_one_that_gives_it(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("a", "0 0 29 2 *", service.dag("a", "true"))
    follow(service, "b", service.dag("b", "echo $RUN_ID >> ran"), after="a")
    supervisor = service.start()
    wait_for(service.is_ready)
    # A stopped service gives no verdict; the worker writes the end all the same.
    service.ask("dags/a.yaml", schedule_id="a")
    wait_for(lambda: service.events("run_started"))
    os.kill(supervisor.pid, signal.SIGSTOP)
    wait_for(lambda: service.events("run_finished"))
    was_late = bool(service.events("schedule_enqueued"))
    kill9(supervisor)
    service.start()
    wait_for(lambda: len(service.events("run_finished")) == 2)
    (request,) = service.events("schedule_enqueued")
    assert request["trigger"] == {"after": {"a": "asked.1"}}
    assert (service.root / "ran").read_text().split() == [request["run_id"]]
    assert audit(service.log, datetime.now(UTC)).violations == [] or was_late


def test_a_file_that_comes_is_run_once_and_the_next_one_again_across_a_restart(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.dag("load", "cat in.csv >> loaded")
    follow(service, "load", dag, on_file={"path": "in.csv", "stable_for": "1s"})
    supervisor = service.start()
    wait_for(service.is_ready)
    (service.root / "in.csv").write_text("one\n")
    wait_for(lambda: len(service.events("run_finished")) == 1, timeout=20)
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    service.start()
    wait_for(service.is_ready)
    (service.root / "next").write_text("two\n")
    (service.root / "next").rename(service.root / "in.csv")
    wait_for(lambda: len(service.events("run_finished")) == 2, timeout=20)
    assert (service.root / "loaded").read_text() == "one\ntwo\n"
    first, second = (event["trigger"]["file"] for event in service.events("schedule_enqueued"))
    assert first["path"] == second["path"] == str(service.root / "in.csv")
    assert (first["size"], first["inode"]) != (second["size"], second["inode"])
    assert audit(service.log, datetime.now(UTC)).violations == []


def test_one_tick_takes_a_file_that_has_rested_and_leaves_one_that_has_not(service: Service) -> None:
    dag = service.dag("load", "echo $RUN_ID >> ran")
    follow(service, "old", dag, on_file={"path": "old.csv", "stable_for": "30s"})
    follow(service, "new", dag, on_file={"path": "new.csv", "stable_for": "1h"})
    for name in ("old.csv", "new.csv"):
        (service.root / name).write_text("x")
    before = (datetime.now(UTC) - timedelta(minutes=1)).timestamp()
    os.utime(service.root / "old.csv", (before, before))
    for _ in range(2):
        assert service.start("--once").wait(20) == 0
    (request,) = service.events("schedule_enqueued")
    assert request["schedule_id"] == "old"
    assert (service.root / "ran").read_text().split() == [request["run_id"]]
