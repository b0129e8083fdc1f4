"""Handing out runs, and the end on record of every run that was started, whatever the log and the system do."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import connection
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from service import is_running

from scheduler.dispatch import Dispatcher
from workers.events import encode_line, utc_timestamp
from workers.failpoints import Failpoints
from workers.lock import Lock
from workers.process import identity
from workers.run_request import cancel_requested
from workers.segments import LogReader
from workers.settings import Settings

WaitFor = Callable[..., None]


class Scene:
    """A dispatcher on a log, with requests recorded as others record them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings(
            state_path=str(root / "state.jsonl"),
            events_path=str(root / "events.jsonl"),
            run_logs_dir=str(root / "runs"),
            task_grace_s=0.3,
            lock_timeout_s=0.1,
        )
        self.lock = Lock(root / "state.jsonl.lock")
        self.log = self.settings.state_log()
        self.dispatchers: list[Dispatcher] = []

    def begin(self, size: int = 1) -> Dispatcher:
        dispatcher = Dispatcher(self.settings, size)
        self.dispatchers.append(dispatcher)
        dispatcher.recover(datetime.now(UTC))
        dispatcher.start_workers()
        return dispatcher

    def ask(self, run_id: str, run: str = "true", **fields: Any) -> None:
        file = self.root / f"{run_id}.yaml"
        file.write_text(json.dumps({"id": "d", "tasks": [{"id": "t", "run": run}]}), "ascii")
        request = {"run_id": run_id, "schedule_id": "s", "attempt": 1, "dag": file.name, "project": str(self.root)}
        self.log.append({"event": "run_requested", **request, **fields})

    def tell(self, event: str, run_id: str, attempt: int = 1, **fields: Any) -> None:
        me = identity(os.getpid())
        process = {"boot_id": me.boot_id, "starttime": me.starttime} if event == "run_started" else {}
        told = {"event": event, "run_id": run_id, "schedule_id": "s", "attempt": attempt}
        self.log.append({**told, **process, **fields})

    def events(self, name: str = "") -> list[dict[str, Any]]:
        reader = LogReader(Path(self.settings.state_path))
        events = [event for event in reader.read() if name in ("", event["event"])]
        reader.close()
        return events

    def story(self, run_id: str) -> list[str]:
        told = [e for e in self.events() if e.get("run_id") == run_id and e["event"] != "run_requested"]
        return [" ".join(str(e[key]) for key in ("event", "attempt", "status") if key in e) for e in told]

    def is_claiming(self, pid: int) -> bool:
        return any(file.path == str(self.lock.path) for file in psutil.Process(pid).open_files())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.lock.close()
    for dispatcher in scene.dispatchers:
        dispatcher.kill()
        dispatcher.close()
    scene.log.close()


def _turn(dispatcher: Dispatcher) -> list[str]:
    """One turn as the service makes it; return the runs handed out."""
    dispatcher.settle(connection.wait(dispatcher.waitables(), 0.02), datetime.now(UTC))
    return [request["run_id"] for request in dispatcher.dispatch(datetime.now(UTC))]


def _turning(dispatcher: Dispatcher, predicate: Callable[[], object]) -> Callable[[], object]:
    """Return the predicate, asked after a turn each time."""

    def turn_and_ask() -> object:
        _turn(dispatcher)
        return predicate()

    return turn_and_ask


def _ended(scene: Scene, dispatcher: Dispatcher, run_id: str) -> bool:
    _turn(dispatcher)
    return any(line.startswith("run_finished") for line in scene.story(run_id))


def test_what_nobody_waits_for_any_more_takes_no_slot(scene: Scene, wait_for: WaitFor) -> None:
    scene.log.append({"event": "limits_loaded", "pools": {"one": 1}, "tenants": {}})
    dispatcher = scene.begin()
    dispatcher.queue.put({"run_id": "ghost", "pool": "one", "attempt": 1, "dag": "d.yaml"})
    scene.ask("real", pool="one")
    wait_for(lambda: _ended(scene, dispatcher, "real"))
    assert scene.story("ghost") == []


def test_runs_are_handed_out_in_the_order_they_were_asked_for(scene: Scene, wait_for: WaitFor) -> None:
    for name in ("c", "a", "b"):
        scene.ask(name)
    dispatcher = scene.begin()
    scene.ask("d")
    wait_for(lambda: all(_ended(scene, dispatcher, name) for name in "cabd"))
    assert [event["run_id"] for event in scene.events("run_started")] == ["c", "a", "b", "d"]


def test_a_run_that_another_process_took_meanwhile_is_not_handed_out(scene: Scene, wait_for: WaitFor) -> None:
    scene.ask("first", "sleep 60", overlap="queue")
    scene.ask("second", overlap="queue")
    scene.ask("retried")
    scene.tell("run_started", "retried")
    scene.tell("run_finished", "retried", status="failed", next_attempt=2, retry_at="2026-01-01T00:00:00Z")
    dispatcher = scene.begin(2)
    # `second` waits for its turn, behind `first`; somebody else runs it, and the retry too.
    scene.tell("run_started", "second")
    scene.tell("run_finished", "second", status="success")
    scene.tell("run_started", "retried", 2)
    scene.tell("run_finished", "retried", 2, status="success")
    wait_for(_turning(dispatcher, lambda: scene.story("first")))
    dispatcher.pool.cancel("first")
    wait_for(lambda: _ended(scene, dispatcher, "first"))
    assert _turn(dispatcher) == []
    # Not even when somebody puts it again.
    dispatcher.queue.put({"run_id": "second", "schedule_id": "s", "attempt": 1, "dag": "second.yaml"})
    assert _turn(dispatcher) == []
    assert dispatcher.queue.qsize() == 0
    assert scene.story("second") == ["run_started 1", "run_finished 1 success"]
    assert len(scene.story("retried")) == 4


def test_a_run_in_another_process_is_watched_and_closed_when_that_process_ends(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    other = psutil.Popen(["sleep", "300"])
    try:
        starttime = identity(other.pid).starttime
        scene.tell("run_started", "theirs", pid=other.pid, starttime=starttime)
        wait_for(_turning(dispatcher, lambda: len(dispatcher.waitables()) == 3))
        assert scene.story("theirs") == ["run_started 1"]
    finally:
        other.kill()
    wait_for(lambda: _ended(scene, dispatcher, "theirs"))
    assert scene.story("theirs") == ["run_started 1", "run_finished 1 crashed"]
    assert scene.events("run_finished")[0]["reason"] == f"process {other.pid} ended without a word"
    other.wait(5)
    assert len(dispatcher.waitables()) == 2


def test_a_process_that_has_the_pid_of_a_lost_one_keeps_no_run_open(scene: Scene, wait_for: WaitFor) -> None:
    scene.tell("run_started", "before", starttime=1)
    dispatcher = scene.begin()
    assert scene.story("before") == ["run_started 1", "run_finished 1 crashed"]
    scene.tell("run_started", "after", starttime=1)
    wait_for(lambda: _ended(scene, dispatcher, "after"))
    scene.tell("run_started", "boot", boot_id="of another life")
    wait_for(lambda: _ended(scene, dispatcher, "boot"))


def test_a_session_that_took_the_number_of_a_lost_task_is_left_alone(scene: Scene) -> None:
    bystander = psutil.Popen(["sleep", "300"], start_new_session=True)
    try:
        scene.tell("run_started", "lost", starttime=1)
        started = {"event": "task_started", "run_id": "lost", "attempt": 1, "task_id": "t", "task_attempt": 1}
        task_log = scene.settings.task_log()
        task_log.append({**started, "pid": bystander.pid, "starttime": identity(bystander.pid).starttime - 1})
        task_log.close()
        scene.begin()
        assert scene.story("lost") == ["run_started 1", "run_finished 1 crashed"]
        assert bystander.is_running()
        assert bystander.status() != psutil.STATUS_ZOMBIE
    finally:
        bystander.kill()
        bystander.wait(5)


def test_a_run_that_cannot_be_claimed_waits_and_does_not_spin(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r")
    dispatcher.settle([], datetime.now(UTC))
    scene.lock.acquire(1)
    handed: list[str] = []
    wait_for(lambda: handed.extend(_turn(dispatcher)) or dispatcher.wake_s())
    wait_s = dispatcher.wake_s()
    assert wait_s is not None
    assert 0.5 < wait_s <= 1
    assert _turn(dispatcher) == []
    assert handed == ["r"]
    scene.lock.close()
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    assert scene.story("r") == ["run_started 1", "run_finished 1 success"]


def test_an_end_that_the_log_would_not_take_is_recorded_later(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "while [ ! -e go ]; do sleep 0.01; done")
    wait_for(_turning(dispatcher, lambda: scene.story("r")))
    scene.lock.acquire(1)
    (scene.root / "go").touch()
    wait_for(_turning(dispatcher, lambda: dispatcher.pool.free()))
    assert scene.story("r") == ["run_started 1"]
    scene.lock.close()
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    assert scene.story("r") == ["run_started 1", "run_finished 1 success"]
    assert dispatcher.wake_s() is None


def test_a_crash_that_the_log_would_not_take_is_recorded_later(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "sleep 60")
    wait_for(_turning(dispatcher, lambda: scene.story("r")))
    scene.lock.acquire(1)
    (pid,) = dispatcher.pool.pids()
    os.kill(pid, signal.SIGKILL)
    wait_for(_turning(dispatcher, lambda: pid not in dispatcher.pool.pids()))
    assert scene.story("r") == ["run_started 1"]
    scene.lock.close()
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    assert scene.story("r") == ["run_started 1", "worker_exited", "run_finished 1 crashed"]
    assert [event["run_id"] for event in scene.events("worker_exited")] == ["r"]


def test_a_death_that_could_not_be_dealt_with_is_dealt_with_by_the_next_turn(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "sleep 60")
    wait_for(_turning(dispatcher, lambda: scene.story("r")))
    (pid,) = dispatcher.pool.pids()
    os.kill(pid, signal.SIGKILL)
    ready: list[Any] = []
    pidfd = next(each for each in dispatcher.waitables() if isinstance(each, int))
    wait_for(lambda: ready.extend(connection.wait([pidfd], 0.02)) or ready)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            dispatcher.settle(ready, datetime.now(UTC))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert scene.story("r") == ["run_started 1"]
    dispatcher.settle([], datetime.now(UTC))
    assert scene.story("r")[-1] == "run_finished 1 crashed"


def test_a_request_that_could_not_be_handed_over_stays_in_the_queue(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r")
    dispatcher.settle([], datetime.now(UTC))
    (worker,) = dispatcher.pool._workers.values()
    worker.inbox.close()
    with pytest.raises(ValueError, match="is closed"):
        dispatcher.dispatch(datetime.now(UTC))
    os.kill(worker.identity.pid, signal.SIGKILL)
    dispatcher.settle(connection.wait([worker.pidfd], 10), datetime.now(UTC))
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    assert scene.story("r") == ["run_started 1", "run_finished 1 success"]


def test_a_request_and_a_free_worker_are_reason_to_wake_at_once(scene: Scene) -> None:
    dispatcher = scene.begin()
    dispatcher.settle([], datetime.now(UTC))
    assert dispatcher.wake_s() is None
    scene.ask("r")
    dispatcher.store.refresh()
    assert dispatcher.wake_s() == 0
    assert [request["run_id"] for request in dispatcher.dispatch(datetime.now(UTC))] == ["r"]
    assert dispatcher.wake_s() is None


def test_the_logs_are_flushed_a_little_after_something_came(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r")
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    dispatcher.flush()
    wake_s = dispatcher.wake_s()
    assert wake_s is not None
    assert 0 < wake_s <= 0.5
    wait_for(_turning(dispatcher, lambda: dispatcher.flush() or dispatcher.wake_s() is None))


def test_what_the_log_would_not_take_is_tried_once_more_at_the_end(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "while [ ! -e go ]; do sleep 0.01; done")
    wait_for(_turning(dispatcher, lambda: scene.story("r")))
    scene.lock.acquire(1)
    (scene.root / "go").touch()
    wait_for(_turning(dispatcher, dispatcher.pool.free))
    scene.lock.close()
    dispatcher.close()
    assert scene.story("r") == ["run_started 1", "run_finished 1 success"]


def test_a_retry_waits_for_its_time(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "false", retries={"max": 1, "delay_s": 1})
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    wake_s = dispatcher.wake_s()
    assert wake_s is not None
    assert 0 < wake_s <= 2
    assert dispatcher.queue.qsize() == 1
    wait_for(_turning(dispatcher, lambda: len(scene.story("r")) == 4))
    first, second = scene.events("run_started")
    assert datetime.fromisoformat(second["timestamp"]) >= datetime.fromisoformat(
        scene.events("run_finished")[0]["retry_at"]
    )
    assert (first["attempt"], second["attempt"]) == (1, 2)


def test_requests_without_a_usable_name_are_left_alone(scene: Scene, wait_for: WaitFor) -> None:
    scene.ask("x" * 200, dag="d.yaml")
    for name in ("../up", "x" * 201, ""):
        scene.log.append({"event": "run_requested", "run_id": name, "dag": "d.yaml", "timestamp": utc_timestamp()})
    dispatcher = scene.begin(2)
    scene.log.append({"event": "run_requested", "run_id": "a/b", "dag": "d.yaml"})
    # Its start would not fit in a line of the log.
    scene.ask("long", schedule_id="s" * 65_000)
    scene.ask("late", minute="2" * 65_000, schedule_id=None)
    wait_for(lambda: _ended(scene, dispatcher, "x" * 200))
    assert dispatcher.queue.qsize() == 0
    assert {event["run_id"] for event in scene.events("run_started")} == {"x" * 200}


def test_closing_gives_running_tasks_their_grace(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "trap 'echo polite > said; exit' TERM; touch up; while :; do sleep 0.01; done")
    wait_for(_turning(dispatcher, lambda: (scene.root / "up").exists()))
    dispatcher.close()
    assert (scene.root / "said").read_text("ascii") == "polite\n"
    assert scene.story("r") == ["run_started 1", "run_finished 1 cancelled"]


def test_killing_closes_what_runs_as_cancelled(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "echo $$ > pid; exec sleep 60")
    file = scene.root / "pid"
    wait_for(_turning(dispatcher, lambda: file.exists() and file.read_text("ascii").strip()))
    dispatcher.kill()
    assert scene.story("r") == ["run_started 1", "run_finished 1 cancelled"]
    assert not is_running(int(file.read_text("ascii")))
    assert dispatcher.pool.is_empty()


def test_closing_leaves_no_descriptor(scene: Scene, wait_for: WaitFor) -> None:
    scene.begin().close()
    scene.ask("before")
    before = psutil.Process().num_fds()
    dispatcher = scene.begin()
    other = psutil.Popen(["sleep", "300"])
    scene.tell("run_started", "theirs", pid=other.pid, starttime=identity(other.pid).starttime)
    scene.ask("r")
    wait_for(lambda: _ended(scene, dispatcher, "r") and len(dispatcher.waitables()) == 3)
    dispatcher.close()
    other.kill()
    other.wait(5)
    wait_for(lambda: psutil.Process().num_fds() <= before)


# -- cancels and times ----------------------------------------------------------------------------------------------


def test_a_cancel_between_hand_over_and_claim_leaves_nothing_started(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    scene.ask("r", "touch effect")
    dispatcher.settle([], datetime.now(UTC))
    scene.lock.acquire(1)
    (pid,) = dispatcher.pool.pids()
    assert [request["run_id"] for request in dispatcher.dispatch(datetime.now(UTC))] == ["r"]
    wait_for(lambda: scene.is_claiming(pid))
    # Written as the holder of the lock writes: before the claim, which waits for it.
    line = encode_line({"timestamp": utc_timestamp(), "seq": 2, "pid": 1, "host": "h", **cancel_requested("r", "no")})
    with open(scene.settings.state_path, "ab") as log:
        log.write(line)
    scene.lock.close()
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    assert [line for line in scene.story("r") if "cancel" not in line.split()[0]] == ["run_finished 1 cancelled"]
    assert not (scene.root / "effect").exists()
    wait_for(_turning(dispatcher, dispatcher.pool.free))


@pytest.mark.parametrize("seed", range(6))
def test_a_run_is_started_or_closed_as_too_late_and_never_both(scene: Scene, wait_for: WaitFor, seed: int) -> None:
    dispatcher = scene.begin()
    wait_for(_turning(dispatcher, dispatcher.pool.free))
    # The hand-over comes just before the last moment, and the claim around it.
    last = datetime.now(UTC) + timedelta(milliseconds=30)
    names = [f"r{seed}.{number}" for number in range(4)]
    for number, name in enumerate(names):
        moment = last + timedelta(milliseconds=3 * number + seed)
        scene.ask(name, start_by=moment.isoformat().replace("+00:00", "Z"))
    wait_for(lambda: all(_ended(scene, dispatcher, name) for name in names))
    wait_for(_turning(dispatcher, dispatcher.pool.free))
    both = (["run_started 1", "run_finished 1 success"], ["run_finished 1 cancelled"])
    assert all(scene.story(name) in both for name in names), [scene.story(name) for name in names]


def test_a_worker_that_does_not_end_a_cancelled_run_within_the_grace_is_killed(
    scene: Scene, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cancels._ENDED_WITHIN_S", 0.3)
    dispatcher = scene.begin()
    (scene.root / "stuck.py").write_text("import time\ndef sleep(up):\n    open(up, 'w').close(); time.sleep(300)\n")
    task = {"id": "t", "call": "stuck:sleep", "isolate": False, "args": {"up": str(scene.root / "up")}}
    scene.ask("r")
    (scene.root / "r.yaml").write_text(json.dumps({"id": "d", "tasks": [task]}), "ascii")
    wait_for(_turning(dispatcher, lambda: scene.story("r")))
    wait_for((scene.root / "up").exists)
    scene.log.append(cancel_requested("r", "replaced", "other"))
    wait_for(lambda: _ended(scene, dispatcher, "r"))
    assert scene.events("run_finished")[0]["reason"] == "cancelled: replaced by other"
    assert scene.story("r")[-1] == "run_finished 1 cancelled"


def test_a_cancel_is_signalled_once_and_one_of_a_run_by_hand_is_for_its_owner(scene: Scene, wait_for: WaitFor) -> None:
    dispatcher = scene.begin()
    other = psutil.Popen(["sleep", "300"])
    try:
        scene.tell("run_started", "theirs", pid=other.pid, starttime=identity(other.pid).starttime)
        scene.ask(
            "r",
            "trap 'sleep 0.15; echo x >> told; exit 1' TERM; touch up; while :; do sleep 0.01; done",
            retries={"max": 2},
        )
        wait_for(_turning(dispatcher, (scene.root / "up").exists))
        for name in ("theirs", "r", "r", "r", "none"):
            scene.log.append(cancel_requested(name, "asked for"))
        wait_for(lambda: _ended(scene, dispatcher, "r"))
        assert scene.story("r")[-1] == "run_finished 1 cancelled"
        assert (scene.root / "told").read_text("ascii") == "x\n"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(5)


def test_a_run_resumed_before_its_dead_worker_is_buried_goes_on_and_does_not_begin_again(
    scene: Scene, wait_for: WaitFor
) -> None:
    notes = scene.root / "notes"
    notes.touch()
    scene.settings = msgspec.structs.replace(scene.settings, failpoints=Failpoints(str(notes), {"after_park": 1.0}))
    scene.ask("r")
    tasks = [{"id": "t", "run": "echo t >> done"}, {"id": "ok", "approval": "Now?", "needs": ["t"]}]
    (scene.root / "r.yaml").write_text(json.dumps({"id": "d", "tasks": tasks}), "ascii")
    dispatcher = scene.begin()
    wait_for(_turning(dispatcher, lambda: "run_started 1" in scene.story("r")))
    wait_for(notes.read_text, what="the death of the worker behind its park")
    scene.tell("task_approved", "r", task_id="ok", by="a@b")
    # The answer is followed before the death of the worker is.
    dispatcher.settle((), datetime.now(UTC))
    assert scene.story("r")[-1] == "run_resumed 1"
    notes.unlink()
    wait_for(_turning(dispatcher, lambda: _ended(scene, dispatcher, "r")))
    assert scene.story("r")[-1] == "run_finished 1 success"
    assert (scene.root / "done").read_text("ascii") == "t\n"
