"""kill -9 of anything at any moment: nothing lost, nothing run twice, nothing stuck, by the log and by the effects."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from service import Service, is_running, kill9

from scheduler.state_store import record_event

WaitFor = Callable[..., None]
# Adds a line when it begins and one when it ends; it is what proves that a run had its effect once.
EFFECTS = 'echo "$RUN_ID $ATTEMPT begin" >> effects; sleep {seconds}; echo "$RUN_ID $ATTEMPT end" >> effects'


def _effects(service: Service) -> Counter[str]:
    file = service.root / "effects"
    return Counter(file.read_text("ascii").splitlines() if file.exists() else [])


def _held_dag(service: Service) -> str:
    """A run that has its effect begun and ends when the file `go` is there."""
    return service.dag(
        "held",
        """
        echo "$RUN_ID $ATTEMPT begin" >> effects
        while [ ! -e go ]; do sleep 0.02; done
        echo "$RUN_ID $ATTEMPT end" >> effects
        """,
    )


def _let_go(service: Service) -> None:
    (service.root / "go").touch()


def _has_begun(service: Service, run_id: str, attempt: int = 1) -> bool:
    return _effects(service)[f"{run_id} {attempt} begin"] == 1


def _worker_of(service: Service, run_id: str) -> psutil.Process:
    return psutil.Process(service.events("run_started", run_id)[-1]["pid"])


def _check(service: Service, asked: list[str]) -> None:
    """Every run asked for has ended; every attempt was started once at most and ended once; the effects agree."""
    effects = _effects(service)
    assert [line for line, count in effects.items() if count > 1] == []
    assert [key for key, count in service.starts().items() if count > 1] == []
    for run_id in asked:
        story = service.story(run_id)
        attempts = len(story) // 2
        expected = [[f"run_started {n}", f"run_finished {n}"] for n in range(1, attempts + 1)]
        told = [" ".join(line.split()[:2]) for line in story]
        assert told == [line for pair in expected for line in pair], run_id
        assert not service.events("run_finished", run_id)[-1].get("next_attempt"), run_id
        for n in range(1, attempts + 1):
            if f"run_finished {n} success" in story:
                assert effects[f"{run_id} {n} end"] == 1, run_id
    started = {f"{run_id} {attempt}" for run_id, attempt in service.starts()}
    assert {line.rsplit(" ", 1)[0] for line in effects} <= started


def test_an_idle_worker_that_is_killed_is_replaced_and_the_others_work_on(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", EFFECTS.format(seconds=0))
    supervisor = service.start()
    wait_for(lambda: service.is_ready() and len(service.workers(supervisor)) == 2)
    before = {worker.pid for worker in service.workers(supervisor)}
    for worker in service.workers(supervisor):
        kill9(worker)
        asked = service.ask(dag)
        os.kill(supervisor.pid, signal.SIGUSR1)
        wait_for(lambda asked=asked: service.has_ended(asked))
        assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    wait_for(lambda: len({worker.pid for worker in service.workers(supervisor)} - before) == 2, timeout=2)
    exits = service.events("worker_exited")
    assert {event["worker_pid"] for event in exits} == before
    assert all("was killed by SIGKILL" in event["reason"] for event in exits)


def test_a_request_that_was_handed_over_and_not_claimed_runs_on_another_worker(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.dag("d", EFFECTS.format(seconds=0))
    supervisor = service.start(SCHED_MAX_PARALLEL="1")
    wait_for(lambda: service.is_ready() and service.workers(supervisor))
    (worker,) = service.workers(supervisor)
    worker.suspend()
    asked = service.ask(dag)
    wait_for(lambda: "Draining 1 run" in service.out())
    kill9(worker)
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    assert service.events("run_started", asked)[0]["pid"] != worker.pid
    _check(service, [asked])


def test_a_run_whose_worker_is_killed_between_claim_and_task_is_closed_as_crashed(
    service: Service, wait_for: WaitFor
) -> None:
    # The import holds the worker itself, before the task has had any effect.
    (service.root / "slow.py").write_text("import time\ntime.sleep(300)\n", "ascii")
    dag = service.tasks("slow", {"id": "t", "call": "slow:main", "isolate": False})
    supervisor = service.start()
    wait_for(service.is_ready)
    asked = service.ask(dag)
    wait_for(lambda: service.events("run_started", asked))
    kill9(_worker_of(service, asked))
    wait_for(lambda: service.has_ended(asked), timeout=2)
    assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]
    wait_for(lambda: len(service.workers(supervisor)) == 2, timeout=2)


def test_what_a_killed_workers_task_left_is_gone_before_the_run_is_closed(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag(
        "tree",
        """
        sh -c 'echo $$ >> pids; exec sleep 300' &
        setsid sh -c 'echo $$ >> pids; exec sleep 300' &
        (setsid sh -c 'echo $$ >> pids; trap "" TERM; sleep 300' &)
        echo $$ >> pids; wait
        """,
    )
    service.start()
    wait_for(service.is_ready)
    asked = service.ask(dag)
    pids = service.root / "pids"
    wait_for(lambda: pids.exists() and pids.read_text("ascii").count("\n") == 4)
    kill9(_worker_of(service, asked))
    wait_for(lambda: service.has_ended(asked), timeout=2)
    assert [pid for pid in pids.read_text("ascii").split() if is_running(int(pid))] == []
    assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]


FORKS = """
import multiprocessing, os, time

def note():
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")

def stay(leave):
    note()
    if leave and os.fork() == 0:
        os.setsid()
        note()
    time.sleep(300)

def main():
    note()
    for leave in (False, True):
        multiprocessing.get_context("fork").Process(target=stay, args=(leave,)).start()
    time.sleep(300)
"""


@pytest.mark.parametrize("restarted", [False, True], ids=["while_the_service_lives", "by_the_next_service"])
def test_the_forks_of_a_python_task_are_killed_with_its_worker(
    service: Service, wait_for: WaitFor, *, restarted: bool
) -> None:
    (service.root / "forks.py").write_text(FORKS, "ascii")
    dag = service.tasks("forks", {"id": "t", "call": "forks:main"})
    supervisor = service.start()
    wait_for(service.is_ready)
    asked = service.ask(dag)
    pids = service.root / "pids"
    wait_for(lambda: pids.exists() and pids.read_text("ascii").count("\n") == 4)
    worker = _worker_of(service, asked)
    if restarted:
        kill9(supervisor)
    kill9(worker)
    if restarted:
        service.start()
    wait_for(lambda: service.has_ended(asked), timeout=10 if restarted else 2)
    left = [int(pid) for pid in pids.read_text("ascii").split() if is_running(int(pid))]
    # One that made a session of its own, and never called exec, carries no mark: only its adopter could know it.
    assert len(left) <= (1 if restarted else 0)
    assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]


def test_a_crashed_run_is_tried_again_only_where_its_request_says_so(service: Service, wait_for: WaitFor) -> None:
    dag = _held_dag(service)
    service.start()
    wait_for(service.is_ready)
    once, again = service.ask(dag), service.ask(dag, retry_on_crash=True)
    for run_id in (once, again):
        wait_for(lambda run_id=run_id: _has_begun(service, run_id))
        kill9(_worker_of(service, run_id))
    wait_for(lambda: _has_begun(service, again, 2))
    _let_go(service)
    wait_for(lambda: service.has_ended(once, again))
    assert service.story(once) == ["run_started 1", "run_finished 1 crashed"]
    assert service.story(again)[1:] == ["run_finished 1 crashed", "run_started 2", "run_finished 2 success"]
    assert service.events("run_finished", once)[0]["reason"].endswith("was killed by SIGKILL")


def test_a_worker_killed_between_effect_and_end_leaves_one_crashed_run(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "echo done >> effects; kill -9 $PPID; sleep 300")
    supervisor = service.start()
    wait_for(service.is_ready)
    asked = [service.ask(dag) for _ in range(4)]
    wait_for(lambda: service.has_ended(*asked))
    assert [service.story(run_id)[-1] for run_id in asked] == ["run_finished 1 crashed"] * 4
    assert _effects(service) == {"done": 4}
    wait_for(lambda: len(service.workers(supervisor)) == 2, timeout=2)


def test_many_random_kills_lose_nothing_and_start_nothing_twice(service: Service, wait_for: WaitFor) -> None:
    kills = 600 if os.environ.get("TICKPOOL_TEST_FULL") else 60
    dice = random.Random(1)
    dag = service.dag("d", EFFECTS.format(seconds=0.02))
    supervisor = service.start(
        SCHED_MAX_PARALLEL="3", SCHED_TICK_MS="20", SCHED_WORKER_MAX_RUNS="7", STATE_SEGMENT_SIZE="64KiB"
    )
    wait_for(lambda: service.is_ready() and len(service.workers(supervisor)) == 3)
    process = psutil.Process(supervisor.pid)
    before, threads_before = process.num_fds(), process.num_threads()
    asked: list[str] = []
    for _ in range(kills):
        asked += [service.ask(dag, retry_on_crash=dice.random() < 0.5) for _ in range(3)]
        victims = service.workers(supervisor)
        ended = len(service.events("run_finished"))
        wait_for(lambda ended=ended: len(service.events("run_finished")) > ended or not dice.randrange(3))
        if victims:
            kill9(dice.choice(victims))
    wait_for(lambda: service.has_ended(*asked), timeout=60)
    _check(service, asked)
    statuses = Counter(event["status"] for event in service.events("run_finished"))
    assert statuses["success"] > len(asked) // 2
    assert statuses["crashed"] > 0
    wait_for(lambda: len(service.workers(supervisor)) == 3, timeout=2)
    wait_for(lambda: process.num_fds() <= before + 3, what=f"{process.num_fds()} descriptors instead of {before}")
    wait_for(lambda: process.num_threads() <= threads_before + 3)


def test_the_pool_is_whole_again_when_the_fork_server_is_killed(service: Service, wait_for: WaitFor) -> None:
    dag, held = service.dag("d", EFFECTS.format(seconds=0)), _held_dag(service)
    supervisor = service.start()
    wait_for(lambda: service.is_ready() and len(service.workers(supervisor)) == 2)
    running = service.ask(held)
    wait_for(lambda: _has_begun(service, running))
    kill9(service.forkserver(supervisor))
    idle = next(worker for worker in service.workers(supervisor) if worker != _worker_of(service, running))
    kill9(idle)
    wait_for(lambda: len(service.workers(supervisor)) == 2 and idle not in service.workers(supervisor))
    other = service.ask(dag)
    wait_for(lambda: service.has_ended(other))
    assert not service.has_ended(running)
    _let_go(service)
    wait_for(lambda: service.has_ended(running))
    _check(service, [running, other])
    # How it ended its parent knew, which was killed: the service may have looked before it became the next one.
    reason = service.events("worker_exited")[0]["reason"]
    assert reason in (f"worker {idle.pid} was killed by SIGKILL", f"worker {idle.pid} ended without a word")
    # The orphaned workers are this service's own children now, and it takes their ends.
    wait_for(lambda: not _zombies(supervisor.pid))


def test_a_worker_finishes_its_run_when_the_service_is_killed_and_the_next_service_adopts_it(
    service: Service, wait_for: WaitFor
) -> None:
    dag = _held_dag(service)
    first = service.start()
    wait_for(service.is_ready)
    running = service.ask(dag)
    wait_for(lambda: _has_begun(service, running))
    worker, idle = _worker_of(service, running), service.workers(first)
    kill9(first)
    second = service.start()
    wait_for(service.is_ready)
    wait_for(lambda: not any(is_running(other.pid) for other in idle if other != worker))
    assert worker.is_running()
    assert service.story(running) == ["run_started 1"]
    _let_go(service)
    wait_for(lambda: service.has_ended(running) and not is_running(worker.pid))
    later = service.ask(dag)
    wait_for(lambda: service.has_ended(later))
    assert service.story(running) == ["run_started 1", "run_finished 1 success"]
    _check(service, [running, later])
    assert second.poll() is None


def test_an_adopted_run_whose_worker_dies_is_closed_as_crashed(service: Service, wait_for: WaitFor) -> None:
    dag = _held_dag(service)
    first = service.start()
    wait_for(service.is_ready)
    running = service.ask(dag)
    wait_for(lambda: _has_begun(service, running))
    kill9(first)
    service.start()
    wait_for(service.is_ready)
    kill9(_worker_of(service, running))
    wait_for(lambda: service.has_ended(running), timeout=2)
    assert service.story(running) == ["run_started 1", "run_finished 1 crashed"]


def test_queued_runs_start_once_each_after_the_service_was_killed(service: Service, wait_for: WaitFor) -> None:
    dag, held = service.dag("d", EFFECTS.format(seconds=0)), _held_dag(service)
    first = service.start()
    wait_for(service.is_ready)
    running = [service.ask(held) for _ in range(2)]
    wait_for(lambda: all(_has_begun(service, run_id) for run_id in running))
    queued = [service.ask(dag) for _ in range(20)]
    kill9(first)
    _let_go(service)
    service.start()
    wait_for(lambda: service.has_ended(*running, *queued))
    _check(service, running + queued)
    assert all(service.story(run_id)[-1].endswith("success") for run_id in running + queued)


def test_a_run_that_was_asked_for_while_no_service_was_there_is_run(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", EFFECTS.format(seconds=0))
    asked = service.ask(dag)
    service.start()
    wait_for(lambda: service.has_ended(asked))
    _check(service, [asked])


def test_when_service_and_workers_are_killed_the_next_start_closes_the_runs(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.dag("d", "sh -c 'echo $$ >> pids; exec setsid sleep 300' & echo $$ >> pids; wait")
    first = service.start()
    wait_for(service.is_ready)
    asked = [service.ask(dag, retry_on_crash=True, retries={"max": 0}), service.ask(dag)]
    pids = service.root / "pids"
    wait_for(lambda: pids.exists() and pids.read_text("ascii").count("\n") == 4)
    workers = service.workers(first)
    kill9(first)
    for worker in workers:
        kill9(worker)
    left = pids.read_text("ascii").split()
    service.dag("d", "echo again >> effects")
    service.start()
    wait_for(lambda: service.has_ended(*asked))
    assert [pid for pid in left if is_running(int(pid))] == []
    assert service.story(asked[0])[1:] == ["run_finished 1 crashed", "run_started 2", "run_finished 2 success"]
    assert service.story(asked[1]) == ["run_started 1", "run_finished 1 crashed"]


def test_a_service_that_is_killed_again_and_again_loses_nothing(service: Service, wait_for: WaitFor) -> None:
    kills = 50 if os.environ.get("TICKPOOL_TEST_FULL") else 5
    dag = service.dag("d", EFFECTS.format(seconds=0.02))
    service.schedule("every", "@every 1s", dag, catchup="all", overlap="allow")
    asked: list[str] = []
    for _ in range(kills):
        supervisor = service.start()
        asked += [service.ask(dag) for _ in range(10)]
        ended = len(service.events("run_finished"))
        wait_for(lambda ended=ended: len(service.events("run_finished")) >= ended + 5, timeout=20)
        for worker in service.workers(supervisor)[:1]:
            kill9(worker)
        kill9(supervisor)
    last = service.start()
    wait_for(lambda: service.has_ended(*asked), timeout=30)
    last.terminate()
    assert last.wait(20) == 0
    minutes = Counter((e["schedule_id"], e["minute"]) for e in service.events("schedule_enqueued"))
    assert set(minutes.values()) == {1}
    _check(service, [*asked, *(run_id for run_id, _ in service.starts())])


def test_a_run_by_hand_that_is_killed_is_closed_by_the_service(service: Service, wait_for: WaitFor) -> None:
    held = _held_dag(service)
    service.start()
    wait_for(service.is_ready)
    by_hand = service.launch("-m", "workers", held)
    wait_for(lambda: service.events("run_started") and _effects(service))
    run_id = service.events("run_started")[0]["run_id"]
    kill9(by_hand)
    wait_for(lambda: service.has_ended(run_id), timeout=3)
    assert service.story(run_id) == ["run_started 1", "run_finished 1 crashed"]


def test_lines_that_make_no_sense_stop_nothing(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", EFFECTS.format(seconds=0))
    nonsense = [
        {"event": "schedule_enqueued"},
        {"event": "run_requested", "run_id": "../../etc/passwd", "dag": dag},
        {"event": "run_requested", "run_id": "no_dag", "project": str(service.root)},
        {
            "event": "run_requested",
            "run_id": "odd",
            "dag": dag,
            "project": str(service.root),
            "retries": 3,
            "attempt": "x",
        },
        {"event": "run_requested", "run_id": "turn", "dag": dag, "project": str(service.root), "overlap": "queue"},
        {"event": "run_started", "run_id": ["list"], "pid": "x"},
        {"event": "run_finished", "run_id": "nobody", "next_attempt": 2, "retry_at": "soon"},
    ]
    record_event(nonsense[0], service.log)
    service.start()
    wait_for(service.is_ready)
    for event in nonsense:
        record_event(event, service.log)
    asked = service.ask(dag, retries="many", timeout_s=None)
    wait_for(lambda: service.has_ended(asked, "no_dag"))
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    assert "names no DAG" in service.events("run_finished", "no_dag")[0]["reason"]
    assert "Traceback" not in service.err()


def _zombies(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children()
    return [child for child in children if Path(f"/proc/{child.pid}").exists() and not is_running(child.pid)]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_service_that_is_told_to_stop_ends_the_runs_of_one_that_died_but_none_by_hand(
    service: Service, wait_for: WaitFor, signals: int
) -> None:
    held = _held_dag(service)
    first = service.start()
    wait_for(service.is_ready)
    asked = service.ask(held)
    wait_for(lambda: _has_begun(service, asked))
    kill9(first)
    by_hand = service.launch("-m", "workers", held)
    wait_for(lambda: len(service.events("run_started")) == 2)
    second = service.start(SCHED_GRACE_S="0.2" if signals == 1 else "300")
    wait_for(service.is_ready)
    if signals == 2:
        # One that can do nothing for itself any more.
        _worker_of(service, asked).suspend()
    for _ in range(signals):
        second.terminate()
        wait_for(lambda: "Stopping: 1 run(s)" in service.out())
    assert second.wait(10) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 cancelled"]
    assert by_hand.poll() is None
    _let_go(service)
    assert by_hand.wait(10) == 0
