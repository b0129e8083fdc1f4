"""Whole runs: order, limits, retries, trigger rules, time-outs, cancellation, hooks, what is recorded."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers import process
from workers.dag import Dag, Retries, Task
from workers.process_tree import find, marked_with
from workers.run_context import InvalidRun
from workers.runner import InvalidParams, RunInfo, Stop, run_dag
from workers.units import Duration

Start = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]
SLEEPER = "sleep 60"


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run tasks in `tmp_path`; return the result and the events."""

    def run(*tasks: Task, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        of_dag = {name: options.pop(name) for name in list(options) if name in Dag.__struct_fields__}
        events: list[dict[str, Any]] = []
        options = {"run": RunInfo("r1"), "record": events.append, **options}
        return run_dag(
            Dag(id="d", tasks=tasks, **of_dag), project=tmp_path, logs_dir=tmp_path / "runs", **options
        ), events

    return run


def _task(name: str, run: Any = ("true",), needs: str = "", **fields: Any) -> Task:
    return Task(id=name, run=run, needs=tuple(needs.split()), **fields)


def _children() -> set[int]:
    """Return the children of this process, the dead too; tests before may have left it a fork server."""
    return {stat.pid for stat in find(lambda stat: stat.ppid == os.getpid(), dead=True)}


def _seconds(text: str) -> Duration:
    return Duration.parse(text)


def _statuses(result: dict[str, Any]) -> dict[str, str]:
    return {name: task["status"] for name, task in result["tasks"].items()}


def _stopped_when(ready: Path, wait_for: Callable[..., None], act: Callable[[], None]) -> threading.Thread:
    def wait_and_act() -> None:
        wait_for(ready.exists)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_a_run_tells_how_everything_ended(start: Start) -> None:
    result, events = start(_task("a", "echo x=1 > $TASK_OUTPUT"), _task("b", "exit 3", "a"), _task("c", needs="b"))
    assert (result["run_id"], result["dag_id"], result["status"]) == ("r1", "d", "failed")
    assert result["reason"] == "task `b` failed: exit code 3"
    assert _statuses(result) == {"a": "success", "b": "failed", "c": "upstream_failed"}
    assert result["tasks"]["a"]["outputs"] == {"x": "1"}
    assert result["tasks"]["c"]["reason"] == "trigger rule all_success: `b` failed"
    assert [(event["event"], event["task_id"]) for event in events] == [
        ("task_started", "a"),
        ("task_finished", "a"),
        ("task_started", "b"),
        ("task_finished", "b"),
        ("task_skipped", "c"),
    ]
    assert {event["run_id"] for event in events} == {"r1"}
    assert json.loads(json.dumps(result)) == result
    started, finished = events[:2]
    assert started["pid"] > 0
    assert started["starttime"] > 0
    assert finished["max_rss_kib"] > 500
    assert finished["duration_s"] > 0
    assert finished["outputs"] == {"x": "1"}


def test_a_run_without_a_name_gets_a_manual_one(tmp_path: Path) -> None:
    result = run_dag(Dag(id="d", tasks=(_task("a"),)), project=tmp_path)
    assert re.fullmatch(r"d\.manual\.\d{8}T\d{6}Z-[0-9a-f]{4}", result["run_id"])
    assert (tmp_path / "logs/runs" / result["run_id"] / "1").is_dir()


def test_a_dag_file_can_be_run(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("id: d\ntasks:\n  - id: a\n    run: echo hi\n")
    assert run_dag(tmp_path / "d.yaml", project=tmp_path)["status"] == "success"
    assert run_dag("d.yaml", project=tmp_path)["dag_id"] == "d"


def test_a_run_that_cannot_be_is_refused(tmp_path: Path) -> None:
    dag = Dag(id="d", tasks=(_task("a"),), params={"region": "eu"})
    with pytest.raises(InvalidRun, match=r"run_id '\.\./x' cannot be used"):
        run_dag(dag, run=RunInfo("../x"), project=tmp_path)
    with pytest.raises(InvalidParams, match="did you mean `region`"):
        run_dag(dag, params={"regoin": "us"}, project=tmp_path)


def test_tasks_start_in_the_order_of_their_needs(start: Start) -> None:
    _, events = start(_task("c", needs="a b"), _task("d", needs="c"), _task("b", needs="a"), _task("a"))
    assert [event["task_id"] for event in events if event["event"] == "task_started"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_tasks_run_at_once_than_allowed(start: Start, limit: int) -> None:
    result, events = start(*(_task(f"t{n}", "sleep 0.05") for n in range(6)), max_parallel_tasks=limit)
    running = most = 0
    for event in events:
        running += {"task_started": 1, "task_finished": -1}[event["event"]]
        most = max(most, running)
    assert (most, result["status"]) == (limit, "success")


def test_outputs_flow_downstream(start: Start, tmp_path: Path) -> None:
    result, _ = start(
        _task("a", """echo '{"n": [1, 2], "s": "x y"}' > $TASK_OUTPUT"""),
        Task(id="b", call="json:dumps", args={"obj": "${tasks.a.outputs.n}"}, needs=("a",)),
        _task("c", ("printf", "%s", "${tasks.b.outputs.result}/${tasks.a.outputs.s}"), "b"),
    )
    assert result["status"] == "success"
    assert (tmp_path / "runs/r1/1/c.1.log").read_text() == "[1, 2]/x y"


def test_an_output_that_never_came_fails_the_task_that_wants_it(start: Start) -> None:
    result, events = start(_task("a"), _task("b", ("echo", "${tasks.a.outputs.rows}"), "a"))
    assert result["reason"] == "task `b` failed: unknown reference `tasks.a.outputs.rows`"
    assert [event["event"] for event in events if event["task_id"] == "b"] == ["task_started", "task_finished"]


def test_a_failed_task_is_tried_again_with_growing_delays(start: Start, tmp_path: Path) -> None:
    retries = Retries(max=3, delay=_seconds("20ms"), backoff=2)
    result, events = start(_task("a", "echo x >> tries; test $TASK_ATTEMPT = 3", retries=retries))
    assert (result["status"], result["tasks"]["a"]["attempts"]) == ("success", 3)
    again = [event for event in events if event["event"] == "task_retried"]
    assert [(event["task_attempt"], event["delay_s"]) for event in again] == [(2, 0.02), (3, 0.04)]
    assert again[0]["reason"] == "exit code 1"
    assert (tmp_path / "tries").read_text() == "x\n" * 3
    assert result["duration_s"] > 0.06


def test_retries_come_to_an_end(start: Start) -> None:
    result, events = start(_task("a", "echo $TASK_ATTEMPT; exit 1", retries=Retries(max=2)))
    assert (result["status"], result["tasks"]["a"]["attempts"]) == ("failed", 3)
    logs = [event["log"] for event in events if event["event"] == "task_finished"]
    assert [Path(log).read_text() for log in logs] == ["1\n", "2\n", "3\n"]


def test_a_failure_may_be_let_pass(start: Start) -> None:
    result, _ = start(_task("a", "exit 1", continue_on_failure=True), _task("b", needs="a"))
    assert (result["status"], result["reason"]) == ("success", None)
    assert _statuses(result) == {"a": "failed", "b": "success"}


def test_an_exit_code_may_mean_skipped(start: Start) -> None:
    result, _ = start(
        _task("a", "exit 99", skip_on_exit_code=(99,)),
        _task("b", needs="a"),
        _task("c", needs="b", trigger_rule="all_done"),
    )
    assert (result["status"], result["tasks"]["a"]["exit_code"]) == ("success", 99)
    assert _statuses(result) == {"a": "skipped", "b": "skipped", "c": "success"}


def test_trigger_rules_decide_end_to_end(start: Start) -> None:
    result, _ = start(
        _task("good"),
        _task("bad", "exit 1"),
        _task("all_done", needs="good bad", trigger_rule="all_done"),
        _task("one_failed", needs="good bad", trigger_rule="one_failed"),
        _task("all_failed", needs="good bad", trigger_rule="all_failed"),
        _task("none_failed", needs="good bad", trigger_rule="none_failed"),
        _task("one_success", needs="good bad", trigger_rule="one_success"),
        _task("after", needs="none_failed", trigger_rule="all_failed"),
    )
    assert _statuses(result) == {
        "good": "success",
        "bad": "failed",
        "all_done": "success",
        "one_failed": "success",
        "all_failed": "skipped",
        "none_failed": "upstream_failed",
        "one_success": "success",
        "after": "success",
    }


def test_one_failed_fires_before_the_others_have_ended(start: Start) -> None:
    _, events = start(
        _task("slow", "while [ ! -e seen ]; do sleep 0.01; done"),
        _task("bad", "exit 1"),
        _task("alarm", "touch seen", "slow bad", trigger_rule="one_failed"),
    )
    told = [(event["event"], event["task_id"]) for event in events]
    assert told.index(("task_started", "alarm")) < told.index(("task_finished", "slow"))


def test_a_timeout_ends_a_tree_that_ignores_term_and_leaves_its_session(start: Start, tmp_path: Path) -> None:
    script = (
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; touch deep; while :; do sleep 1; done' & while :; do sleep 1; done"
    )
    result, events = start(_task("a", script, timeout=_seconds("300ms")), grace_s=0.2, marker="tree-1")
    assert (tmp_path / "deep").exists()
    assert result["reason"] == "task `a` timed out after 300ms"
    assert (result["tasks"]["a"]["status"], result["tasks"]["a"]["signal"]) == ("timeout", signal.SIGKILL)
    assert find(marked_with("TICKPOOL_RUN=tree-1")) == []
    assert result["duration_s"] < 5
    assert events[-1]["status"] == "timeout"


def test_a_tree_has_the_grace_to_end_in_its_own_way(start: Start, tmp_path: Path) -> None:
    # The shell dies of TERM at once; what it started must still have its time.
    script = "sh -c 'trap \"sleep 0.2; echo saved; exit 0\" TERM; touch ready; while :; do sleep 0.01; done'; true"
    result, _ = start(_task("a", script, timeout=_seconds("300ms")), grace_s=20)
    assert result["tasks"]["a"]["status"] == "timeout"
    assert (tmp_path / "runs/r1/1/a.1.log").read_text().endswith("saved\n")
    assert result["duration_s"] < 10


def test_a_timed_out_attempt_is_tried_again(start: Start) -> None:
    result, _ = start(
        _task("a", f"test $TASK_ATTEMPT = 2 || {SLEEPER}", timeout=_seconds("200ms"), retries=Retries(max=1))
    )
    assert (result["status"], result["tasks"]["a"]["attempts"]) == ("success", 2)


def test_the_timeout_of_a_run_cancels_the_rest(start: Start) -> None:
    result, events = start(
        _task("a", SLEEPER), _task("b", SLEEPER), _task("c", needs="a"), timeout=_seconds("1h"), timeout_s=0.2,
        max_parallel_tasks=1, on_failure=(_task("f", "echo $RUN_STATUS > status"),), on_success=(_task("s"),),
    )  # fmt: skip
    assert (result["status"], result["reason"]) == ("timeout", "timed out after 200ms")
    assert _statuses(result) == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert list(result["hooks"]) == ["f"]
    skipped = [(event["task_id"], event["status"]) for event in events if event["event"] == "task_skipped"]
    assert skipped == [("b", "cancelled"), ("c", "cancelled")]


def test_background_processes_end_with_their_task(start: Start) -> None:
    result, _ = start(
        _task("a", f"{SLEEPER} & echo $! > pid"),
        # Dead or, where nobody has taken its status yet, a zombie.
        _task("b", "! grep -q '^State:.[^ZX]' /proc/$(cat pid)/status", "a"),
    )
    assert result["status"] == "success"


def test_what_left_its_session_ends_with_the_run(start: Start) -> None:
    start(_task("a", f"setsid {SLEEPER} & setsid setsid {SLEEPER} &"), marker="tree-2")
    assert find(marked_with("TICKPOOL_RUN=tree-2")) == []


def test_the_processes_of_a_parallel_task_outlive_anothers_timeout(start: Start) -> None:
    result, _ = start(
        _task("a", SLEEPER, timeout=_seconds("100ms")), _task("b", "setsid -w sleep 0.5; test $? = 0"), grace_s=0.1
    )
    assert _statuses(result) == {"a": "timeout", "b": "success"}


def test_a_stop_from_a_signal_handler_cancels_the_run(
    start: Start, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: stop.request("the service is stopping"))
    thread = _stopped_when(tmp_path / "ready", wait_for, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        result, _ = start(
            _task("a", f"touch ready; {SLEEPER}"),
            _task("b", needs="a", trigger_rule="all_done"),
            on_exit=(_task("x", "touch hooked"),),
            stop=stop,
            marker="tree-3",
        )
    finally:
        signal.signal(signal.SIGUSR1, before)
        thread.join()
        stop.close()
    assert (result["status"], result["reason"]) == ("cancelled", "cancelled: the service is stopping")
    assert _statuses(result) == {"a": "cancelled", "b": "cancelled"}
    assert result["tasks"]["a"]["signal"] == signal.SIGTERM
    assert not (tmp_path / "hooked").exists()
    assert find(marked_with("TICKPOOL_RUN=tree-3")) == []


def test_a_stop_ends_the_wait_for_a_retry(start: Start, tmp_path: Path, wait_for: Callable[..., None]) -> None:
    stop = Stop()
    thread = _stopped_when(tmp_path / "ready", wait_for, lambda: stop.request("enough"))
    retries = Retries(max=5, delay=_seconds("1h"))
    result, _ = start(_task("a", "touch ready; exit 1", retries=retries), stop=stop)
    thread.join()
    stop.close()
    assert (result["status"], result["tasks"]["a"]["status"]) == ("cancelled", "cancelled")
    assert result["tasks"]["a"]["attempts"] == 1


def test_a_run_that_is_stopped_before_it_begins_starts_nothing(start: Start, tmp_path: Path) -> None:
    stop = Stop()
    stop.request("first")
    stop.request("second")
    result, events = start(_task("a", "touch ran"), stop=stop)
    stop.close()
    assert result["reason"] == "cancelled: first"
    assert [event["event"] for event in events] == ["task_skipped"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("code", "ran"), [(0, "s1 s2 e"), (1, "f e")])
def test_hooks_run_after_the_tasks_in_their_order(start: Start, tmp_path: Path, code: int, ran: str) -> None:
    def hook(name: str) -> Task:
        return _task(name, f"printf '{name}:%s ' $RUN_STATUS >> ran")

    result, events = start(
        _task("a", f"exit {code}"), on_success=(hook("s1"), hook("s2")), on_failure=(hook("f"),), on_exit=(hook("e"),)
    )
    status = "failed" if code else "success"
    assert (tmp_path / "ran").read_text().split() == [f"{name}:{status}" for name in ran.split()]
    assert list(result["hooks"]) == ran.split()
    assert [
        event["task_id"] for event in events if event.get("hook") and event["event"] == "task_finished"
    ] == ran.split()


def test_a_failing_hook_is_told_but_the_status_stays(start: Start) -> None:
    result, _ = start(_task("a"), on_success=(_task("bad", "exit 5"),), on_exit=(_task("x"),))
    assert (result["status"], result["reason"]) == ("success", "hooks: task `bad` failed: exit code 5")
    assert {name: hook["status"] for name, hook in result["hooks"].items()} == {"bad": "failed", "x": "success"}


def test_a_record_that_fails_ends_the_run_and_its_processes(start: Start) -> None:
    def record(event: dict[str, Any]) -> None:
        if event["task_id"] == "b":
            raise OSError(28, "No space left on device")

    before = _children()
    with pytest.raises(OSError, match="No space"):
        start(_task("a", SLEEPER), _task("b", SLEEPER), record=record, marker="tree-4")
    assert find(marked_with("TICKPOOL_RUN=tree-4")) == []
    assert _children() <= before


def test_a_run_leaks_no_descriptor(start: Start) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    tasks = (
        _task("a", "echo x; exit 1", retries=Retries(max=1, delay=_seconds("1ms"))),
        Task(id="b", call="json:dumps", args={"obj": 1}),
        Task(id="c", call="no_such_module_here:main"),
        _task("d", ("no-such-program",)),
        _task("e", SLEEPER, timeout=_seconds("50ms")),
    )
    start(*tasks)
    before = descriptors()
    for _ in range(3):
        start(*tasks)
    assert descriptors() == before


def test_a_run_directory_that_cannot_be_made_is_the_tasks_failure(start: Start, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    result, _ = start(_task("a"))
    assert "Not a directory" in result["reason"] or "File exists" in result["reason"]


def test_the_runs_own_children_are_left_alone_and_orphans_are_not(tmp_path: Path) -> None:
    script = f"""
import json, subprocess, sys
sys.path.insert(0, {os.getcwd()!r})
from pathlib import Path
from workers import process_tree
from workers.dag import Dag, Task
from workers.runner import run_dag
process_tree.become_subreaper()
mine = subprocess.Popen(["sleep", "60"])
text = '''
import os
def main():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open("deep", "w").write(str(os.getpid()))
            import time; time.sleep(60)
        os._exit(0)
    os.wait()
'''
Path("jobs_orphan.py").write_text(text)
result = run_dag(Dag(id="d", tasks=(Task(id="a", call="jobs_orphan:main"),)), project=Path.cwd())
alive = mine.poll() is None
mine.kill(); mine.wait()
print(json.dumps([result["status"], alive, process_tree.children_left()]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (json.loads(done.stdout), done.stderr) == (["success", True, False], "")
    deep = tmp_path / "deep"
    stat = process.read_stat(int(deep.read_text())) if deep.exists() and deep.read_text() else None
    assert stat is None or not stat.is_running


def test_waiting_costs_no_cpu(start: Start) -> None:
    before = time.process_time()
    start(_task("a", "sleep 0.5"))
    assert time.process_time() - before < 0.2
