"""The worker pool with real processes: who dies, who is replaced, what is left."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.lock import Lock
from workers.pool import Died, Finished, WorkerPool
from workers.segments import LogReader, Position
from workers.settings import Settings

WaitFor = Callable[..., None]
START = Position(1, 0)


class Owner:
    """A pool, and what came of it."""

    def __init__(self, root: Path, size: int, **settings: Any) -> None:
        self.root = root
        self.settings = Settings(
            state_path=str(root / "state.jsonl"),
            events_path=str(root / "events.jsonl"),
            run_logs_dir=str(root / "runs"),
            task_grace_s=0.3,
            **settings,
        )
        self.pool = WorkerPool(self.settings, size)
        self.outcomes: list[Finished | Died] = []
        self.asked = 0

    def request(self, run: str = "true") -> dict[str, Any]:
        self.asked += 1
        dag = {"id": "d", "tasks": [{"id": "t", "run": run}]}
        (self.root / f"{self.asked}.yaml").write_text(json.dumps(dag), "ascii")
        return {"run_id": f"r{self.asked}", "attempt": 1, "dag": f"{self.asked}.yaml", "project": str(self.root)}

    def look(self) -> None:
        self.outcomes += self.pool.collect(connection.wait(self.pool.waitables(), 0.05))

    def finished(self) -> list[Finished]:
        self.look()
        return [outcome for outcome in self.outcomes if isinstance(outcome, Finished)]

    def died(self) -> list[Died]:
        self.look()
        return [outcome for outcome in self.outcomes if isinstance(outcome, Died)]

    def events(self, name: str) -> list[dict[str, Any]]:
        reader = LogReader(Path(self.settings.state_path))
        events = [event for event in reader.read() if event["event"] == name]
        reader.close()
        return events


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def make(size: int = 1, **settings: Any) -> Owner:
        owner = Owner(tmp_path, size, **settings)
        owners.append(owner)
        owner.pool.start()
        return owner

    yield make
    for owner in owners:
        owner.pool.kill()
        while not owner.pool.is_empty():
            owner.look()


def test_a_request_is_run_and_its_result_comes_back(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own()
    request = owner.request()
    process = owner.pool.submit(request, START)
    assert (owner.pool.free(), owner.pool.busy()) == (0, 1)
    wait_for(owner.finished)
    ((told, result),) = owner.finished()
    assert (told, result.run_id, result.status) == (request, "r1", "success")
    assert owner.events("run_started")[0]["pid"] == process.pid
    assert (owner.pool.free(), owner.pool.busy()) == (1, 0)


def test_no_request_is_taken_while_no_worker_is_free(own: Callable[..., Owner]) -> None:
    owner = own()
    owner.pool.submit(owner.request("sleep 60"), START)
    with pytest.raises(IndexError, match="no free worker"):
        owner.pool.submit(owner.request(), START)


def test_a_killed_idle_worker_is_told_with_its_signal_and_replaced(
    own: Callable[..., Owner], wait_for: WaitFor
) -> None:
    owner = own(2)
    victim, other = sorted(owner.pool.pids())
    os.kill(victim, signal.SIGKILL)
    wait_for(owner.died)
    (died,) = owner.died()
    assert (died.process.pid, died.exit_code, died.request, died.expected) == (victim, -signal.SIGKILL, None, False)
    assert owner.pool.submit(owner.request(), START).pid == other
    owner.pool.start()
    assert len(owner.pool.pids()) == 2
    wait_for(owner.finished)


def test_a_request_in_the_inbox_of_a_killed_worker_comes_back_unstarted(
    own: Callable[..., Owner], wait_for: WaitFor
) -> None:
    owner = own()
    (pid,) = owner.pool.pids()
    os.kill(pid, signal.SIGSTOP)
    request = owner.request()
    owner.pool.submit(request, START)
    os.kill(pid, signal.SIGKILL)
    wait_for(owner.died)
    assert owner.died()[0].request == request
    assert owner.events("run_started") == []


def test_a_result_that_was_sent_before_the_death_is_not_lost(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own()
    (pid,) = owner.pool.pids()
    owner.pool.submit(owner.request(), START)
    wait_for(lambda: owner.events("run_finished") and psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
    os.kill(pid, signal.SIGKILL)
    wait_for(owner.died)
    finished, died = owner.outcomes
    assert isinstance(finished, Finished)
    assert isinstance(died, Died)
    assert (finished.result.status, died.request) == ("success", None)


def test_a_worker_is_replaced_after_so_many_runs(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own(worker_max_runs=2)
    (first,) = owner.pool.pids()
    for count in (1, 2):
        assert owner.pool.submit(owner.request(), START).pid == first
        wait_for(lambda count=count: len(owner.finished()) == count)
    assert owner.pool.free() == 0
    owner.pool.start()
    assert owner.pool.submit(owner.request(), START).pid != first
    wait_for(lambda: owner.died() and len(owner.finished()) == 3)
    (died,) = owner.died()
    assert (died.process.pid, died.exit_code, died.expected) == (first, 0, True)


def test_a_worker_that_is_told_to_end_cancels_its_run(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own()
    owner.pool.submit(owner.request("sleep 60"), START)
    wait_for(lambda: owner.events("run_started"))
    owner.pool.terminate()
    wait_for(owner.died)
    assert owner.finished()[0].result.status == "cancelled"
    assert owner.events("run_finished")[0]["reason"] == "cancelled: the worker was told to stop"
    assert owner.died()[0].exit_code == 0


def test_a_worker_that_is_told_to_end_before_its_claim_starts_nothing(
    own: Callable[..., Owner], wait_for: WaitFor
) -> None:
    owner = own()
    lock = Lock(Path(owner.settings.state_path + ".lock"))
    lock.acquire(5)
    try:
        (pid,) = owner.pool.pids()
        request = owner.request()
        owner.pool.submit(request, START)
        # It waits for the lock of the log, with the request in its hands.
        wait_for(lambda: any(file.path.endswith("state.jsonl.lock") for file in psutil.Process(pid).open_files()))
        owner.pool.terminate()
    finally:
        lock.close()
    wait_for(owner.died)
    assert [outcome.result.status for outcome in owner.finished()] in (["unclaimed"], [])
    assert owner.events("run_started") == []


def test_only_the_worker_that_has_the_run_is_told_to_cancel_it(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own(2)
    for _ in range(2):
        owner.pool.submit(owner.request("sleep 60"), START)
    wait_for(lambda: len(owner.events("run_started")) == 2)
    assert not owner.pool.cancel("r3")
    assert owner.pool.cancel("r2")
    wait_for(owner.died)
    assert [end["run_id"] for end in owner.events("run_finished")] == ["r2"]
    assert owner.pool.busy() == 1


def test_retired_workers_end_by_themselves_and_busy_ones_stay(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own(2)
    busy = owner.pool.submit(owner.request("sleep 60"), START)
    owner.pool.retire()
    wait_for(owner.died)
    assert owner.died()[0].exit_code == 0
    assert owner.pool.pids() == {busy.pid}


def test_the_terminals_signals_do_not_end_a_worker(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own()
    owner.pool.submit(owner.request(), START)
    wait_for(owner.finished)
    (pid,) = owner.pool.pids()
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert owner.pool.submit(owner.request(), START).pid == pid
    wait_for(lambda: len(owner.finished()) == 2)
    assert owner.pool.pids() == {pid}


@pytest.mark.parametrize("name", ["INT", "HUP", "TERM"])
def test_a_task_has_the_default_signal_handlers(own: Callable[..., Owner], wait_for: WaitFor, name: str) -> None:
    owner = own()
    owner.pool.submit(owner.request(f"kill -{name} $$; echo survived"), START)
    wait_for(owner.finished)
    assert owner.events("run_finished")[0]["reason"] == f"task `t` failed: killed by SIG{name}"


def test_a_claim_that_the_log_would_not_take_is_told_and_the_worker_stays(
    own: Callable[..., Owner], wait_for: WaitFor
) -> None:
    owner = own(lock_timeout_s=0.05)
    lock = Lock(Path(owner.settings.state_path + ".lock"))
    lock.acquire(5)
    try:
        owner.pool.submit(owner.request(), START)
        wait_for(owner.finished)
    finally:
        lock.close()
    result = owner.finished()[0].result
    assert result.status == "unclaimed"
    assert f"process {os.getpid()} holds it" in str(result.reason)
    assert owner.pool.free() == 1


def test_workers_that_die_as_they_are_born_are_started_ever_later(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own()
    for count in range(1, 6):
        wait_for(lambda: owner.pool.pause_s() in (0.0, None))
        owner.pool.start()
        (pid,) = owner.pool.pids()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda count=count: len(owner.died()) == count)
    pause_s = owner.pool.pause_s()
    assert pause_s is not None
    assert 0 < pause_s < 0.4
    owner.pool.start()
    assert owner.pool.is_empty()
    wait_for(lambda: owner.pool.pause_s() == 0.0)
    owner.pool.start()
    assert owner.pool.pause_s() is None
    # One that works proves that the installation does.
    owner.pool.submit(owner.request(), START)
    wait_for(owner.finished)
    for count in (6, 7):
        (pid,) = owner.pool.pids()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda count=count: len(owner.died()) == count)
        pause_s = owner.pool.pause_s()
        assert pause_s is not None
        assert pause_s <= 0.02
        wait_for(lambda: owner.pool.pause_s() == 0.0)
        owner.pool.start()


def test_a_system_that_gives_no_descriptor_is_asked_again(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own()
    (pid,) = owner.pool.pids()
    os.kill(pid, signal.SIGKILL)
    wait_for(owner.died)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    before = psutil.Process().num_fds()
    filler = [os.dup(0) for _ in range(highest + 1 - before)]
    try:
        wait_for(lambda: owner.pool.pause_s() == 0.0)
        with pytest.raises(OSError, match="Too many open files"):
            owner.pool.start()
        assert owner.pool.pause_s() != 0.0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)
    gc.collect()
    assert psutil.Process().num_fds() == before
    wait_for(lambda: owner.pool.pause_s() == 0.0)
    owner.pool.start()
    owner.pool.submit(owner.request(), START)
    wait_for(owner.finished)


def test_a_pool_leaves_no_descriptor_thread_or_semaphore_behind(own: Callable[..., Owner], wait_for: WaitFor) -> None:
    owner = own(2)
    process = psutil.Process()

    def used() -> tuple[int, int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text("utf-8", "replace")
        return process.num_fds(), process.num_threads(), maps.count("/dev/shm/sem.mp-")

    def kill_all(count: int) -> None:
        for pid in owner.pool.pids():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(owner.died()) == count)
        wait_for(lambda: owner.pool.pause_s() == 0.0)

    kill_all(2)
    before = used()
    for round_number in range(1, 7):
        owner.pool.start()
        for _ in range(2):
            owner.pool.submit(owner.request(), START)
        wait_for(lambda n=round_number: len(owner.finished()) == 2 * n)
        kill_all(2 + 2 * round_number)
    wait_for(lambda: used() <= before, what=f"{used()} instead of {before}")
