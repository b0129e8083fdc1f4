"""Limits: `limits.yaml` is read strictly, taken with the schedules, kept on record, and heeded by a real service."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from service import Service

from scheduler.history import History
from scheduler.limits import Limits, Tenant
from scheduler.reload import record_configuration
from scheduler.schedules import Configuration, read_configuration, signature
from scheduler.state_store import StateStore
from workers.event_log import EventLog
from workers.segments import LogReader

WaitFor = Callable[..., None]
NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
GOOD = "- id: good\n  cron: '* * * * *'\n  dag: dags/a.yaml\n"
LIMITS = "pools: {warehouse: 2}\ntenants:\n  acme: {max_parallel: 5, weight: 2}\n  globex: {}\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.yaml").write_text('id: a\ntasks:\n  - id: t\n    run: ["true"]\n')
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules" / "a.yaml").write_text(GOOD)
    (tmp_path / "schedules" / "limits.yaml").write_text(LIMITS)
    return tmp_path / "schedules"


def told(directory: Path) -> list[str]:
    """Return the faults without the directory in their paths."""
    return [str(fault).replace(f"{directory.parent}/", "") for fault in read_configuration(directory).faults]


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_whole_file_is_read(directory: Path) -> None:
    configuration = read_configuration(directory)
    assert configuration.faults == []
    assert configuration.limits == Limits({"warehouse": 2}, {"acme": Tenant(5, 2), "globex": Tenant()})
    assert configuration.knows_limits
    assert [schedule.id for schedule in configuration.schedules] == ["good"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_a_file_without_limits_limits_nothing(directory: Path, text: str) -> None:
    (directory / "limits.yaml").write_text(text)
    assert (told(directory), read_configuration(directory).limits) == ([], Limits())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("pool: {a: 1}\n", "1:1: limits: unknown key `pool`; did you mean `pools`?"),
        ("pools: {a: 0}\n", "1:12: limits: `pools.a`: expected a whole number from 1 to 1000, got 0"),
        ("pools: {a: 1001}\n", "1:12: limits: `pools.a`: expected a whole number from 1 to 1000, got 1001"),
        ("pools: {a: two}\n", '1:12: limits: `pools.a`: expected a whole number from 1 to 1000, got "two"'),
        ("pools: {a: true}\n", "1:12: limits: `pools.a`: expected a whole number from 1 to 1000, got true"),
        ("pools: {a: {slots: 2}}\n", "1:12: limits: `pools.a`: expected a whole number from 1 to 1000, got a mapping"),
        ("pools: [a]\n", "1:8: limits: `pools`: expected a mapping, got a list"),
        ("pools: {a b: 1}\n", "1:9: limits: 'a b' is no id; an id begins"),
        ("tenants:\n  a: {max: 1}\n", "2:7: limits: unknown key `tenants.a.max`; allowed: max_parallel, weight"),
        ("tenants:\n  a: {wieght: 1}\n", "2:7: limits: unknown key `tenants.a.wieght`; did you mean `weight`?"),
        (
            "tenants:\n  a: {weight: 0}\n",
            "2:15: limits: `tenants.a.weight`: expected a whole number from 1 to",
        ),
        ("tenants:\n  a: 5\n", "2:6: limits: `tenants.a`: expected a mapping, got 5"),
        ("tenants:\n  a:\n", "limits: `tenants.a`: expected a mapping, got nothing"),
        ("- a\n", "1:1: limits: expected a mapping, got a list"),
        ("pools: {a: 1, a: 2}\n", "1:15: key `a` is given twice"),
        (f"pools: {{{', '.join(f'p{n}: 1' for n in range(9000))}}}\n", "1:1: limits: they take "),
    ],
)
def test_a_fault_names_the_place_and_what_is_allowed(directory: Path, text: str, fault: str) -> None:
    (directory / "limits.yaml").write_text(text)
    [found] = told(directory)
    assert found.startswith("schedules/limits.yaml:")
    assert fault in found
    assert not read_configuration(directory).knows_limits


def test_another_name_of_the_file_is_refused(directory: Path) -> None:
    (directory / "limits.yaml").rename(directory / "limits.yml")
    assert told(directory) == ["schedules/limits.yml: limits are read from `limits.yaml`; give it that name"]


@pytest.mark.parametrize(
    ("pools", "keys", "fault"),
    [
        ("{warehouse: 2}", "pool: warehose", "4:9 no pool `warehose` in limits.yaml; did you mean `warehouse`?"),
        (
            "{warehouse: 2}",
            "pool: gpu",
            "4:9 no pool `gpu` in limits.yaml; allowed: warehouse; or add it there, with its slots: `pools: {gpu: 2}`",
        ),
        ("{}", "pool: gpu", "4:9 no pool `gpu` in limits.yaml; or add it there, with its slots: `pools: {gpu: 2}`"),
        ("{}", "pool: a b", "4:9 'a b' is no id; an id begins"),
        ("{}", "priority: 101", "4:13 `priority` is 101; allowed: -100 to 100, higher first"),
        ("{}", "priority: high", '4:13 `priority`: expected a whole number, got "high"'),
        ("{}", "priority: 1.5", "4:13 `priority`: expected a whole number, got 1.5"),
    ],
)
def test_what_a_schedule_says_of_limits_is_checked(directory: Path, pools: str, keys: str, fault: str) -> None:
    (directory / "limits.yaml").write_text(f"pools: {pools}\n")
    (directory / "a.yaml").write_text(f"{GOOD}  {keys}\n")
    [found] = told(directory)
    place, _, message = fault.partition(" ")
    assert found.startswith(f"schedules/a.yaml:{place}: schedule `good`: {message}")


def test_pools_are_not_missed_while_their_file_has_a_fault(directory: Path) -> None:
    (directory / "a.yaml").write_text(f"{GOOD}  pool: warehouse\n  priority: 3\n")
    [schedule] = read_configuration(directory).schedules
    assert (schedule.pool, schedule.priority) == ("warehouse", 3)
    (directory / "limits.yaml").write_text("pools: {warehouse: none}\n")
    assert len(told(directory)) == 1
    (directory / "limits.yaml").unlink()
    assert "no pool `warehouse`" in told(directory)[0]


@pytest.mark.parametrize("change", [lambda f: f.write_text("pools: {}\n"), lambda f: f.unlink()])
def test_a_changed_file_changes_the_signature(directory: Path, change: Callable[[Path], object]) -> None:
    configuration = read_configuration(directory)
    assert signature(configuration) == configuration.signature
    change(directory / "limits.yaml")
    assert signature(configuration) != configuration.signature


# -- on record -------------------------------------------------------------------------------------------------------


def test_limits_are_on_record_when_they_change_and_only_then(directory: Path, tmp_path: Path) -> None:
    store = StateStore(EventLog(tmp_path / "log", fsync="off"))

    def record(text: str) -> list[dict[str, Any]]:
        (directory / "limits.yaml").write_text(text)
        record_configuration(store, read_configuration(directory), NOW)
        return [
            event for event in LogReader(store.log.path, from_start=True).read() if event["event"] == "limits_loaded"
        ]

    first = record(LIMITS)
    acme = {"max_parallel": 5, "weight": 2}
    assert [(event["pools"], event["tenants"]) for event in first] == [({"warehouse": 2}, {"acme": acme, "globex": {}})]
    assert record(f"# the same\n{LIMITS}") == first
    # What cannot be read changes nothing.
    assert record("pools: {warehouse: many}\n") == first
    assert store.history.limits.pools == {"warehouse": 2}
    (again,) = record("pools: {warehouse: 3}\n")[1:]
    assert (again["pools"], again["tenants"]) == ({"warehouse": 3}, {})
    assert len(record("")) == 3
    assert store.history.limits == Limits()
    store.close()


def test_a_directory_without_limits_records_none(directory: Path, tmp_path: Path) -> None:
    (directory / "limits.yaml").unlink()
    store = StateStore(EventLog(tmp_path / "log", fsync="off"))
    record_configuration(store, read_configuration(directory), NOW)
    assert [event["event"] for event in LogReader(store.log.path, from_start=True).read()] == ["schedules_loaded"]
    store.close()


def test_a_checkpoint_carries_the_limits(tmp_path: Path) -> None:
    store = StateStore(EventLog(tmp_path / "log", fsync="off"))
    limits = Limits({"p": 2}, {"t": Tenant(max_parallel=3)})
    record_configuration(store, Configuration("d", [], [], (), (), limits=limits), NOW)
    assert store.rotate(1)
    store.close()
    assert History(LogReader(tmp_path / "log").read()).limits == limits


# -- a real service --------------------------------------------------------------------------------------------------


def at_once(service: Service, *schedules: str) -> int:
    """Return how many runs of these schedules were at work at once, at most."""
    most, running = 0, set()
    for event in service.events():
        if event.get("schedule_id") in schedules:
            if event["event"] == "run_started":
                running.add(event["run_id"])
            elif event["event"] == "run_finished":
                running.discard(event["run_id"])
        most = max(most, len(running))
    return most


def test_a_service_keeps_a_pool_to_its_slots_and_takes_changed_ones(service: Service, wait_for: WaitFor) -> None:
    service.environ["SCHED_MAX_PARALLEL"] = "4"
    dag = service.dag("d", "sleep 0.8")
    limits = service.root / "schedules" / "limits.yaml"
    limits.write_text("pools: {license: 1}\n")
    for name in ("first", "second"):
        service.schedule(name, "@every 1s", dag, pool="license", overlap="queue")
    service.schedule("other", "@every 1s", service.dag("quick", "true"))
    supervisor = service.start()
    pooled = ("first", "second")

    def ends(*schedules: str) -> int:
        return sum(event["schedule_id"] in schedules for event in service.events("run_finished"))

    wait_for(lambda: ends(*pooled) >= 4, 30, "four runs of the pool")
    assert at_once(service, *pooled) == 1
    assert {event["schedule_id"] for event in service.events("run_started")} == {*pooled, "other"}
    # The pool has more to do than it can; the other starts each second.
    others = [event["timestamp"] for event in service.events("run_started") if event["schedule_id"] == "other"]
    assert len(others) >= 2
    shown = json.loads(tickpool(service, "status", "--json").stdout)
    assert [(pool["pool"], pool["slots"]) for pool in shown["pools"]] == [("license", 1)]
    assert "license  1      " in tickpool(service, "status").stdout

    limits.write_text("pools: {license: 2}\n")
    supervisor.send_signal(signal.SIGHUP)
    wait_for(lambda: at_once(service, *pooled) == 2, 30, "two at once")
    assert [event["pools"] for event in service.events("limits_loaded")] == [{"license": 1}, {"license": 2}]
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    audited = json.loads(tickpool(service, "audit", "--json").stdout)
    verdicts = {finding["guarantee"]: finding["verdict"] for finding in audited["findings"]}
    assert (audited["violations"], verdicts["limits"]) == ([], "proved")


def test_a_run_of_a_dead_service_keeps_its_slot_until_it_ends(service: Service, wait_for: WaitFor) -> None:
    (service.root / "schedules" / "limits.yaml").write_text("pools: {license: 1}\n")
    gate = service.root / "gate"
    dag = service.dag("d", f"while [ ! -e {gate} ]; do sleep 0.05; done")
    supervisor = service.start()
    wait_for(service.is_ready)
    service.ask(dag, "held.1", pool="license")
    wait_for(lambda: service.story("held.1"))
    supervisor.kill()
    supervisor.wait(5)
    service.start()
    wait_for(lambda: len(service.events("supervisor_started")) == 2 and service.is_ready())
    service.ask(dag, "next.1", pool="license")
    service.ask(service.dag("quick", "true"), "free.1")
    wait_for(lambda: service.has_ended("free.1"))
    assert (service.story("held.1"), service.story("next.1")) == (["run_started 1"], [])
    gate.touch()
    wait_for(lambda: service.has_ended("held.1", "next.1"))
    assert len(service.events("limits_loaded")) == 1


def tickpool(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scheduler.cli", *words]
    return subprocess.run(
        command, cwd=service.root, env=service.env(), capture_output=True, text=True, timeout=60, check=False
    )
