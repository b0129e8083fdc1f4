"""Failpoints: an armed process dies exactly there, notes it, and leaves what a death at that place leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from service import Service

from workers.failpoints import POINTS

WaitFor = Callable[..., None]
OF_LOG = ("before_lock", "inside_write", "after_write")
OF_WORKER = ("after_claim", "after_effect", "before_finish")
OF_PARKING = ("before_park", "after_park")
EFFECT = 'echo "$RUN_ID $ATTEMPT" >> effects'


def _arm(service: Service, points: str, *, now: bool = True) -> dict[str, str]:
    notes = service.root / "notes"
    if now:
        notes.touch()
    return {"TICKPOOL_FAILPOINTS": f"{notes}|{points}"}


def _notes(service: Service) -> list[tuple[str, int]]:
    rows = (line.split() for line in (service.root / "notes").read_text("ascii").splitlines())
    return [(name, int(pid)) for name, pid in rows]


def _effects(service: Service) -> list[str]:
    file = service.root / "effects"
    return file.read_text("ascii").splitlines() if file.exists() else []


def test_these_tests_know_every_point() -> None:
    assert set(POINTS) == {*OF_LOG, *OF_WORKER, *OF_PARKING, "before_put"}


@pytest.mark.parametrize("word", ["--serve", "--once"])
@pytest.mark.parametrize("point", OF_LOG)
def test_a_service_and_a_single_tick_die_at_the_points_of_the_log(service: Service, point: str, word: str) -> None:
    service.schedule("s", "@every 1s", service.dag("d", EFFECT))
    process = service.start(word, **_arm(service, f"{point}=1"))
    assert process.wait(20) == -signal.SIGKILL
    assert _notes(service) == [(point, process.pid)]
    data = service.log.read_bytes() if service.log.exists() else b""
    if point == "before_lock":
        assert not data
    else:
        assert data.endswith(b"\n") == (point == "after_write")
        assert data


def test_the_line_that_was_cut_off_is_mended_by_the_next_service(service: Service, wait_for: WaitFor) -> None:
    service.start(**_arm(service, "inside_write=1")).wait(20)
    service.start()
    wait_for(service.is_ready)
    assert [event["offset"] for event in service.events("log_repaired")] == [0]


@pytest.mark.parametrize("word", ["--serve", "--once"])
def test_a_request_that_was_not_handed_over_yet_is_run_by_the_next_service(
    service: Service, wait_for: WaitFor, word: str
) -> None:
    asked = service.ask(service.dag("d", EFFECT))
    service.schedule("none", "0 0 1 1 *", "dags/d.yaml")
    process = service.start(word, **_arm(service, "before_put=1"))
    assert process.wait(20) == -signal.SIGKILL
    assert _notes(service) == [("before_put", process.pid)]
    assert service.story(asked) == []
    service.start()
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    assert _effects(service) == [f"{asked} 1"]


@pytest.mark.parametrize("point", OF_WORKER)
def test_a_worker_dies_between_its_claim_and_its_end(service: Service, wait_for: WaitFor, point: str) -> None:
    asked = service.ask(service.dag("d", EFFECT))
    supervisor = service.start(**_arm(service, f"{point}=1"))
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]
    assert _notes(service) == [(point, service.events("run_started", asked)[0]["pid"])]
    assert _effects(service) == ([] if point == "after_claim" else [f"{asked} 1"])
    assert supervisor.poll() is None


@pytest.mark.parametrize("point", OF_LOG)
def test_a_worker_dies_at_the_points_of_the_log(service: Service, wait_for: WaitFor, point: str) -> None:
    asked = service.ask(service.dag("d", "touch begun; while [ ! -e go ]; do sleep 0.02; done"))
    # Without the file nothing dies; the service itself is stopped while the file is there.
    environ = _arm(service, f"{point}=1", now=False)
    supervisor = psutil.Process(service.start(**environ).pid)
    wait_for((service.root / "begun").exists)
    (worker,) = {event["pid"] for event in service.events("run_started", asked)}
    supervisor.suspend()
    (service.root / "notes").touch()
    (service.root / "go").touch()
    wait_for(lambda: _notes(service))
    (service.root / "notes").rename(service.root / "before")
    supervisor.resume()
    wait_for(lambda: service.has_ended(asked))
    assert (service.root / "before").read_text("ascii") == f"{point} {worker}\n"
    assert service.story(asked)[-1] == "run_finished 1 crashed"


def test_a_point_without_a_chance_lets_pass(service: Service, wait_for: WaitFor) -> None:
    asked = service.ask(service.dag("d", EFFECT))
    service.start(**_arm(service, ",".join(f"{point}=0" for point in POINTS)))
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked)[-1] == "run_finished 1 success"
    assert _notes(service) == []


@pytest.mark.parametrize("points", ["before_sleep=1", "before_lock", "before_lock=2", "before_lock=often", ""])
@pytest.mark.parametrize(
    "words", [("-m", "scheduler", "--serve"), ("-m", "scheduler", "--once"), ("-m", "workers", "dags/d.yaml")]
)
def test_what_cannot_be_armed_is_one_line_and_exit_code_2(
    service: Service, words: tuple[str, ...], points: str
) -> None:
    service.dag("d", "true")
    process = service.launch(*words, **_arm(service, points))
    assert process.wait(20) == 2
    (line,) = service.err().splitlines()
    assert line.startswith("environment variable TICKPOOL_FAILPOINTS=")
    assert "before_lock, inside_write" in line


def test_no_task_inherits_the_variable(service: Service, wait_for: WaitFor) -> None:
    (service.root / "told.py").write_text("import os\ndef main():\n    return {'names': sorted(os.environ)}\n", "ascii")
    dag = service.tasks("d", {"id": "shell", "run": "env > told"}, {"id": "forked", "call": "told:main"})
    asked = service.ask(dag)
    service.start(**_arm(service, "before_lock=0"))
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked)[-1] == "run_finished 1 success"
    told = Path(service.root / "told").read_text("utf-8")
    assert "TICKPOOL_RUN=" in told
    assert "FAILPOINTS" not in told
    assert "FAILPOINTS" not in (service.root / "logs" / "orchestrator_events.jsonl").read_text("ascii")
