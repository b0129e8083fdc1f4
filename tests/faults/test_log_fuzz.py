"""Lines that make no sense, between lines that do: no reader raises, and every good line is read."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from odd_lines import PARKED, made_events, nonsense, of_parked_runs
from service import Service

from scheduler.cli import main
from scheduler.history import History
from scheduler.open_runs import is_fit
from scheduler.run_queue import RunQueue
from scheduler.run_timers import RunTimers, news_events, timer_events
from scheduler.state_store import StateStore, index_by, last_runs, record_event
from scheduler.status import Status, gather
from scheduler.status_text import render
from workers.event_log import EventLog
from workers.events import Event, encode_line, stamp
from workers.segments import LogReader, read_backward
from workers.settings import Settings

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
A_FILE = 250


@pytest.fixture
def templates(service: Service, wait_for: WaitFor) -> list[Event]:
    """One or more of every event there is, mostly as a real service wrote them."""
    fields = {"catchup": "all", "overlap": "allow", "retries": {"max": 1}, "tags": ["billing", "nightly"]}
    service.schedule("s", "@every 1s", service.dag("d", "true"), **fields)
    supervisor = service.start()
    asked = [service.ask("dags/d.yaml"), service.ask(service.dag("bad", "false"), retries={"max": 1, "delay_s": 0})]
    wait_for(lambda: service.has_ended(*asked))
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    found = service.events()
    run = next(event for event in found if event["event"] == "run_requested")
    found += LogReader(service.root / "logs" / "orchestrator_events.jsonl", from_start=True).read()
    made = made_events(str(run["run_id"]))
    # The checkpoint as it is in the middle of things: with open runs.
    made += History([event for event in found if event["event"] != "run_finished"]).checkpoint()
    return found + [stamp(event, 7, "host", 1) for event in made]


def _files(templates: list[Event], chance: random.Random, lines: int, path: Path) -> Iterator[list[str]]:
    """Write one file of nonsense after another to `path`, with good lines between; yield the keys of those."""
    for number in range(0, lines, A_FILE):
        keys = [f"{number}.{place}" for place in range(A_FILE // 5)]
        rows = [nonsense(templates, chance) for _ in range(min(A_FILE, lines - number))]
        rows[chance.randrange(len(rows))] = b'{"a":"' + b"x" * 10_000_000 + b'"}'
        good = iter(keys)
        with open(path, "wb") as file:
            for place, row in enumerate(rows):
                file.write(row + b"\n")
                if place % 5 == 4:
                    key = next(good)
                    file.write(encode_line(stamp({"event": "good", "key": key, "n": [place]}, 1, "host", 1)))
        yield keys[: len(rows) // 5]


def _read_in_every_way(path: Path, keys: list[str], fields: list[str]) -> int:
    """Read the log as every reader does; return how many lines were counted as no event."""
    reader = LogReader(path, from_start=True)
    events = reader.read()
    assert [event["key"] for event in events if event.get("event") == "good"] == keys
    backward = list(read_backward(path))
    assert [event for event in reversed(backward) if event is not None] == events
    assert backward.count(None) == reader.corrupt
    assert [event["key"] for event in last_runs(10_000, path) if event.get("event") == "good"] == keys
    for field in ["event", "run_id", "schedule_id", "n", *fields]:
        index_by(field, 10_000, path)
    history = History(events)
    for line in history.checkpoint():
        encode_line(stamp(line, 1, "host", 1))
    run_queue, timers = RunQueue(), RunTimers()
    run_queue.load(run for run in history.runs.values() if is_fit(run.request))
    timers.load(history.runs.values())
    for event in (*timer_events(history, timers.due(4e9), NOW), *news_events(history, (), None)):
        encode_line(stamp(event, 1, "host", 1))
    status = gather(Settings(state_path=str(path)), NOW)
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status
    render(status, datetime.now(UTC))
    return reader.corrupt


def _commands(first: str, last: str) -> Iterator[list[str]]:
    """Yield every command that reads a log, with its options and two runs that are in it."""
    looking = ["runs", "runs --limit 1000", "runs --schedule s --since 90000d", "runs --tenant test", "status"]
    inspecting = ["stats", "stats s --since 3650d", f"show {first}", f"show {last}", f"show {last} --attempt 1"]
    for line in [*looking, "runs --tag billing", *inspecting, f"diff {first} {last}", f"logs {first}"]:
        yield line.split()
        yield [*line.split(), "--json"]
    for command in ("show", "cancel", "retry"):
        yield ["completion", "--words", "2", "tickpool", command, ""]
    yield ["completion", "--words", "3", "tickpool", "logs", first, ""]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_line_however_odd_stops_a_reader_or_costs_a_good_line(
    service: Service,
    templates: list[Event],
    tmp_path: Path,
    count: Count,
    figure: Figure,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed, lines, path = random.randrange(1 << 32), count(1000, 10_000), tmp_path / "fuzzed.jsonl"
    seed = int(os.environ.get("TICKPOOL_FUZZ_SEED") or seed)
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setenv("STATE_STORE_PATH", str(path))
    # The events of tasks are among them.
    monkeypatch.setenv("ORCH_EVENTS_PATH", str(path))
    first, *_, last = dict.fromkeys(str(event["run_id"]) for event in templates if event.get("run_id"))
    corrupt = files = good = 0
    for keys in _files(templates, chance, lines, path):
        fields = sorted({chance.choice(list(chance.choice(templates))) for _ in range(5)})
        corrupt += _read_in_every_way(path, keys, fields)
        for command in (*_commands(first, last), ["show", PARKED], ["approve", PARKED]):
            assert main(command) in (0, 1, 2), command
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        _append_behind(path)
        files += 1
        good += len(keys)
    figure(
        f"{lines} odd lines (seed {seed}) in {files} files, {corrupt} of them no event: "
        f"0 readers raised, {good} of {good} good lines read"
    )


def _append_behind(path: Path) -> None:
    """Append, fold and rotate as a service does on such a log."""
    store = StateStore(EventLog(path, fsync="off"))
    store.refresh()
    store.commit(lambda _: [{"event": "behind"}])
    store.rotate(0)
    store.commit(lambda _: [{"event": "behind"}])
    again = StateStore(EventLog(path, fsync="off"))
    again.refresh()
    assert again.history.runs.keys() == store.history.runs.keys()
    store.close()
    again.close()
    for segment in path.parent.glob(f"{path.name}*"):
        segment.unlink()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_audit_answers_whatever_is_told_of_runs(
    tmp_path: Path,
    count: Count,
    figure: Figure,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed, lines, path = random.randrange(1 << 32), count(500, 10_000), tmp_path / "fuzzed.jsonl"
    print(f"seed {seed}")
    monkeypatch.setenv("STATE_STORE_PATH", str(path))
    # Without schedules, of which another hand could let the audit demand the fire times of a century.
    templates = [stamp(event, 7, "host", 1) for event in of_parked_runs()]
    templates += [stamp({"event": "segment_started"}, 7, "host", 1)]
    for _ in _files(templates, random.Random(seed), lines, path):
        for command in (["audit"], ["audit", "--json", "--final"]):
            assert main(command) == 1
            assert "Traceback" not in capsys.readouterr().err
    figure(f"{lines} odd lines (seed {seed}): each log was judged, and found wrong")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_service_starts_and_serves_on_a_log_of_odd_lines(
    service: Service, templates: list[Event], wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    seed, starts = random.randrange(1 << 32), count(1, 10)
    print(f"seed {seed}")
    (service.root / "odd").mkdir()
    service.log = service.root / "odd" / "state.jsonl"
    (service.root / "schedules" / "s.yaml").unlink()
    service.schedule("calm", "0 0 1 1 *", "dags/d.yaml")
    for number, _ in enumerate(_files(templates, random.Random(seed), starts * A_FILE, service.log)):
        supervisor = service.start(STATE_STORE_PATH=str(service.log))
        wait_for(service.is_ready, timeout=30, what="a service on odd lines")
        # An odd line may well have begun a drain, under which nothing starts.
        record_event({"event": "drain_ended", "by": "a@b"}, service.log)
        asked = service.ask("dags/d.yaml", f"behind.{number}")
        wait_for(lambda asked=asked: _has_ended(service.log, asked), timeout=30, what="a run on odd lines")
        supervisor.terminate()
        assert supervisor.wait(20) == 0
        assert "Traceback" not in service.err()
        for file in service.log.parent.iterdir():
            file.unlink()
    figure(f"{starts} starts on {A_FILE} odd lines each (seed {seed}): {starts} served, 0 tracebacks")


def _has_ended(path: Path, run_id: str) -> bool:
    ends: list[Any] = [event for event in last_runs(50, path) if event.get("event") == "run_finished"]
    return any(event.get("run_id") == run_id for event in ends)


@pytest.mark.parametrize(
    "odd",
    [
        {"waits": "x"},
        {"waits": [{"task_id": 1}]},
        {"waits": [], "tasks": []},
        {"waits": [], "tasks": {"success": "x"}},
        {"waits": [], "tasks": {"success": 3}},
        {"waits": [], "worked_s": "long"},
        {"waits": None},
    ],
    ids=json.dumps,
)
def test_a_run_that_was_parked_by_another_hand_fails_in_a_sentence(
    service: Service, wait_for: WaitFor, odd: Event, figure: Figure
) -> None:
    asked = service.ask(service.dag("d", "true"))
    run = {"run_id": asked, "attempt": 1}
    record_event({"event": "run_started", **run, "pid": 7, "starttime": 1, "boot_id": "b"}, service.log)
    record_event({"event": "run_parked", **run, "waits": [], "tasks": {}, **odd}, service.log)
    record_event({"event": "run_resumed", **run, "reason": "news"}, service.log)
    service.start()
    wait_for(lambda: service.has_ended(asked), 20, "its end")
    (end,) = service.events("run_finished", asked)
    assert end["status"] == "failed"
    assert "internal error" not in end["reason"]
    assert "Traceback" not in service.err()
    figure(end["reason"])
