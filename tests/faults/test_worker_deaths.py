"""The death of workers, of what forks them, and of what they ran: nobody else is disturbed, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from service import Service, is_running, kill9

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]

WAIT = "while [ ! -e go ]; do sleep 0.02; done"
# What a task may leave about: in its session, out of it, out of it twice, deaf to TERM, and without the run's marker.
TREE = """
note() { echo $$ >> "$RUN_ID.pids"; }
sh -c 'echo $$ >> "$RUN_ID.pids"; exec sleep 300' &
setsid sh -c 'echo $$ >> "$RUN_ID.pids"; exec sleep 300' &
(setsid sh -c 'setsid sh -c "echo \\$\\$ >> $RUN_ID.pids; sleep 300" & echo $$ >> "$RUN_ID.pids"; exec sleep 300' &)
(setsid sh -c 'trap "" TERM HUP INT; echo $$ >> "$RUN_ID.pids"; while :; do sleep 0.1; done' &)
(exec env -i RUN_ID="$RUN_ID" PATH="$PATH" setsid sh -c 'echo $$ >> "$RUN_ID.pids"; sleep 300 & sleep 300' &)
note
trap '' TERM
while :; do sleep 0.1; done
"""
TREE_SIZE = 7


def _pids(service: Service, run_id: str) -> list[int]:
    file = service.root / f"{run_id}.pids"
    text = file.read_text("ascii") if file.exists() else ""
    return [int(word) for word in text.split()] if text.endswith("\n") else []


def _worker_of(service: Service, run_id: str) -> psutil.Process:
    return psutil.Process(service.events("run_started", run_id)[-1]["pid"])


def _workers(service: Service, supervisor: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [worker for worker in service.workers(supervisor) if is_running(worker.pid)]


def _ask(service: Service, pid: int, dag: str) -> str:
    asked = service.ask(dag)
    os.kill(pid, signal.SIGUSR1)
    return asked


def _left_in(root: Path) -> set[int]:
    """Return the processes that work in a directory: those of its tasks and services, whatever they did to hide."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(root)) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_killed_as_they_wait_for_work_leave_the_others_at_work(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    kills, seed = count(20, 200), random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    dag = service.dag("d", 'echo "$RUN_ID" >> effects')
    supervisor = service.start(SCHED_MAX_PARALLEL="3", SCHED_TICK_MS="1000")
    process = psutil.Process(supervisor.pid)

    def are_idle() -> bool:
        workers = _workers(service, supervisor)
        return len(workers) == 3 and all(worker.status() == psutil.STATUS_SLEEPING for worker in workers)

    wait_for(lambda: service.is_ready() and are_idle())
    asked, slowest_s, whole_s, descriptors, killed = [], 0.0, 0.0, [process.num_fds()], set()
    for _ in range(kills):
        victim = dice.choice(_workers(service, supervisor))
        began = time.monotonic()
        kill9(victim)
        killed.add(victim.pid)
        mine = [_ask(service, supervisor.pid, dag) for _ in range(3)]
        wait_for(lambda mine=mine: service.has_ended(*mine))
        slowest_s = max(slowest_s, time.monotonic() - began)
        wait_for(are_idle, timeout=2, what="a pool of 3 workers")
        whole_s = max(whole_s, time.monotonic() - began)
        asked += mine
        descriptors.append(process.num_fds())
    assert {event["worker_pid"] for event in service.events("worker_exited")} == killed
    assert all(service.story(run_id) == ["run_started 1", "run_finished 1 success"] for run_id in asked)
    assert sorted((service.root / "effects").read_text("ascii").split()) == sorted(asked)
    wait_for(lambda: process.num_fds() <= descriptors[0], what=f"{descriptors[0]} descriptors again")
    figure(
        f"{kills} kills: {len(asked)} runs, 0 lost, 0 twice; 3 runs within {slowest_s:.2f} s of the kill, "
        f"pool whole within {whole_s:.2f} s; descriptors {descriptors[0]} -> {process.num_fds()}"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_service_whose_fork_server_and_workers_are_all_killed_works_again_within_two_seconds(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    dag = service.dag("d", "true")
    supervisor = service.start(SCHED_MAX_PARALLEL="3")
    wait_for(lambda: service.is_ready() and len(_workers(service, supervisor)) == 3)
    first = _ask(service, supervisor.pid, dag)
    wait_for(lambda: service.has_ended(first))
    process = psutil.Process(supervisor.pid)
    before, whole_s, rounds = process.num_fds(), [], count(3, 30)
    for number in range(rounds):
        old = {worker.pid for worker in _workers(service, supervisor)}
        family = [service.forkserver(supervisor), *_workers(service, supervisor)]
        if number % 3 == 2:  # with it the process that Python itself keeps for its semaphores
            family += [each for each in process.children() if "resource_tracker" in " ".join(each.cmdline())]
        began = time.monotonic()
        for each in family:
            kill9(each)
        asked = [_ask(service, supervisor.pid, dag) for _ in range(3)]
        wait_for(lambda asked=asked: service.has_ended(*asked))
        wait_for(lambda old=old: len({worker.pid for worker in _workers(service, supervisor)} - old) == 3)
        whole_s.append(time.monotonic() - began)
        assert all(service.story(run_id) == ["run_started 1", "run_finished 1 success"] for run_id in asked)
    assert max(whole_s) <= 2
    wait_for(lambda: process.num_fds() <= before, what=f"{before} descriptors again")
    wait_for(lambda: not any(child.status() == psutil.STATUS_ZOMBIE for child in process.children()))
    figure(f"{rounds} times: pool whole and 3 runs done after {max(whole_s):.2f} s at worst")


def test_runs_go_on_while_the_fork_server_is_killed_again_and_again(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    dag, quick = service.dag("held", f"touch $RUN_ID.up; {WAIT}"), service.dag("quick", "true")
    supervisor = service.start(SCHED_MAX_PARALLEL="3")
    wait_for(service.is_ready)
    held = [_ask(service, supervisor.pid, dag) for _ in range(2)]
    wait_for(lambda: all((service.root / f"{run_id}.up").exists() for run_id in held))
    busy = {_worker_of(service, run_id).pid for run_id in held}
    rounds = count(5, 50)
    for _ in range(rounds):
        (idle,) = (worker for worker in _workers(service, supervisor) if worker.pid not in busy)
        kill9(service.forkserver(supervisor))
        kill9(idle)
        asked = _ask(service, supervisor.pid, quick)
        wait_for(lambda asked=asked: service.has_ended(asked))
        wait_for(lambda idle=idle: len(_workers(service, supervisor)) == 3 and not is_running(idle.pid), timeout=2)
    assert {_worker_of(service, run_id).pid for run_id in held} == busy
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(*held))
    assert [service.story(run_id) for run_id in held] == [["run_started 1", "run_finished 1 success"]] * 2
    figure(f"{rounds} fork servers killed: both long runs ended well, each short one ran")


def test_runs_that_kill_their_workers_in_a_row_keep_no_worker_from_coming_back(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    deadly, quick = service.dag("deadly", "kill -9 $PPID; sleep 300"), service.dag("quick", "true")
    supervisor = service.start(SCHED_MAX_PARALLEL="1")
    wait_for(service.is_ready)
    deaths = count(12, 100)
    asked = [service.ask(deadly) for _ in range(deaths)]
    last = _ask(service, supervisor.pid, quick)
    wait_for(lambda: service.has_ended(asked[0]))
    began = time.monotonic()
    wait_for(lambda: service.has_ended(*asked, last), timeout=0.5 * deaths)
    per_death_s = (time.monotonic() - began) / deaths
    assert {service.story(run_id)[-1] for run_id in asked} == {"run_finished 1 crashed"}
    assert service.story(last)[-1] == "run_finished 1 success"
    figure(f"{deaths} runs that kill their worker, one after the other: {per_death_s:.3f} s each")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_of_a_tree_outlives_its_killed_worker_and_other_trees_live_on(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    tree = service.dag("tree", TREE)
    supervisor = service.start(SCHED_MAX_PARALLEL="2")
    wait_for(service.is_ready)
    bystander = _ask(service, supervisor.pid, tree)
    wait_for(lambda: len(_pids(service, bystander)) == TREE_SIZE, what="the bystander's tree")
    rounds, gone_s, closed_s, survivors = count(5, 50), [], [], 0
    others = _left_in(service.root)
    for _ in range(rounds):
        asked = _ask(service, supervisor.pid, tree)
        wait_for(lambda asked=asked: len(_pids(service, asked)) == TREE_SIZE, what="a tree")
        pids = _pids(service, asked)
        began = time.monotonic()
        kill9(_worker_of(service, asked))
        wait_for(lambda asked=asked: service.has_ended(asked), timeout=5)
        closed_s.append(time.monotonic() - began)
        survivors += sum(is_running(pid) for pid in pids)
        wait_for(lambda pids=pids: not any(is_running(pid) for pid in pids))
        gone_s.append(time.monotonic() - began)
        assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]
        wait_for(lambda: len(_workers(service, supervisor)) == 2, timeout=2)
    assert survivors == 0
    assert max(gone_s) <= 1
    assert all(is_running(pid) for pid in _pids(service, bystander))
    # By the directory they work in, which nothing of the tree leaves: its children without a name are gone too.
    wait_for(lambda: len(_left_in(service.root)) == len(others), what="nobody but those of before")
    figure(
        f"{rounds} trees of {TREE_SIZE}: 0 survivors when the run was closed, "
        f"{max(closed_s):.2f} s after the kill at worst"
    )


FORKS = """
import os, signal, time

def note():
    with open(os.environ["RUN_ID"] + ".pids", "a") as file:
        file.write(f"{os.getpid()}\\n")

def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for depth in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                if depth == 2:
                    os.setsid()
            note()
            time.sleep(300)
    note()
    time.sleep(300)
"""


@pytest.mark.slow
def test_no_fork_of_a_python_task_outlives_its_killed_worker(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    (service.root / "forks.py").write_text(FORKS, "ascii")
    dag = service.tasks("forks", {"id": "t", "call": "forks:main"})
    supervisor = service.start(SCHED_MAX_PARALLEL="2")
    wait_for(service.is_ready)
    rounds, gone_s = count(3, 50), []
    for _ in range(rounds):
        asked = _ask(service, supervisor.pid, dag)
        wait_for(lambda asked=asked: len(_pids(service, asked)) == 7, what="seven processes")
        began = time.monotonic()
        kill9(_worker_of(service, asked))
        wait_for(lambda asked=asked: service.has_ended(asked), timeout=5)
        gone_s.append(time.monotonic() - began)
        assert [pid for pid in _pids(service, asked) if is_running(pid)] == []
        assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]
    assert max(gone_s) <= 1
    figure(f"{rounds} times seven forks in five sessions: 0 survivors, closed after {max(gone_s):.2f} s at worst")
