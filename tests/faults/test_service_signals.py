"""Signals to the service at the worst time: told to end with every worker at work, and stopped for a while."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from service import Service, kill9

from workers.process_tree import find

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]

RUNNING, QUEUED = 50, 10
GRACE_S, TASK_GRACE_S = 1.0, 1.0
# Kinds of runs: one ends in the grace, one at TERM, one only by KILL, and one leaves others about.
KINDS = {
    "ends": "touch $RUN_ID.up; while [ ! -e go ]; do sleep 0.1; done; echo done >> effects",
    "polite": "trap 'echo bye >> said; exit 0' TERM; touch $RUN_ID.up; while :; do sleep 0.1; done",
    "deaf": "trap '' TERM; touch $RUN_ID.up; while :; do sleep 0.1; done",
    "tree": """
        (setsid sh -c 'trap "" TERM; while :; do sleep 0.1; done' &)
        setsid sleep 300 &
        touch $RUN_ID.up; wait; wait
    """,
}


def _works_in(pid: int, root: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd").startswith(root)
    except OSError:
        return False


def _command(pid: int) -> str:
    """Return the command line of a process; a process that is on its way out, and runs nothing more, has none."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def _survivors(service: Service) -> list[int]:
    return [stat.pid for stat in find(lambda stat: _works_in(stat.pid, str(service.root)))]


class Busy:
    """A service with every worker in a run and more runs waiting."""

    def __init__(
        self,
        service: Service,
        wait_for: WaitFor,
        number: int,
        grace_s: float = GRACE_S,
        task_grace_s: float = TASK_GRACE_S,
    ) -> None:
        self.service, self.wait_for = service, wait_for
        for name in ("go", "effects", "said"):
            (service.root / name).unlink(missing_ok=True)
        dags = [service.dag(name, text) for name, text in KINDS.items()]
        self.kinds = {f"busy.{number}.{n}": list(KINDS)[n % len(KINDS)] for n in range(RUNNING)}
        for n, run_id in enumerate(self.kinds):
            service.ask(dags[n % len(KINDS)], run_id)
        self.queued = [service.ask(service.dag("quick", "true"), f"queued.{number}.{n}") for n in range(QUEUED)]
        self.supervisor = service.start(
            SCHED_MAX_PARALLEL=str(RUNNING), SCHED_GRACE_S=str(grace_s), TASK_GRACE_S=str(task_grace_s)
        )
        wait_for(lambda: all((service.root / f"{run_id}.up").exists() for run_id in self.kinds), timeout=60)

    def stop(self, *numbers: int) -> float:
        """Send the signals, each once the one before was seen; return the seconds until the service has ended."""
        began = time.monotonic()
        self.supervisor.send_signal(numbers[0])
        self.wait_for(lambda: "Stopping" in self.service.out(), what="the service to stop")
        (self.service.root / "go").touch()
        for number in numbers[1:]:
            self.supervisor.send_signal(number)
        assert self.supervisor.wait(60) == 0
        return time.monotonic() - began

    def check(self, statuses: dict[str, set[str]]) -> Counter[str]:
        """Check that each run has one end with a status its kind may have, and that nothing else started."""
        service = self.service
        told = {run_id: service.story(run_id) for run_id in self.kinds}
        for run_id, kind in self.kinds.items():
            assert told[run_id] in [["run_started 1", f"run_finished 1 {status}"] for status in statuses[kind]], run_id
        assert [service.story(run_id) for run_id in self.queued] == [[]] * QUEUED
        assert service.events()[-1]["event"] == "supervisor_stopped"
        # Python's own two (the fork server and the tracker) end when they see that their parent has.
        commands = [_command(pid) for pid in _survivors(service)]
        assert [text for text in commands if text and "multiprocessing" not in text] == []
        self.wait_for(lambda: not _survivors(service), what="the end of Python's own")
        return Counter(story[-1].split()[-1] for story in told.values())

    def serve_the_rest(self) -> None:
        """Check that what was left in the queue runs once at the next start."""
        again = self.service.start()
        self.wait_for(lambda: self.service.has_ended(*self.queued), timeout=60)
        again.terminate()
        assert again.wait(10) == 0
        assert set(self.service.starts().values()) == {1}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_with_fifty_runs_that_is_told_to_end_does_so_in_order(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    times, took_s, ends = count(1, 20), [], Counter[str]()
    orderly = {"ends": {"success"}, "polite": {"cancelled"}, "deaf": {"cancelled"}, "tree": {"cancelled"}}
    for number in range(times):
        busy = Busy(service, wait_for, number)
        took_s.append(busy.stop(signal.SIGTERM))
        ends += busy.check(orderly)
        effects = (service.root / "effects").read_text("ascii").split()
        assert len(effects) == list(busy.kinds.values()).count("ends")
        assert (service.root / "said").read_text("ascii").count("bye") == list(busy.kinds.values()).count("polite")
        busy.serve_the_rest()
    assert max(took_s) <= GRACE_S + TASK_GRACE_S + 4
    figure(
        f"{times} times {RUNNING} runs: exit code 0 after {max(took_s):.2f} s at worst (grace {GRACE_S:g} + "
        f"{TASK_GRACE_S:g} s), {dict(ends)}, 0 survivors, {times * QUEUED} queued runs started once afterwards"
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_with_fifty_runs_that_is_told_twice_kills_at_once(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    times, took_s, ends, seed = count(1, 20), [], Counter[str](), random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    either = {kind: {"cancelled"} for kind in KINDS} | {"ends": {"cancelled", "success"}}
    for number in range(times):
        busy = Busy(service, wait_for, number, 300, 300)
        signals = [dice.choice((signal.SIGTERM, signal.SIGINT)) for _ in range(dice.choice((2, 2, 3)))]
        took_s.append(busy.stop(*signals))
        ends += busy.check(either)
        busy.serve_the_rest()
    assert max(took_s) <= 5
    figure(
        f"{times} times {RUNNING} runs, SIGTERM and SIGINT mixed: exit code 0 after {max(took_s):.2f} s at worst, "
        f"{dict(ends)}, 0 survivors, {times * QUEUED} queued runs started once afterwards"
    )


# -- stopped for a while ---------------------------------------------------------------------------------------------


def _seconds(first: str, last: str) -> list[str]:
    """Return the fire times of `@every 1s` from one to another, as events write them."""
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    count = round((end - begin).total_seconds())
    return [f"{begin + timedelta(seconds=n):%Y-%m-%dT%H:%M:%SZ}" for n in range(count + 1)]


def _verdicts(service: Service, schedule_id: str) -> dict[str, list[str]]:
    """Return the verdicts on each fire time of a schedule: `enqueued`, or the reason why it was missed or skipped."""
    found: dict[str, list[str]] = {}
    for event in service.events():
        if event.get("schedule_id") != schedule_id:
            continue
        if event["event"] == "schedule_missed":
            within = _seconds(event["from"], event["to"])
            assert len(within) == event["count"]
            for minute in within:
                found.setdefault(minute, []).append(event["reason"])
        elif event["event"] in ("schedule_enqueued", "schedule_skipped"):
            found.setdefault(event["minute"], []).append(event.get("reason") or "enqueued")
    return found


def _gap(service: Service, stopped_at: float, woken_at: float) -> list[str]:
    """Return the fire times of `@every 1s` within a time, but for the first and the last second of it."""
    return _seconds(
        datetime.fromtimestamp(int(stopped_at) + 2, UTC).isoformat(),
        datetime.fromtimestamp(int(woken_at) - 1, UTC).isoformat(),
    )


def _most_at_once(service: Service, schedule_id: str) -> int:
    running = most = 0
    for event in service.events():
        if event.get("schedule_id") == schedule_id:
            running += (event["event"] == "run_started") - (event["event"] == "run_finished")
            most = max(most, running)
    return most


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_that_was_stopped_gives_each_fire_time_in_between_the_verdict_of_its_policy(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    stop_s = count(5, 150)
    quick = service.dag("quick", "true")
    policies = {
        "none": {"catchup": "none"},
        "latest": {"catchup": "latest"},
        "all": {"catchup": "all"},
        "window": {"catchup": "all", "catchup_window": "3s"},
        "queue": {"catchup": "all", "overlap": "queue"},
    }
    for name, fields in policies.items():
        service.schedule(name, "@every 1s", quick, **{"overlap": "allow", **fields})
    held = service.dag(
        "held", "echo begin >> effects; touch up; while [ ! -e go ]; do sleep 0.05; done; echo end >> effects"
    )
    doomed = service.dag("doomed", "touch up2; exec sleep 300")
    supervisor = service.start(SCHED_MAX_PARALLEL="4", SCHED_TICK_MS="100")
    wait_for(service.is_ready)
    live, dying = service.ask(held), service.ask(doomed)
    wait_for((service.root / "up").exists)
    wait_for((service.root / "up2").exists)
    wait_for(lambda: all(["enqueued"] in _verdicts(service, name).values() for name in policies))
    os.kill(supervisor.pid, signal.SIGSTOP)
    stopped_at = time.time()
    kill9(psutil.Process(service.events("run_started", dying)[0]["pid"]))
    (service.root / "go").touch()
    # The worker goes on by itself, and puts the end on record.
    wait_for(lambda: service.has_ended(live))
    wait_for(lambda: time.time() > stopped_at + stop_s, timeout=stop_s + 5)
    assert service.story(dying) == ["run_started 1"]
    os.kill(supervisor.pid, signal.SIGCONT)
    woken_at = time.time()
    after = _seconds(*[datetime.fromtimestamp(int(woken_at) + 3, UTC).isoformat()] * 2)[0]
    wait_for(lambda: all(after in _verdicts(service, name) for name in policies), timeout=30)
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    assert service.story(live) == ["run_started 1", "run_finished 1 success"]
    assert service.story(dying) == ["run_started 1", "run_finished 1 crashed"]
    assert (service.root / "effects").read_text("ascii") == "begin\nend\n"
    told = {name: _verdicts(service, name) for name in policies}
    for name, verdicts in told.items():
        assert list(verdicts) != []
        assert sorted(verdicts) == _seconds(min(verdicts), max(verdicts)), name
        assert {len(each) for each in verdicts.values()} == {1}, name
    assert service.events("clock_jumped") == []
    gap = _gap(service, stopped_at, woken_at)
    in_gap = {name: Counter(told[name][minute][0] for minute in gap) for name in policies}
    assert in_gap["none"] == {"late": len(gap)}
    assert in_gap["latest"] == {"superseded": len(gap)}
    assert in_gap["all"] == {"enqueued": len(gap)}
    assert set(in_gap["window"]) == {"catchup_window", "enqueued"}
    assert 1 <= in_gap["window"]["enqueued"] <= 3
    assert in_gap["queue"] == {"enqueued": len(gap)}
    assert _most_at_once(service, "queue") == 1
    assert service.events("schedule_missed")
    assert set(service.starts().values()) == {1}
    ways = ", ".join(f"{name}: {dict(found)}" for name, found in in_gap.items())
    figure(
        f"stopped for {woken_at - stopped_at:.0f} s: {sum(map(len, told.values()))} fire times of {len(policies)} "
        f"schedules, one verdict each; of the stop {ways}"
    )
