"""The audit of parked runs: what they ask, whom they wait for, and the runs that they have asked for."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, WaitFor, kill9
from test_audit import events_of, write_anew

from scheduler.audit import audit
from scheduler.history import History
from workers.events import decode_line, encode_line, stamp

Event = dict[str, Any]
Change = Callable[[list[Event]], None]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, wait_for: WaitFor) -> Iterator[list[Event]]:
    """The events of a real service with all that parks: questions, times, runs of runs, an orphan, items."""
    service = Service(tmp_path_factory.mktemp("lived"))
    yield _lived(service, wait_for)
    service.end()


def _lived(service: Service, wait_for: WaitFor) -> list[Event]:
    service.dag("sub", "true")
    service.dag("long", "sleep 300")
    service.environ["SCHED_MAX_PARALLEL"] = "4"
    supervisor = service.start()
    wait_for(service.is_ready)
    asks = [{"id": "ok", "approval": "Now?"}, {"id": "too", "approval": "And?"}, {"id": "t", "run": "true"}]
    asks[2]["needs"] = ["ok", "too"]
    both, no = service.ask(service.tasks("asks", *asks)), service.ask(service.tasks("no", asks[0]))
    items = [{"id": "each", "foreach": [1, 2], "dag": "dags/sub.yaml"}, {"id": "w", "wait": {"delay": "3s"}}]
    # One after the other: the end of the first is all that its parent goes on for.
    items[0]["max_parallel"] = 1
    mapped = service.ask(service.tasks("items", *items))
    crash = {"id": "crash", "run": "while [ ! -e die ]; do sleep 0.05; done; kill -9 $PPID"}
    parent = service.ask(service.tasks("parent", {"id": "sub", "dag": "dags/long.yaml"}, crash))
    wait_for(lambda: all(service.story(each)[-1:] == ["run_parked 1"] for each in (both, no)), what="the questions")
    wait_for(lambda: service.events("run_started", f"{parent}.sub"), what="the run of the parent")
    (service.root / "die").touch()
    for words in (("approve", both, "ok"), ("reject", no)):
        assert service.command(*words).returncode == 0
    wait_for(lambda: service.story(both).count("run_parked 1") == 2, what="the second park")
    assert service.command("approve", both, "too").returncode == 0
    wait_for(lambda: service.has_ended(both, no, mapped, parent, f"{parent}.sub"), 20, "the ends")
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    return events_of(service.log)


def violations(events: list[Event], path: Path) -> list[str]:
    """Return what the audit says of these events, an hour later, when all is quiet."""
    last = datetime.fromisoformat(events[-1]["timestamp"])
    report = audit(write_anew(path, events), last + timedelta(hours=1), final=True, lateness_s=5)
    return [f"{found.guarantee}: {found.text}" for found in report.violations]


def at(events: list[Event], name: str, number: int = 0, **fields: Any) -> int:
    fit = [place for place, event in enumerate(events) if event["event"] == name and fields.items() <= event.items()]
    return fit[number]


def test_a_clean_log_with_all_that_parks_is_clean(lived: list[Event], tmp_path: Path) -> None:
    assert violations(lived, tmp_path / "log") == []
    names = [event["event"] for event in lived]
    assert {"run_parked", "run_resumed", "task_approved", "task_rejected", "cancel_requested"} <= set(names)


def drop(name: str, number: int = 0, **fields: Any) -> Change:
    return lambda events: events.__delitem__(at(events, name, number, **fields))


def double(name: str, number: int = 0, *, behind: int = 1) -> Change:
    def change(events: list[Event]) -> None:
        place = at(events, name, number)
        events.insert(place + behind, events[place])

    return change


def alter(name: str, number: int = 0, **fields: Any) -> Change:
    def change(events: list[Event]) -> None:
        place = at(events, name, number)
        events[place] = {**events[place], **fields}

    return change


def too_soon(events: list[Event]) -> None:
    """Let the run that waits for a time go on as soon as it is parked."""
    resume = at(events, "run_resumed", reason="time")
    park = at(events, "run_parked", -1, run_id=events[resume]["run_id"])
    events.insert(park + 1, {**events.pop(resume), "timestamp": events[park]["timestamp"]})


def without_cause(events: list[Event]) -> None:
    place = at(events, "run_parked")
    events.insert(place + 1, {**events[at(events, "run_resumed")], "run_id": events[place]["run_id"]})


def unmarked(events: list[Event]) -> None:
    """Let a run that was parked begin as if it had not."""
    del events[at(events, "run_started", resumed=True)]["resumed"]


def orphaned(events: list[Event]) -> None:
    """Let the run of a crashed run go on to its own end, minutes later, under a service that lives."""
    cancel, child = at(events, "cancel_requested"), events[at(events, "cancel_requested")]["run_id"]
    del events[cancel]
    end = events.pop(at(events, "run_finished", run_id=child))
    later = (datetime.fromisoformat(events[-1]["timestamp"]) + timedelta(minutes=5)).isoformat()
    sign = {**events[at(events, "supervisor_started")], "event": "schedule_invalid", "timestamp": later}
    events[-1:] = [sign, {**end, "status": "success", "reason": None, "tasks": {}, "timestamp": later}, events[-1]]
    events[-1] = {**events[-1], "timestamp": later}


def parked_on_an_answer(events: list[Event]) -> None:
    """Put the answer before the park that it ends."""
    answer = events.pop(at(events, "task_approved", task_id="too"))
    events.insert(at(events, "run_parked", -1, run_id=answer["run_id"]), answer)


def parked_on_an_end(events: list[Event]) -> None:
    """Put the end of a run before the park of the one that waits for it."""
    park = next(at for at, event in enumerate(events) if any(each.get("run") for each in event.get("waits", ())))
    awaited = next(each["run"] for each in events[park]["waits"] if each.get("run"))
    moved = [event for event in events if event.get("run_id") == awaited and event["event"].startswith("run_")]
    moved = [event for event in moved if event["event"] in ("run_started", "run_finished")]
    events[:] = [event for event in events if event not in moved]
    moment = events[park]["timestamp"]
    events[park:park] = [{**event, "timestamp": moment} for event in moved]


CHANGES: dict[str, tuple[Change, str]] = {
    "a park is gone": (drop("run_parked"), "goes on, and it is not parked"),
    "the last park is gone": (drop("run_parked", -1), "goes on, and it is not parked"),
    "a resume is gone": (drop("run_resumed"), "starts again while it is parked"),
    "a resume is doubled": (double("run_resumed"), "goes on, and it is not parked"),
    "a resume comes too soon": (too_soon, "goes on before its time"),
    "a resume has no cause": (without_cause, "goes on, and nothing has come"),
    "a resume is of another cause": (alter("run_resumed", reason="time"), "goes on before its time"),
    "a start is not as resumed": (unmarked, "starts attempt 1 again"),
    "a start is as resumed": (alter("run_started", resumed=True), "starts attempt 1 as resumed"),
    "an answer is gone": (drop("task_approved"), "goes on, and nothing has come"),
    "an answer is doubled": (double("task_approved"), "is answered, and does not ask"),
    "another task is answered": (alter("task_rejected", task_id="to"), "task `to` of run"),
    "another run is answered": (alter("task_rejected", run_id="nobody"), "task `ok` of run `nobody` is answered"),
    "a question is gone": (drop("approval_requested"), "which does not ask, or has it"),
    "a question was over": (alter("approval_requested", until="2026-01-01T00:00:00Z"), "after its time"),
    "the end of a child is gone": (drop("run_finished", task="", run_id="CHILD"), "goes on, and nothing has come"),
    "an orphan is never cancelled": (orphaned, "goes on, and attempt 1 of run"),
    "nobody has cancelled the orphan": (drop("cancel_requested"), "and nobody has asked for that"),
    "it is parked on an answer": (parked_on_an_answer, "which does not ask, or has it"),
    "it is parked on an end": (parked_on_an_end, "which has ended"),
    "a child has no parent": (alter("run_requested", -1, parent={"run_id": "x", "attempt": 1}), "which is not at work"),
}


def test_every_change_of_it_is_told(lived: list[Event], tmp_path: Path) -> None:
    # The first of the two that its parent has run.
    ends = [event["run_id"] for event in lived if event["event"] == "run_finished"]
    child = next(run_id for run_id in ends if ".each." in run_id)
    silent = []
    for name, (change, told) in CHANGES.items():
        events = copy.deepcopy(lived)
        if name == "the end of a child is gone":
            change = drop("run_finished", run_id=child)
        change(events)
        found = violations(events, tmp_path / "log")
        if not any(told in text for text in found):
            silent.append((name, found))
    assert silent == []


def test_whatever_random_event_of_it_is_gone_or_doubled_that_is_told(lived: list[Event], tmp_path: Path) -> None:
    dice = random.Random(7)
    names = ("run_parked", "run_resumed", "task_approved", "task_rejected", "run_finished", "run_started")
    names += ("run_requested", "approval_requested")
    silent = []
    for number in range(60):
        events = copy.deepcopy(lived)
        place = dice.choice([place for place, event in enumerate(events) if event["event"] in names])
        event = events[place]
        if number % 2:
            del events[place]
        else:
            events.insert(dice.randrange(place, len(events)) + 1, event)
        # A question asked again is one that was asked again.
        if not violations(events, tmp_path / "log") and (number % 2 or event["event"] != "approval_requested"):
            silent.append((number % 2, event))
    assert silent == []


@pytest.mark.parametrize("part", ["run", "status", "is_due", "questions", "waits", "until"])
def test_a_parked_run_must_be_in_the_checkpoint_as_it_is(lived: list[Event], tmp_path: Path, part: str) -> None:
    timed = part == "until"
    answer = at(lived, "run_resumed", reason="time") if timed else at(lived, "task_approved", task_id="too")
    before = lived[:answer]
    run_id = lived[answer]["run_id"]
    rows = [{"event": "segment_started"}, *History(before).checkpoint()]
    moment = before[-1]["timestamp"]
    rows = [stamp({"timestamp": moment, **json.loads(json.dumps(row))}, 1, "host", 1) for row in rows]
    assert violations([*before, *rows, *lived[answer:]], tmp_path / "log") == []
    place = next(place for place, row in enumerate(rows) if row.get("run", {}).get("run_id") == run_id)
    row = rows[place]["run"]
    if part == "run":
        del rows[place]
    elif part == "status":
        row["status"] = "queued"
    elif part == "is_due":
        row["is_due"] = True
    elif part == "questions":
        row["questions"] = {}
    elif part == "waits":
        row["parked"]["waits"][0]["run"] = "another"
    else:
        row["parked"]["until"] = "2026-01-01T00:00:00Z"
    assert any(text.startswith("G5: ") for text in violations([*before, *rows, *lived[answer:]], tmp_path / "log"))


def test_a_log_that_begins_with_its_checkpoint_is_clean(lived: list[Event], tmp_path: Path) -> None:
    for place in range(5, len(lived) - 1, 7):
        history = History(lived[:place])
        rows = [{"event": "segment_started"}, *history.checkpoint()]
        seq = lived[place]["seq"] + 1000
        path = tmp_path / f"{place}"
        moment = lived[place - 1]["timestamp"]
        events = [*({"timestamp": moment, **row} for row in rows), *lived[place:]]
        kept = [{name: value for name, value in event.items() if name != "crc"} for event in events]
        lines = [encode_line(stamp({**event}, seq + number, "host", 1)) for number, event in enumerate(kept)]
        path.write_bytes(b"".join(lines))
        assert all(decode_line(line) for line in lines)
        last = datetime.fromisoformat(lived[-1]["timestamp"])
        report = audit(path, last + timedelta(hours=1), final=True, lateness_s=20)
        assert report.violations == [], (place, lived[place])


def test_a_log_that_is_written_by_services_that_are_killed_is_clean(service: Service, wait_for: WaitFor) -> None:
    service.dag("sub", "sleep 0.5")
    tasks = [{"id": "sub", "dag": "dags/sub.yaml"}, {"id": "ok", "approval": "Now?", "needs": ["sub"]}]
    dag = service.tasks("d", *tasks)
    run_id = ""
    for _ in range(2):
        supervisor = service.start()
        wait_for(service.is_ready)
        run_id = service.ask(dag)
        wait_for(lambda run_id=run_id: service.events("approval_requested", run_id), 20, "the question")
        kill9(supervisor)
    service.start()
    for asked in {event["run_id"] for event in service.events("approval_requested")}:
        assert service.command("approve", asked).returncode == 0
        wait_for(lambda asked=asked: service.has_ended(asked), 20, "its end")
    assert audit(service.log, datetime.now(UTC), lateness_s=20, final=True).violations == []
