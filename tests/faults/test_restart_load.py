"""What a service finds when it comes back: a week of fire times, and a long queue."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, kill9

from scheduler.reload import record_configuration
from scheduler.schedule_model import Schedule
from scheduler.schedules import Configuration
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog
from workers.events import Event
from workers.segments import LogReader

WaitFor = Callable[..., None]
NOON = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
WEEK = timedelta(days=7)


def _open(log: Path) -> StateStore:
    store = StateStore(EventLog(log, fsync="off"))
    store.refresh()
    return store


def _leave(log: Path, schedules: list[Schedule], now: datetime) -> None:
    """Be a service that took up schedules, judged their first fire times, saw those runs end, and was gone."""
    store = _open(log)
    record_configuration(store, Configuration("schedules", schedules, [], (), ()), now)
    for event in Ticker(store, schedules, now).tick(now):
        if event["event"] == "schedule_enqueued":
            end = {name: event[name] for name in ("run_id", "schedule_id", "attempt")} | {"event": "run_finished"}
            store.commit(lambda _, end=end: [{**end, "status": "success"}])
    store.close()


HOUR = timedelta(hours=1)
# How many runs a week without a service leaves, of a schedule that fires each minute and each second.
POLICIES: dict[str, tuple[dict[str, Any], int, int]] = {
    "none": ({}, 1, 1),
    "latest": ({"catchup": "latest"}, 1, 1),
    "all of an hour": ({"catchup": "all", "catchup_window": HOUR}, 60, 3601),
    # Without a window it is every one of them; of more than 100,000, those of the last day.
    "all": ({"catchup": "all"}, 10_080, 86_400),
}


@pytest.mark.slow
@pytest.mark.parametrize("cron", ["* * * * *", "@every 1s"], ids=["minutely", "secondly"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_week_without_a_service_is_a_range_and_the_runs_that_the_policy_asks_for(
    tmp_path: Path, policy: str, cron: str, figure: Callable[[str], None]
) -> None:
    fields, each_minute, each_second = POLICIES[policy]
    log, back = tmp_path / "state.jsonl", NOON + WEEK
    schedule = Schedule("s", cron, "d", **({"overlap": "queue"} | fields))
    _leave(log, [schedule], NOON)
    store, began, used = _open(log), time.monotonic(), time.process_time()
    record_configuration(store, Configuration("schedules", [schedule], [], (), ()), back)
    events = Ticker(store, [schedule], back).tick(back, "down")
    took_s, used_s = time.monotonic() - began, time.process_time() - used
    kinds = Counter(event["event"] for event in events)
    runs = each_minute if cron == "* * * * *" else each_second
    assert kinds["schedule_enqueued"] == runs
    # One range; one more for what is too much to be counted.
    assert kinds["schedule_missed"] <= (1 if cron == "* * * * *" else 2)
    assert Ticker(store, [schedule], back).tick(back) == []
    store.close()
    assert used_s < (2 if runs <= 3601 else 30)
    figure(f"{cron}, {policy}: {kinds['schedule_missed']} range(s), {runs} run(s), judged in {took_s:.2f} s")


@pytest.mark.slow
def test_a_service_that_comes_back_after_a_week_starts_one_run(
    service: Service, wait_for: WaitFor, figure: Callable[[str], None]
) -> None:
    dag = service.dag("d", 'echo "$RUN_ID" >> effects')
    policies: dict[str, dict[str, Any]] = {
        "none": {},
        "latest": {"catchup": "latest", "overlap": "allow"},
        "all": {"catchup": "all", "overlap": "allow", "catchup_window": "5m"},
    }
    for name, fields in policies.items():
        service.schedule(name, "* * * * *", dag, **fields)
    _leave(service.log, [Schedule(name, "* * * * *", dag) for name in policies], datetime.now(UTC) - WEEK)
    before, began = len(service.events()), time.monotonic()
    supervisor = service.start()
    wait_for(lambda: len({event["schedule_id"] for event in service.events("schedule_missed")}) == 3)
    judged_s = time.monotonic() - began
    wait_for(lambda: not service.events("schedule_enqueued")[-1:] or _all_ended(service))
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    events = service.events()[before:]
    missed = Counter(event["schedule_id"] for event in events if event["event"] == "schedule_missed")
    runs = Counter(event["schedule_id"] for event in events if event["event"] == "schedule_enqueued")
    assert missed == {"none": 1, "latest": 1, "all": 1}
    # At the turn of a minute during the test there is one more.
    assert 1 <= runs["none"] <= 2
    assert 1 <= runs["latest"] <= 2
    assert 5 <= runs["all"] <= 7
    assert set(service.starts().values()) == {1}
    figure(f"from its start to all verdicts {judged_s:.2f} s; one range and {dict(runs)} runs")


def _all_ended(service: Service) -> bool:
    asked = {event["run_id"] for event in service.events("schedule_enqueued")}
    return service.has_ended(*asked)


# -- a long queue ----------------------------------------------------------------------------------------------------


class Follower:
    """Counts what a log tells of its runs, without reading it twice."""

    def __init__(self, log: Path) -> None:
        self._reader = LogReader(log, from_start=True)
        self.starts: Counter[tuple[str, int]] = Counter()
        self.ends: Counter[tuple[str, int]] = Counter()
        self.statuses: Counter[str] = Counter()

    def read(self) -> Follower:
        for event in self._reader.read():
            if event["event"] == "run_started":
                self.starts[event["run_id"], event["attempt"]] += 1
            elif event["event"] == "run_finished":
                self.ends[event["run_id"], event["attempt"]] += 1
                self.statuses[event["status"]] += 1
        self._reader.close()
        return self


NOOP = """
def main(run_id):
    with open("effects", "a") as file:
        file.write(run_id + "\\n")
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_queue_outlives_its_service_and_each_run_starts_once(
    service: Service, wait_for: WaitFor, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    runs, kills = count(500, 10_000), 3
    (service.root / "noop.py").write_text(NOOP, "ascii")
    dag = service.tasks("noop", {"id": "t", "call": "noop:main", "args": {"run_id": "${run.id}"}, "isolate": False})
    asked = [f"asked.{number}" for number in range(runs)]
    store = _open(service.log)
    for start in range(0, runs, 500):
        requests: list[Event] = [
            {"event": "run_requested", "run_id": run_id, "attempt": 1, "dag": dag, "project": str(service.root)}
            for run_id in asked[start : start + 500]
        ]
        store.commit(lambda _, requests=requests: requests)
    store.close()
    told, began, restarts_s = Follower(service.log), time.monotonic(), []
    environ = {"SCHED_MAX_PARALLEL": "3", "STATE_SEGMENT_SIZE": "256KiB", "STATE_FSYNC": "off"}
    supervisor = service.start(**environ)
    for kill in range(1, kills + 1):
        wait_for(lambda kill=kill: len(told.read().starts) >= runs * kill // (kills + 1), 600)
        kill9(supervisor)
        started_at, before = time.monotonic(), len(told.read().starts)
        supervisor = service.start(**environ)
        # The workers left behind end their runs, and start no other.
        wait_for(lambda before=before: len(told.read().starts) > before + 3, 60)
        restarts_s.append(time.monotonic() - started_at)
    wait_for(lambda: len(told.read().ends) >= runs, 600)
    took_s = time.monotonic() - began
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    told.read()
    assert told.starts == told.ends == {(run_id, 1): 1 for run_id in asked}
    assert told.statuses == {"success": runs}
    effects = Counter((service.root / "effects").read_text("ascii").split())
    assert effects == dict.fromkeys(asked, 1)
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    figure(
        f"{runs} runs queued, {kills} services killed: each started once, {runs / took_s:.0f} runs/s, "
        f"{max(restarts_s):.2f} s from a start to new runs (worst), {peak_mb:.0f} MB at most"
    )
