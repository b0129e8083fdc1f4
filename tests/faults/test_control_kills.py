"""SIGKILL in the middle of a backfill, a retry, a cancel, an approval, a run of a run: nothing is lost or repeated.

Tasks append `RUN_ID ATTEMPT TASK` to a file that the log has not heard of. Each test demands what must be in it.
"""

from __future__ import annotations

import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest
from service import Service, WaitFor, is_running, kill9

from scheduler.audit import audit
from scheduler.control import answer
from scheduler.history import History
from scheduler.state_store import StateStore
from workers.event_log import EventLog

Count = Callable[[int, int], int]
Figure = Callable[[str], None]
Process = subprocess.Popen[bytes]

NOTE = 'echo "$RUN_ID $ATTEMPT $TASK_ID" >> done'
GATE = "while [ ! -e go ]; do sleep 0.02; done"
HOURS = ("--from", "2026-11-20T00:00:00Z", "--until", "2026-11-20T12:00:00Z")


def started(service: Service, wait_for: WaitFor, **environ: str) -> Process:
    process = service.start(**environ)
    wait_for(service.is_ready, 30, "the service")
    return process


def kill_all(service: Service, supervisor: Process) -> None:
    """Kill the service and its workers at once, as a machine does that loses its power."""
    victims = [psutil.Process(supervisor.pid), *psutil.Process(supervisor.pid).children(recursive=True)]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.suspend()
    for victim in victims:
        kill9(victim)
    supervisor.wait(5)


def armed(service: Service, points: str) -> dict[str, str]:
    (service.root / "notes").touch()
    return {"TICKPOOL_FAILPOINTS": f"{service.root / 'notes'}|{points}"}


def disarm(service: Service, wait_for: WaitFor) -> None:
    """Wait for a death at a failpoint, and allow no other."""
    notes = service.root / "notes"
    wait_for(lambda: notes.read_text("ascii"), 20, "a death at a failpoint")
    notes.rename(service.root / f"notes.{len(list(service.root.glob('notes.*')))}")


def done(service: Service) -> list[str]:
    """Return the effects, without what stands for the runs of no interest."""
    file = service.root / "done"
    return sorted(file.read_text("ascii").splitlines()) if file.exists() else []


def is_clean(service: Service) -> bool:
    report = audit(service.log, datetime.now(UTC), lateness_s=60, final=True)
    assert report.violations == []
    return True


def has_parked(service: Service, run_id: str, times: int = 1) -> bool:
    return service.story(run_id).count("run_parked 1") == times and service.story(run_id)[-1] == "run_parked 1"


def statuses(service: Service, *run_ids: str) -> list[str]:
    return [service.events("run_finished", run_id)[-1]["status"] for run_id in run_ids]


def asks(service: Service) -> str:
    """Write a DAG that works, asks, and works."""
    return service.tasks(
        "asks",
        {"id": "before", "run": NOTE},
        {"id": "ok", "approval": "Now?", "needs": ["before"]},
        {"id": "after", "run": NOTE, "needs": ["ok"]},
    )


def asks_once(run_id: str) -> list[str]:
    return [f"{run_id} 1 after", f"{run_id} 1 before"]


# -- backfill -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victims", ["service", "command", "both", "all"])
def test_a_backfill_runs_each_slot_once_whoever_of_it_is_killed(
    service: Service, wait_for: WaitFor, victims: str
) -> None:
    service.schedule("s", "0 * 20 11 *", service.dag("d", f"{NOTE}; sleep 0.05"), retry_on_crash=False)
    supervisor = started(service, wait_for)
    command = service.launch("-m", "scheduler.cli", "backfill", "s", *HOURS, "--max-parallel", "2")
    wait_for(lambda: len(done(service)) >= 3, 20, "the first slots")
    if victims in ("command", "both"):
        kill9(command)
    if victims in ("service", "both"):
        kill9(supervisor)
    if victims == "all":
        kill_all(service, supervisor)
    if victims != "command":
        started(service, wait_for)
    wait_for(lambda: service.events("backfill_finished"), 60, "its end")
    (end,) = service.events("backfill_finished")
    requests = [event["run_id"] for event in service.events("run_requested")]
    assert len(requests) == len(set(requests)) == sum(end["ended"].values()) == 12
    crashed = end["ended"].get("crashed", 0)
    # What was at work as all died had its effect, or had not come to it.
    assert crashed <= (2 if victims == "all" else 0)
    succeeded = {f"{run_id} 1 t" for run_id in requests if statuses(service, run_id) == ["success"]}
    assert succeeded <= set(done(service))
    assert len(done(service)) == len(set(done(service))) <= 12
    assert is_clean(service)


@pytest.mark.parametrize("point", ["before_lock", "inside_write", "after_write"])
def test_a_backfill_command_killed_at_its_append_is_asked_for_again_and_no_slot_runs_twice(
    service: Service, wait_for: WaitFor, point: str
) -> None:
    service.schedule("s", "0 * 20 11 *", service.dag("d", NOTE))
    command = service.launch("-m", "scheduler.cli", "backfill", "s", *HOURS, **armed(service, f"{point}=1"))
    assert command.wait(20) == -signal.SIGKILL
    disarm(service, wait_for)
    started(service, wait_for)
    service.command("backfill", "s", *HOURS, "--max-parallel", "3", "--only-missing")
    wait_for(lambda: service.events("backfill_finished"), 30, "its end")
    assert len(done(service)) == len(set(done(service))) == 12
    assert is_clean(service)


# -- retry ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["inside_write", "after_write"])
def test_a_retry_whose_command_is_killed_at_its_append_was_asked_for_once_or_not_at_all(
    service: Service, wait_for: WaitFor, point: str
) -> None:
    dag = service.tasks(
        "d",
        {"id": "a", "run": NOTE},
        {"id": "each", "foreach": ["x", "y", "z"], "run": f'{NOTE}; test "$item" != y -o -e good', "needs": ["a"]},
        {"id": "z", "run": NOTE, "needs": ["each"]},
    )
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its first end")
    first = [f"{run_id} 1 {name}" for name in ("a", "each[0]", "each[1]", "each[2]")]
    assert done(service) == first
    (service.root / "good").touch()
    command = service.launch("-m", "scheduler.cli", "retry", run_id, "--failed", **armed(service, f"{point}=1"))
    assert command.wait(20) == -signal.SIGKILL
    disarm(service, wait_for)
    if point == "inside_write":
        assert service.command("retry", run_id, "--failed").returncode == 0
    wait_for(lambda: len(service.events("run_finished", run_id)) == 2, 20, "its second end")
    assert done(service) == sorted([*first, f"{run_id} 2 each[1]", f"{run_id} 2 z"])
    # Once it has ended well, there is nothing left to try again.
    assert service.command("retry", run_id, "--failed").returncode == 2
    assert is_clean(service)


@pytest.mark.parametrize("victims", ["service", "worker", "all"])
def test_a_retry_of_what_failed_does_nothing_again_that_was_done_whoever_is_killed_in_it(
    service: Service, wait_for: WaitFor, victims: str
) -> None:
    tried = f'{NOTE}; test "$item" = x && exit; test -e good || exit 3; {GATE}'
    dag = service.tasks("d", {"id": "a", "run": NOTE}, {"id": "each", "foreach": ["x", "y"], "run": tried})
    supervisor = started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its first end")
    first = [f"{run_id} 1 {name}" for name in ("a", "each[0]", "each[1]")]
    assert (done(service), statuses(service, run_id)) == (first, ["failed"])
    (service.root / "good").touch()
    assert service.command("retry", run_id, "--failed").returncode == 0
    wait_for(lambda: done(service) == [*first, f"{run_id} 2 each[1]"], 20, "the second attempt")
    if victims == "worker":
        kill9(psutil.Process(service.events("run_started", run_id)[-1]["pid"]))
    elif victims == "service":
        kill9(supervisor)
    else:
        kill_all(service, supervisor)
    if victims != "worker":
        started(service, wait_for)
    if victims != "service":
        wait_for(lambda: statuses(service, run_id) == ["crashed"], 20, "the second end")
        assert service.command("retry", run_id, "--failed").returncode == 0
    (service.root / "go").touch()
    wait_for(lambda: statuses(service, run_id) == ["success"], 20, "its last end")
    third = [] if victims == "service" else [f"{run_id} 3 each[1]"]
    assert done(service) == [*first, f"{run_id} 2 each[1]", *third]
    assert is_clean(service)


def test_what_a_killed_retry_had_begun_is_tried_again_though_it_had_ended_well_before(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d",
        {"id": "a", "run": f"{NOTE}; test ! -e hold || {{ {GATE}; }}"},
        {"id": "b", "run": NOTE, "needs": ["a"]},
        {"id": "c", "run": NOTE},
    )
    started(service, wait_for)
    run_id = service.ask(dag)
    wait_for(lambda: service.has_ended(run_id), what="its first end")
    (service.root / "hold").touch()
    assert service.command("retry", run_id, "--from", "a").returncode == 0
    wait_for(lambda: f"{run_id} 2 a" in done(service), 20, "the second attempt")
    kill9(psutil.Process(service.events("run_started", run_id)[-1]["pid"]))
    wait_for(lambda: statuses(service, run_id) == ["crashed"], 20, "the second end")
    (service.root / "go").touch()
    assert service.command("retry", run_id, "--failed").returncode == 0
    wait_for(lambda: statuses(service, run_id) == ["success"], 20, "its last end")
    lines = [f"{run_id} 1 a", f"{run_id} 1 b", f"{run_id} 1 c", f"{run_id} 2 a", f"{run_id} 3 a", f"{run_id} 3 b"]
    assert done(service) == lines
    assert is_clean(service)


# -- cancel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("was", ["waiting", "parked", "running", "parent"])
@pytest.mark.parametrize("point", ["inside_write", "after_write"])
def test_a_cancel_whose_command_is_killed_at_its_append_is_carried_out_by_the_service(
    service: Service, wait_for: WaitFor, was: str, point: str
) -> None:
    service.dag("sub", f"{NOTE}; {GATE}")
    parent = service.tasks("parent", {"id": "sub", "dag": "dags/sub.yaml"}, {"id": "z", "run": NOTE, "needs": ["sub"]})
    started(service, wait_for, SCHED_MAX_PARALLEL="1")
    dag = {"parked": asks(service), "parent": parent}.get(was, "dags/sub.yaml")
    holds = service.ask("dags/sub.yaml") if was == "waiting" else ""
    wait_for(lambda: not holds or service.story(holds) == ["run_started 1"], what="the run before it")
    run_id = service.ask(dag)
    ready: dict[str, Callable[[], object]] = {
        "waiting": lambda: service.story(run_id) == [],
        "parked": lambda: has_parked(service, run_id),
        "running": lambda: len(done(service)) == 1,
        "parent": lambda: f"{run_id}.sub 1 t" in done(service),
    }
    wait_for(ready[was], 20, f"the run, {was}")
    command = service.launch("-m", "scheduler.cli", "cancel", run_id, **armed(service, f"{point}=1"))
    assert command.wait(20) == -signal.SIGKILL
    disarm(service, wait_for)
    asked = [event for event in service.events("cancel_requested") if event["run_id"] == run_id]
    if not asked:  # its line was torn, so nobody was told that it is cancelled
        assert service.command("cancel", run_id).returncode == 0
    wait_for(lambda: service.has_ended(run_id, *([f"{run_id}.sub"] if was == "parent" else [])), 20, "the end")
    assert statuses(service, run_id) == ["cancelled"]
    assert was != "parent" or statuses(service, f"{run_id}.sub") == ["cancelled"]
    (service.root / "go").touch()
    wait_for(lambda: not holds or service.has_ended(holds), what="the run before it")
    effects = {"parked": [f"{run_id} 1 before"], "running": [f"{run_id} 1 t"], "parent": [f"{run_id}.sub 1 t"]}
    assert done(service) == effects.get(was, [f"{holds} 1 t"])
    assert is_clean(service)


def test_a_cancel_of_a_parent_reaches_its_run_though_the_service_is_killed_between_the_two(
    service: Service, wait_for: WaitFor
) -> None:
    service.dag("sub", f"{NOTE}; {GATE}")
    supervisor = started(service, wait_for)
    run_id = service.ask(service.tasks("parent", {"id": "sub", "dag": "dags/sub.yaml"}))
    wait_for(lambda: f"{run_id}.sub 1 t" in done(service) and has_parked(service, run_id), 20, "its run")
    supervisor.send_signal(signal.SIGSTOP)
    command = service.launch("-m", "scheduler.cli", "cancel", run_id)
    wait_for(lambda: service.has_ended(run_id), 20, "the end of the parent")
    kill9(supervisor)
    assert service.events("run_finished", f"{run_id}.sub") == []
    service.start()
    wait_for(lambda: service.has_ended(f"{run_id}.sub"), 20, "the end of its run")
    assert statuses(service, f"{run_id}.sub") == ["cancelled"]
    assert command.wait(20) == 0
    assert is_clean(service)


# -- approval -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["command", "service", "all", "before_put"])
def test_an_answer_counts_once_whoever_is_killed_behind_it(service: Service, wait_for: WaitFor, victim: str) -> None:
    supervisor = started(service, wait_for, **(armed(service, "before_put=0") if victim == "before_put" else {}))
    run_id = service.ask(asks(service))
    wait_for(lambda: has_parked(service, run_id), what="the question")
    if victim == "command":
        command = service.launch("-m", "scheduler.cli", "approve", run_id, **armed(service, "after_write=1"))
        assert command.wait(20) == -signal.SIGKILL
        disarm(service, wait_for)
    else:
        # It is killed between the answer and the resume, or between the resume and the start.
        supervisor.send_signal(signal.SIGSTOP)
        assert service.command("approve", run_id).returncode == 0
        (kill_all if victim == "all" else lambda _, process: kill9(process))(service, supervisor)
        assert service.events("run_resumed") == []
        if victim == "before_put":
            process = service.start(**armed(service, "before_put=1"))
            assert process.wait(20) == -signal.SIGKILL
            disarm(service, wait_for)
            assert service.story(run_id)[-1] == "run_resumed 1"
        started(service, wait_for)
    wait_for(lambda: service.has_ended(run_id), 20, "its end")
    assert service.command("approve", run_id).returncode == 2
    assert (done(service), statuses(service, run_id)) == (asks_once(run_id), ["success"])
    assert len(service.events("task_approved")) == 1
    assert is_clean(service)


@pytest.mark.parametrize("may_try_again", [False, True])
def test_a_worker_killed_before_the_park_has_done_half_an_attempt(
    service: Service, wait_for: WaitFor, *, may_try_again: bool
) -> None:
    started(service, wait_for, **armed(service, "before_park=1"))
    run_id = service.ask(asks(service), retry_on_crash=may_try_again)
    disarm(service, wait_for)
    if not may_try_again:
        wait_for(lambda: service.has_ended(run_id), 20, "its end")
        assert (done(service), statuses(service, run_id)) == ([f"{run_id} 1 before"], ["crashed"])
        # The question of a run that is over is no question any more.
        assert service.command("approve", run_id).returncode == 2
        assert is_clean(service)
        return
    wait_for(lambda: service.story(run_id)[-1:] == ["run_parked 2"], 20, "the second attempt")
    assert service.command("approve", run_id).returncode == 0
    wait_for(lambda: service.has_ended(run_id), 20, "its end")
    assert done(service) == [f"{run_id} 1 before", f"{run_id} 2 after", f"{run_id} 2 before"]
    assert is_clean(service)


def test_a_worker_killed_behind_the_park_has_lost_nothing(service: Service, wait_for: WaitFor) -> None:
    started(service, wait_for, **armed(service, "after_park=1"))
    run_id = service.ask(asks(service))
    disarm(service, wait_for)
    wait_for(lambda: service.events("worker_exited"), what="its burial")
    assert has_parked(service, run_id)
    assert service.command("approve", run_id).returncode == 0
    wait_for(lambda: service.has_ended(run_id), 20, "its end")
    assert (done(service), statuses(service, run_id)) == (asks_once(run_id), ["success"])
    assert is_clean(service)


def test_parked_runs_outlive_service_and_workers_again_and_again(service: Service, wait_for: WaitFor) -> None:
    dag, run_ids = asks(service), []
    for _ in range(3):
        supervisor = started(service, wait_for)
        run_ids.append(service.ask(dag))
        wait_for(lambda: has_parked(service, run_ids[-1]), 20, "the question")
        kill_all(service, supervisor)
    started(service, wait_for)
    for run_id in run_ids:
        assert service.command("approve", run_id).returncode == 0
    wait_for(lambda: service.has_ended(*run_ids), 30, "the ends")
    assert done(service) == sorted(line for run_id in run_ids for line in asks_once(run_id))
    assert is_clean(service)


def test_single_ticks_beside_a_service_that_is_killed_answer_nothing_twice(service: Service, wait_for: WaitFor) -> None:
    service.schedule("never", "0 0 1 1 *", asks(service))
    supervisor = started(service, wait_for)
    run_id = service.ask("dags/asks.yaml")
    wait_for(lambda: has_parked(service, run_id), what="the question")
    supervisor.send_signal(signal.SIGSTOP)
    assert service.command("approve", run_id).returncode == 0
    ticks = [service.start("--once") for _ in range(2)]
    kill9(supervisor)
    ticks.append(service.start("--once"))
    assert [tick.wait(30) for tick in ticks] == [0, 0, 0]
    started(service, wait_for)
    wait_for(lambda: service.has_ended(run_id), 20, "its end")
    assert (done(service), statuses(service, run_id)) == (asks_once(run_id), ["success"])
    assert is_clean(service)


# -- runs of runs, and waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("may_try_again", [False, True])
def test_a_worker_killed_between_the_request_for_a_run_and_the_park_leaves_no_run_behind(
    service: Service, wait_for: WaitFor, *, may_try_again: bool
) -> None:
    service.dag("sub", f"{NOTE}; {GATE}")
    dag = service.tasks("parent", {"id": "sub", "dag": "dags/sub.yaml"}, {"id": "z", "run": NOTE, "needs": ["sub"]})
    started(service, wait_for, **armed(service, "before_park=1"))
    run_id = service.ask(dag, retry_on_crash=may_try_again)
    disarm(service, wait_for)
    child, again = f"{run_id}.sub", f"{run_id}.sub.2-1"
    wait_for(lambda: service.has_ended(child), 20, "the end of the orphan")
    assert statuses(service, child) == ["cancelled"]
    if may_try_again:
        wait_for(lambda: f"{again} 1 t" in done(service), 20, "the run of the second attempt")
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(run_id), 20, "its end")
    assert statuses(service, run_id) == ["success" if may_try_again else "crashed"]
    of_second = [f"{again} 1 t", f"{run_id} 2 z"] if may_try_again else []
    assert [line for line in done(service) if line != f"{child} 1 t"] == sorted(of_second)
    assert is_clean(service)


def test_when_all_die_a_run_of_a_parked_run_is_closed_and_the_parent_hears_of_it(
    service: Service, wait_for: WaitFor
) -> None:
    service.dag("sub", f"{NOTE}; {GATE}")
    tasks = [{"id": "sub", "dag": "dags/sub.yaml"}, {"id": "z", "run": NOTE, "needs": ["sub"]}]
    tasks[1]["trigger_rule"] = "all_done"
    supervisor = started(service, wait_for)
    run_id = service.ask(service.tasks("parent", *tasks))
    wait_for(lambda: f"{run_id}.sub 1 t" in done(service) and has_parked(service, run_id), 20, "its run")
    kill_all(service, supervisor)
    started(service, wait_for)
    wait_for(lambda: service.has_ended(run_id), 20, "its end")
    assert statuses(service, f"{run_id}.sub", run_id) == ["crashed", "failed"]
    assert done(service) == [f"{run_id} 1 z", f"{run_id}.sub 1 t"]
    assert is_clean(service)


@pytest.mark.slow
def test_a_run_that_ends_in_the_very_moment_of_the_park_is_not_waited_for_in_vain(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    dice, rounds = random.Random(5), count(15, 300)
    started(service, wait_for, SCHED_MAX_PARALLEL="2")
    parked = 0
    for number in range(rounds):
        first = f"first.{number}"
        waits = service.tasks(f"waits{number}", {"id": "w", "wait": {"run": f"{first}.20261124T0900Z"}})
        ends = service.dag(f"ends{number}", f"sleep {dice.random() * 0.05:.4f}")
        service.ask(ends, f"{first}.20261124T0900Z")
        run_id = service.ask(waits)
        wait_for(lambda run_id=run_id: service.has_ended(run_id), 20, "the end of a wait")
        assert statuses(service, run_id) == ["success"]
        parked += bool(service.events("run_parked", run_id))
    assert is_clean(service)
    figure(f"{rounds} runs waited for, {parked} by a parked run: 0 waited in vain")


# -- everything at once, at random ----------------------------------------------------------------------------------


class Chaos:
    """A service under attack, with operators who backfill, trigger, approve, retry and cancel, and are killed too."""

    def __init__(self, service: Service, wait_for: WaitFor, dice: random.Random) -> None:
        self.service, self.wait_for, self.dice = service, wait_for, dice
        self.kills: Counter[str] = Counter()
        self.asked: list[str] = []
        self.cancelled: set[str] = set()
        note = f"{NOTE}; sleep 0.0$(($$ % 9))"
        service.dag("leaf", note)
        service.tasks("asking", {"id": "a", "run": note}, {"id": "ok", "approval": "Now?", "needs": ["a"]},
                      {"id": "z", "run": note, "needs": ["ok"]})  # fmt: skip
        service.tasks("nested", {"id": "sub", "dag": "dags/leaf.yaml"}, {"id": "z", "run": note, "needs": ["sub"]})
        service.tasks("mapped", {"id": "m", "foreach": [1, 2, 3], "run": note, "max_parallel": 2},
                      {"id": "each", "foreach": [1, 2], "dag": "dags/leaf.yaml"},
                      {"id": "z", "run": note, "needs": ["m", "each"]})  # fmt: skip
        service.schedule("s", "0 * 20 11 *", "dags/leaf.yaml")
        self.environ = {"SCHED_MAX_PARALLEL": "3", "SCHED_TICK_MS": "50", "STATE_SEGMENT_SIZE": "64KiB"}
        self.supervisor = service.start(**self.environ)
        self.commands: list[Process] = []
        self.store = StateStore(EventLog(service.log, fsync="off"))

    def round(self) -> None:
        """Ask for something, have somebody do something, and kill somebody."""
        dag = self.dice.choice(["leaf", "asking", "asking", "nested", "mapped"])
        self.asked.append(self.service.ask(f"dags/{dag}.yaml", retry_on_crash=self.dice.random() < 0.4))
        self.operate()
        ends = len(self.service.events("run_finished"))
        if self.dice.random() < 0.7:
            with suppress(pytest.fail.Exception):
                self.wait_for(lambda: len(self.service.events("run_finished")) > ends, 1.5)
        self.kill()

    def operate(self) -> None:
        """Launch a command of an operator, and leave it to itself."""
        runs = self.service.events("approval_requested")
        words = self.dice.choice(["approve", "approve", "approve", "cancel", "retry", "backfill"])
        ended = [event for event in self.service.events("run_finished") if event["status"] in ("crashed", "failed")]
        if words == "approve" and runs:
            self.launch(self.dice.choice(["approve", "approve", "reject"]), self.dice.choice(runs[-5:])["run_id"])
        elif words == "cancel" and self.dice.random() < 0.4:
            self.launch("cancel", self.dice.choice(self.asked[-3:]))
        elif words == "retry" and ended:
            self.launch("retry", self.dice.choice(ended)["run_id"], *self.dice.choice([[], ["--failed"]]))
        elif words == "backfill":
            hour = self.dice.randrange(20)
            span = ("--from", f"2026-11-20T{hour:02}:00:00Z", "--until", f"2026-11-20T{hour + 3:02}:00:00Z")
            self.launch("backfill", "s", *span, "--max-parallel", "2", "--only-missing")

    def launch(self, *words: str) -> None:
        self.commands.append(self.service.launch("-m", "scheduler.cli", *words))

    def kill(self) -> None:
        """Kill a worker, a command, the service or all of it; what is gone comes back."""
        alive = [command for command in self.commands if command.poll() is None]
        kind = self.dice.choice(["worker", "worker", "worker", "command", "service", "all", "nobody"])
        if self.supervisor.poll() is not None:
            self.supervisor = self.service.start(**self.environ)
            return
        if kind == "worker" and (workers := self.service.workers(self.supervisor)):
            kill9(self.dice.choice(workers))
        elif kind == "command" and alive:
            kill9(self.dice.choice(alive))
        elif kind == "service":
            kill9(self.supervisor)
        elif kind == "all":
            kill_all(self.service, self.supervisor)
        else:
            return
        self.kills[kind] += 1

    def rest(self) -> None:
        """Kill nobody, answer what is asked, and wait until nothing is open."""
        if self.supervisor.poll() is not None:
            self.supervisor = self.service.start(**self.environ)
        self.wait_for(self.is_quiet, 180, "the end of all runs")
        for command in self.commands:
            with suppress(subprocess.TimeoutExpired):
                command.wait(20)
        self.wait_for(self.is_quiet, 60, "the end of all runs")

    def check_successes(self, effects: Counter[str]) -> None:
        """What has succeeded has had all its effects, in its attempt or, where a retry has kept them, before it."""
        tasks = {"leaf": ["t"], "asking": ["a", "z"], "nested": ["z"], "mapped": ["m[0]", "m[1]", "m[2]", "z"]}
        requests = {
            (event["run_id"], event["attempt"]): event
            for event in self.service.events()
            if event["event"] in ("run_requested", "schedule_enqueued")
        }
        for end in self.service.events("run_finished"):
            run_id, attempt = end["run_id"], end["attempt"]
            if end["status"] != "success":
                continue
            dag = next(event["dag"] for (name, _), event in requests.items() if name == run_id)
            kept = requests.get((run_id, attempt), {}).get("kept")
            for task in tasks[dag.removeprefix("dags/").removesuffix(".yaml")]:
                among = range(1, attempt + 1) if kept else [attempt]
                assert any(effects[f"{run_id} {each} {task}"] for each in among), (end, task)

    def is_quiet(self) -> bool:
        """Answer what is asked; say whether nothing is open any more."""
        now = datetime.now(UTC)

        def answers(history: History) -> list[dict[str, Any]]:
            asked = [(run, task) for run in history.runs.values() if run.cancel is None for task in run.asks(now)]
            return [answer(run, task, "", "nobody@rest", is_approved=True) for run, task in asked]

        self.store.commit(answers)
        return not (self.store.history.runs or self.store.history.backfills.open)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_random_kills_in_all_that_operators_do_lose_and_repeat_nothing(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    seed, rounds = 20261128, count(25, 300)
    chaos = Chaos(service, wait_for, random.Random(seed))
    wait_for(service.is_ready, 30, "the service")
    for _ in range(rounds):
        chaos.round()
    chaos.rest()
    chaos.store.close()
    effects = Counter(done(service))
    # At most once an attempt; a retry is another one.
    assert {line: n for line, n in effects.items() if n > 1} == {}
    starts = {(event["run_id"], event["attempt"]) for event in service.events("run_started")}
    assert {tuple(line.split()[:2]) for line in effects} <= {(run_id, str(n)) for run_id, n in starts}
    chaos.check_successes(effects)
    slots = [event["run_id"] for event in service.events("run_requested") if event.get("backfill")]
    assert len(set(slots)) == len(slots)
    assert service.has_ended(*chaos.asked)
    assert [text for number in range(len(service._started)) if (text := service.tracebacks(number))] == []
    assert is_clean(service)
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(chaos.kills.items()))
    told = Counter(event["event"] for event in service.events())
    facts = {"run_parked": "parks", "task_approved": "approvals", "cancel_requested": "cancels"}
    did = ", ".join(f"{told[name]} {text}" for name, text in facts.items())
    retries = sum(bool(event.get("retry_of")) for event in service.events("run_requested"))
    figure(
        f"{rounds} rounds (seed {seed}), {chaos.kills.total()} kills ({kinds}), {len(starts)} attempts, {did}, "
        f"{retries} retries, {len(slots)} slots: {effects.total()} effects, 0 lost, 0 twice, audit clean"
    )
    assert not any(is_running(process.pid) for process in chaos.commands)
