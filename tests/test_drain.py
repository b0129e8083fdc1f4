"""`drain_queue`: what it executes, what it refuses, what it leaves behind."""

from __future__ import annotations

import gc
import json
import multiprocessing
import queue
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from service import Service, is_running

from scheduler import drain_queue, tick_once
from scheduler.drain import InvalidRequest
from scheduler.state_store import index_by, record_event
from workers.segments import LogReader

WaitFor = Callable[..., None]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return a request for a DAG of one shell task; the environment leads to `tmp_path`."""
    monkeypatch.setenv("STATE_STORE_PATH", str(tmp_path / "state.jsonl"))
    monkeypatch.setenv("ORCH_EVENTS_PATH", str(tmp_path / "events.jsonl"))
    monkeypatch.setenv("RUN_LOGS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("TASK_GRACE_S", "0.3")
    monkeypatch.chdir(tmp_path)

    def make(name: str, run: str = "true", **fields: Any) -> dict[str, Any]:
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"id": "d", "tasks": [{"id": "t", "run": run}]}), "ascii")
        return {"schedule_id": name, "dag": f"{name}.yaml", "project": str(tmp_path), **fields}

    return make


def _queue(*requests: Any) -> queue.Queue[Any]:
    run_queue: queue.Queue[Any] = queue.Queue()
    for request in requests:
        run_queue.put(request)
    return run_queue


def _events(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    reader = LogReader(tmp_path / "state.jsonl")
    events = [event for event in reader.read() if event["event"] == name]
    reader.close()
    return events


def test_the_outcomes_come_in_the_queues_order_and_the_queue_is_empty(ask: Ask) -> None:
    run_queue = _queue(ask("slow", "sleep 0.2"), ask("bad", "exit 3"), ask("quick"))
    outcomes = drain_queue(run_queue, max_parallel=3)
    assert [(each["schedule_id"], each["status"]) for each in outcomes] == [
        ("slow", "success"),
        ("bad", "failed"),
        ("quick", "success"),
    ]
    assert outcomes[1]["reason"] == "task `t` failed: exit code 3"
    assert outcomes[0]["duration_s"] >= 0.2
    assert run_queue.empty()
    assert json.loads(json.dumps(outcomes)) == outcomes
    assert drain_queue(run_queue) == []


def test_limits_on_record_hold_for_the_runs_of_a_queue(ask: Ask, tmp_path: Path) -> None:
    record_event({"event": "limits_loaded", "pools": {"one": 1}, "tenants": {}})
    asked = [ask(f"s{number}", "sleep 0.1", pool="one") for number in range(3)]
    outcomes = drain_queue(_queue(*asked), max_parallel=3)
    assert [outcome["status"] for outcome in outcomes] == ["success"] * 3
    events = [event["event"] for event in LogReader(tmp_path / "state.jsonl", from_start=True).read()]
    assert [name for name in events if name in ("run_started", "run_finished")] == ["run_started", "run_finished"] * 3


def test_what_a_tick_put_on_a_process_queue_is_run_under_its_names(ask: Ask) -> None:
    request = ask("s")
    run_queue: multiprocessing.Queue[Any] = multiprocessing.Queue()
    entry = {"id": "s", "cron": "* * * * *", "dag": request["dag"], "tenant": "t", "enabled": True}
    now = datetime(2026, 11, 23, 9, 0, 30, tzinfo=UTC)
    (enqueued,) = tick_once(now, [entry], run_queue)
    (outcome,) = drain_queue(run_queue)
    run_queue.close()
    run_queue.join_thread()
    assert (outcome["run_id"], outcome["minute"], outcome["attempt"]) == ("s.20261123T0900Z", "2026-11-23T09:00:00Z", 1)
    assert outcome["status"] == "success"
    assert enqueued["run_id"] == outcome["run_id"]
    assert list(index_by("event")) == ["schedule_enqueued", "run_started", "run_finished"]


def test_no_more_than_max_parallel_run_at_once(ask: Ask, tmp_path: Path) -> None:
    requests = [ask(f"s{n}", "sleep 0.1") for n in range(6)]
    drain_queue(_queue(*requests), max_parallel=2)
    edges = [(event["seq"], 1) for event in _events(tmp_path, "run_started")]
    edges += [(event["seq"], -1) for event in _events(tmp_path, "run_finished")]
    running, most = 0, 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    assert most == 2
    assert len(edges) == 12


def test_attempts_are_made_before_it_returns(ask: Ask, tmp_path: Path) -> None:
    run = "[ $ATTEMPT = 3 ]"
    (outcome,) = drain_queue(_queue(ask("s", run, retries={"max": 4, "delay_s": 0})))
    assert (outcome["status"], outcome["attempt"]) == ("success", 3)
    assert [event["status"] for event in _events(tmp_path, "run_finished")] == ["failed", "failed", "success"]


def test_a_run_on_the_queue_twice_is_run_once_and_refused_once(ask: Ask, tmp_path: Path) -> None:
    request = ask("s", "echo x >> effects", minute="2026-11-23T09:00:00Z")
    outcomes = drain_queue(_queue(request, dict(request)))
    assert [each["status"] for each in outcomes] == ["success", "refused"]
    again = drain_queue(_queue(request))
    assert [each["status"] for each in again] == ["refused"]
    assert "has it already" in again[0]["reason"]
    assert (tmp_path / "effects").read_text("ascii") == "x\n"


def test_a_name_that_somebody_made_up_is_run_once_however_old_it_is(ask: Ask, tmp_path: Path) -> None:
    request = ask("s", "echo x >> effects", run_id="by-hand")
    assert drain_queue(_queue(request))[0]["status"] == "success"
    (tmp_path / "state.jsonl").rename(tmp_path / "state.jsonl.000000000001")
    (tmp_path / "state.jsonl").write_text('{"event":"segment_started","seq":4}\n', "ascii")
    assert drain_queue(_queue(request))[0]["status"] == "refused"
    assert (tmp_path / "effects").read_text("ascii") == "x\n"


def test_requests_made_by_hand_get_names(ask: Ask) -> None:
    outcomes = drain_queue(
        _queue(ask("s"), ask("s", minute="2026-11-23T10:00+01:00"), ask("n", minute="2026-11-23T10:00:00"))
    )
    manual, of_minute, naive = (each["run_id"] for each in outcomes)
    assert manual.startswith("s.manual.")
    assert of_minute == "s.20261123T0900Z"
    assert naive == "n.20261123T1000Z"
    assert [each["status"] for each in outcomes] == ["success"] * 3


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (None, "run request None: it names no `dag`; give the path of a DAG file"),
        ({"schedule_id": "s"}, "it names no `dag`"),
        ({"dag": ""}, "it names no `dag`"),
        ({"dag": ["d.yaml"]}, "it names no `dag`"),
        ({"dag": "d.yaml", "attempt": 0}, "`attempt` is a whole number from 1"),
        ({"dag": "d.yaml", "attempt": "1"}, "`attempt` is a whole number from 1"),
        ({"dag": "d.yaml", "run_id": "../up"}, "`run_id` '../up' cannot be used; a run id begins with"),
        ({"dag": "d.yaml", "schedule_id": "a b"}, "a run id begins with"),
        ({"dag": "d.yaml", "minute": "today"}, "`minute` is an ISO 8601 time, such as 2026-11-23T09:00:00Z"),
        ({"dag": "d.yaml", "minute": 5}, "`minute` is an ISO 8601 time"),
    ],
)
def test_a_request_that_cannot_be_run_is_an_error_and_nothing_is_run(
    ask: Ask, tmp_path: Path, item: Any, said: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        drain_queue(_queue(ask("good"), item))
    assert said in str(raised.value)
    assert not (tmp_path / "state.jsonl").exists()


def test_no_worker_is_no_way_to_drain(ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="1 or more workers"):
        drain_queue(_queue(ask("s")), max_parallel=0)


def test_repeated_drains_leave_nothing_behind(ask: Ask, wait_for: WaitFor) -> None:
    process = psutil.Process()

    def used() -> tuple[int, int, int]:
        gc.collect()
        return process.num_fds(), process.num_threads(), len(process.children(recursive=True))

    drain_queue(_queue(ask("s0")))
    before = used()
    for n in range(1, 4):
        drain_queue(_queue(*(ask(f"s{n}{m}") for m in range(3))))
    # The thread that feeds a queue ends a moment after it.
    wait_for(lambda: all(now <= then for now, then in zip(used(), before, strict=True)), what="as much as before")


DRAIN = """
import queue, sys
from scheduler import drain_queue

if __name__ == "__main__":
    run_queue = queue.Queue()
    for n in range(4):
        dag = sys.argv[1]
        run_queue.put({"run_id": f"r{n}", "attempt": 1, "dag": dag, "project": ".", "schedule_id": "s"})
    print([outcome["status"] for outcome in drain_queue(run_queue, max_parallel=2)], flush=True)
"""


def test_an_interrupted_drain_cancels_what_runs_and_leaves_the_rest_asked_for(
    service: Service, wait_for: WaitFor
) -> None:
    (service.root / "drain.py").write_text(DRAIN, "ascii")
    dag = service.dag("d", "echo $$ >> pids; sleep 300")
    process = service.launch("drain.py", dag)
    pids = service.root / "pids"
    wait_for(lambda: pids.exists() and pids.read_text("ascii").count("\n") == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0
    assert "KeyboardInterrupt" in service.err()
    assert Counter(event["status"] for event in service.events("run_finished")) == {"cancelled": 2}
    assert not any(is_running(int(pid)) for pid in pids.read_text("ascii").split())
    wait_for(lambda: str(service.root) not in _places())
    service.dag("d", "true")
    service.start()
    wait_for(lambda: len(service.events("run_finished")) == 4)
    assert set(service.starts().values()) == {1}


def test_two_programs_that_drain_the_same_requests_run_each_once(service: Service) -> None:
    (service.root / "drain.py").write_text(DRAIN, "ascii")
    dag = service.dag("d", 'echo "$RUN_ID" >> effects; sleep 0.1')
    both = [service.launch("drain.py", dag) for _ in range(2)]
    assert [process.wait(20) for process in both] == [0, 0]
    assert Counter((service.root / "effects").read_text("ascii").split()) == {f"r{n}": 1 for n in range(4)}
    assert set(service.starts().values()) == {1}


def _places() -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            found.append(process.cwd())
        except psutil.Error:
            continue
    return found


def _dag(place: Path, name: str, *tasks: dict[str, Any]) -> None:
    (place / f"{name}.yaml").write_text(json.dumps({"id": name, "tasks": tasks}), "ascii")


def test_dags_of_dags_and_waits_are_run_by_one_worker(ask: Ask, tmp_path: Path) -> None:
    request = ask("d")
    _dag(tmp_path, "sub", {"id": "t", "run": "echo sub >> done"})
    _dag(
        tmp_path,
        "d",
        {"id": "sub", "dag": "sub.yaml"},
        {"id": "rest", "wait": {"delay": "2.5s"}},
        {"id": "then", "run": "echo then >> done", "needs": ["sub", "rest"]},
    )
    (outcome,) = drain_queue(_queue(request), max_parallel=1)
    assert outcome["status"] == "success"
    assert (tmp_path / "done").read_text("ascii") == "sub\nthen\n"
    assert len(_events(tmp_path, "run_parked")) == 2


@pytest.mark.parametrize("is_asked", [True, False], ids=["its_run_is_asked_for", "its_time_is_to_come"])
def test_a_run_that_another_process_has_left_parked_goes_on(ask: Ask, tmp_path: Path, *, is_asked: bool) -> None:
    request = {**ask("d"), "run_id": "d.1"}
    _dag(tmp_path, "sub", {"id": "t", "run": "true"})
    _dag(tmp_path, "d", {"id": "w", "dag": "sub.yaml"} if is_asked else {"id": "w", "wait": {"delay": "3s"}})
    run = {"run_id": "d.1", "schedule_id": "d", "attempt": 1}
    now_s = datetime.now(UTC).timestamp()
    wait: dict[str, Any] = {"task_id": "w", "task_attempt": 1, "kind": "time", "since_s": now_s, "due_s": now_s + 1}
    until = datetime.fromtimestamp(now_s + 1, UTC).isoformat()
    if is_asked:
        wait = {
            "task_id": "w",
            "task_attempt": 1,
            "kind": "dag",
            "since_s": now_s,
            "run": "d.1.w",
            "status": ["success"],
        }
    record_event({"event": "run_requested", **request, "attempt": 1})
    record_event({"event": "run_started", **run, "boot_id": "b", "starttime": 1})
    if is_asked:
        child = {"run_id": "d.1.w", "attempt": 1, "dag": "sub.yaml", "project": str(tmp_path)}
        record_event({"event": "run_requested", **child, "parent": {"run_id": "d.1", "attempt": 1, "task_id": "w"}})
    record_event({"event": "run_parked", **run, "waits": [wait], "tasks": {}, "until": None if is_asked else until})
    (outcome,) = drain_queue(_queue(request))
    assert (outcome["status"], outcome["attempt"]) == ("success", 1)


def test_nothing_is_left_of_the_runs_that_a_crashed_run_has_asked_for(ask: Ask, tmp_path: Path) -> None:
    request = ask("d")
    _dag(tmp_path, "sub", {"id": "t", "run": "echo $$ > pid; sleep 300"})
    kill = "while [ ! -s pid ]; do sleep 0.02; done; kill -9 $PPID"
    _dag(tmp_path, "d", {"id": "sub", "dag": "sub.yaml"}, {"id": "kill", "run": kill})
    (outcome,) = drain_queue(_queue(request), max_parallel=2)
    assert outcome["status"] == "crashed"
    ends = {event["run_id"]: event["status"] for event in _events(tmp_path, "run_finished")}
    assert (len(ends), ends[f"{outcome['run_id']}.sub"]) == (2, "cancelled")
