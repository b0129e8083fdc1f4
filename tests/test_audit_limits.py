"""The audit of limits: a start without a slot shows, and what waits for a slot is not late."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from story import Story

from scheduler.audit import Report, audit
from scheduler.limits import Limits, Tenant
from workers.events import decode_line, encode_line
from workers.segments import list_segments

Event = dict[str, Any]
SCHEDULES: list[dict[str, Any]] = [
    {"id": "a", "cron": "* * * * *", "pool": "p", "overlap": "queue"},
    {"id": "b", "cron": "* * * * *", "pool": "p", "overlap": "queue", "retries": {"max": 1, "delay": "10s"}},
    {"id": "c", "cron": "*/2 * * * *", "tenant": "t", "overlap": "allow"},
    {"id": "d", "cron": "* * * * *", "tenant": "t", "pool": "q", "overlap": "queue"},
    {"id": "free", "cron": "* * * * *"},
]
LIMITS = Limits({"p": 1, "q": 1}, {"t": Tenant(max_parallel=2)})


def limited_story(path: Path, seed: int = 1) -> Story:
    """A log in which pools and a tenant are full most of the time, while a worker is free."""
    story = Story(path, seed=seed, workers=6)
    story.limits = LIMITS
    story.begin(*SCHEDULES)
    story.live(12)
    story.rotate()
    story.limits = Limits({"p": 2, "q": 1}, {"t": Tenant(max_parallel=1)})
    story.load(*SCHEDULES)
    story.live(12)
    story.die()
    story.now += timedelta(minutes=30)
    story.begin(*SCHEDULES)
    story.recover()
    story.live(5)
    story.limits = LIMITS
    story.load(*SCHEDULES)
    story.live(5)
    while story.store.history.runs:
        story.start_runs()
        story.now += timedelta(minutes=1)
        story._end_runs(lambda _: True)
    story.stop()
    return story


def found(report: Report, guarantee: str) -> list[str]:
    return [violation.text for violation in report.violations if violation.guarantee == guarantee]


@pytest.mark.parametrize("seed", range(6))
def test_a_history_that_keeps_its_limits_is_clean_however_long_runs_wait_for_a_slot(tmp_path: Path, seed: int) -> None:
    story = limited_story(tmp_path / "log", seed)
    report = audit(tmp_path / "log", story.now, final=True)
    assert report.violations == []
    [finding] = [each for each in report.findings if each.guarantee == "limits"]
    assert (finding.verdict, finding.counts["starts"] > 50) == ("proved", True)
    list_segments(tmp_path / "log")[0].path.unlink()
    report = audit(tmp_path / "log", story.now, final=True)
    assert report.violations == []


def test_of_a_log_without_limits_nothing_is_said(tmp_path: Path) -> None:
    story = Story(tmp_path / "log")
    story.begin({"id": "a", "cron": "* * * * *"})
    story.live(3)
    story.stop()
    assert "limits" not in {finding.guarantee for finding in audit(tmp_path / "log", story.now).findings}


def retold(path: Path, change: Any) -> Path:
    """Write the log of a story anew as one segment, numbered and sealed, with a change to its events."""
    lines = [line for segment in list_segments(path) for line in segment.path.read_bytes().splitlines(keepends=True)]
    events = [
        event for event in map(decode_line, lines) if event and event["event"] not in ("checkpoint", "segment_started")
    ]
    kept = [{name: value for name, value in event.items() if name != "crc"} for event in change(events)]
    anew = path.with_name("anew")
    anew.write_bytes(b"".join(encode_line({**event, "seq": seq}) for seq, event in enumerate(kept, 1)))
    return anew


def narrower(kind: str, name: str) -> Any:
    """Return a change that lets the log say all along that there was less room than was used."""

    def change(events: list[Event]) -> list[Event]:
        for event in events:
            if event["event"] == "limits_loaded" and kind == "pool":
                event["pools"] = {**event["pools"], name: 1}
            elif event["event"] == "limits_loaded":
                event["tenants"] = {name: {"max_parallel": 1}}
        return events

    return change


@pytest.mark.parametrize(("kind", "name"), [("pool", "p"), ("tenant", "t")])
def test_a_start_without_a_free_slot_is_a_violation(tmp_path: Path, kind: str, name: str) -> None:
    story = limited_story(tmp_path / "log")
    report = audit(retold(tmp_path / "log", narrower(kind, name)), story.now)
    texts = found(report, "limits")
    assert texts
    assert all(f"starts while {kind} `{name}`, which may have 1, has " in text for text in texts)


def test_a_start_that_is_told_twice_as_early_is_caught(tmp_path: Path) -> None:
    story = limited_story(tmp_path / "log")

    def earlier(events: list[Event]) -> list[Event]:
        """Let the second run of the pool start right before the first has ended."""
        first = next(n for n, e in enumerate(events) if e["event"] == "run_finished" and e["schedule_id"] == "a")
        later = next(
            n
            for n in range(first, len(events))
            if events[n]["event"] == "run_started" and events[n]["schedule_id"] == "b"
        )
        moved = {**events[later], "timestamp": events[first]["timestamp"], "pid": 99999}
        ends = [e for e in events[later:] if e["event"] == "run_finished" and e["run_id"] == moved["run_id"]]
        ends[0]["pid"] = 99999
        return [*events[:first], moved, *events[first:later], *events[later + 1 :]]

    [text] = found(audit(retold(tmp_path / "log", earlier), story.now), "limits")
    assert "starts while pool `p`, which may have 1, has 1: a." in text


def test_a_run_that_runs_while_its_limit_shrinks_is_no_violation_but_a_start_is(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", workers=6)
    story.limits = Limits({"p": 3})
    story.begin({"id": "never", "cron": "0 0 1 1 *"})
    for name in ("r1", "r2", "r3", "r4", "r5"):
        ask(story, name)
    story.start_runs()
    story.record("limits_loaded", pools={"p": 1}, tenants={})
    runs = story.store.history.runs
    story._finish(runs["r1"], "success")
    story.now += timedelta(seconds=2)
    # It may have been handed out when there was room for it.
    story._start(runs["r4"], 1900)
    assert found(audit(tmp_path / "log", story.now), "limits") == []
    story._finish(runs["r4"], "success")
    story.now += timedelta(seconds=20)
    story._start(runs["r5"], 1900)
    [text] = found(audit(tmp_path / "log", story.now), "limits")
    assert text == "run `r5` starts while pool `p`, which may have 1, has 2: r2, r3"


def test_time_in_which_nobody_led_excuses_no_wait(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", workers=6)
    story.limits = Limits({"p": 1})
    never = {"id": "never", "cron": "0 0 1 1 *"}
    story.begin(never)
    ask(story, "r1")
    story.start_runs()
    ask(story, "r2")
    story.die()
    story.now += timedelta(minutes=10)
    story.begin(never)
    story._finish(story.store.history.runs["r1"], "success")
    sign_of_life(story, minutes=3)
    story.start_runs()
    assert found(audit(tmp_path / "log", story.now), "lateness") == [
        "run `r2` waited for 180.0 s while a worker was free"
    ]


def test_a_run_is_late_only_for_the_time_in_which_its_pool_had_a_slot(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", workers=6)
    story.limits = Limits({"p": 1})
    story.begin({"id": "never", "cron": "0 0 1 1 *"})
    ask(story, "r1")
    story.start_runs()
    ask(story, "r2")
    sign_of_life(story, minutes=10)
    story._end_runs(lambda _: True)
    assert found(audit(tmp_path / "log", story.now), "lateness") == []
    sign_of_life(story, minutes=3)
    story.start_runs()
    assert found(audit(tmp_path / "log", story.now), "lateness") == [
        "run `r2` waited for 180.0 s while a worker was free"
    ]


def test_a_checkpoint_with_other_limits_is_a_violation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    story = limited_story(path)
    segment = list_segments(path)[-1].path
    lines = segment.read_bytes().splitlines(keepends=True)
    assert sum(b'"limits":' in line for line in lines) == 1
    place = next(number for number, line in enumerate(lines) if b'"limits":' in line)
    event = {name: value for name, value in (decode_line(lines[place]) or {}).items() if name != "crc"}
    lines[place] = encode_line({**event, "limits": {"pools": {"p": 7}, "tenants": {}}})
    segment.write_bytes(b"".join(lines))
    [text] = found(audit(path, story.now), "limits")
    assert text == "the limits are others in the checkpoint than in the older segments"


def ask(story: Story, run_id: str) -> None:
    with story.clock():
        asked = {"event": "run_requested", "run_id": run_id, "attempt": 1, "dag": "dags/d.yaml", "pid": 77, "pool": "p"}
        story.store.commit(lambda _: [asked])


def sign_of_life(story: Story, *, minutes: int) -> None:
    """Let time pass in which the service works, and says so."""
    story.now += timedelta(minutes=minutes)
    story.record("schedule_invalid", file="x", line=1, col=1, reason="a sign of life", load="1")
