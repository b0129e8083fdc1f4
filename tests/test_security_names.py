"""No name leads out of its directory: ids, run ids, attempts, paths of DAGs, whoever wrote them.

The fixture `outside` fails a test when any file of the tree outside was as much as opened.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import NAMES, NUL, Outside, commands_in
from service import Service

from scheduler import drain_queue
from scheduler.drain import InvalidRequest
from scheduler.schedules import read_configuration
from workers.__main__ import main as run_by_hand
from workers.dag import load_dag
from workers.errors import InvalidFile
from workers.run_context import InvalidRun, RunInfo, Stop
from workers.runner import run_dag
from workers.settings import Settings
from workers.worker import Executor

ALL = {**NAMES, **NUL}
GOOD = {"id": "good", "tasks": [{"id": "t", "run": ["true"]}]}
each_name = pytest.mark.parametrize("name", ALL.values(), ids=ALL.keys())

# Paths of DAGs, none of which leads to a DAG inside the project. `{out}` is the tree outside.
PATHS = {
    **ALL,
    "outside": "../outside/dags/evil.yaml",
    "outside by a detour": "dags/../../outside/dags/evil.yaml",
    "outside and in again": "../outside/../outside/dags/evil.yaml",
    "outside absolute": "{out}/dags/evil.yaml",
    "double slash": "/{out}/dags/evil.yaml",
    "link to a file": "dags/link.yaml",
    "link to a directory": "dags/linked/evil.yaml",
    "link to the root": "dags/slash{out}/dags/evil.yaml",
    "chain of links": "dags/chain.yaml",
    "loop of links": "dags/loop.yaml",
    "relative link": "dags/relative.yaml",
    "link to a FIFO": "dags/fifo.yaml",
    "descriptor": "dags/slash/proc/self/fd/0",
    "directory": "dags",
    "below a file": "dags/good.yaml/x",
    "newline in the middle": "dags/good.yaml\n",
}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


@pytest.fixture
def project(outside: Outside, tmp_path: Path, monkeypatch: Any) -> Path:
    """A project with a good DAG, and links of all kinds that lead out of it; the current directory."""
    monkeypatch.chdir(tmp_path / "project")
    dags = tmp_path / "project" / "dags"
    (dags / "good.yaml").write_text(json.dumps(GOOD))
    (dags / "link.yaml").symlink_to(outside.dag)
    (dags / "linked").symlink_to(outside.dag.parent)
    (dags / "slash").symlink_to("/")
    (dags / "step.yaml").symlink_to("link.yaml")
    (dags / "chain.yaml").symlink_to("step.yaml")
    (dags / "loop.yaml").symlink_to("loop.yaml")
    (dags / "relative.yaml").symlink_to("../../outside/dags/evil.yaml")
    os.mkfifo(tmp_path / "fifo")
    (dags / "fifo.yaml").symlink_to(tmp_path / "fifo")
    return dags.parent


@pytest.fixture
def executor(project: Path) -> Iterator[Callable[..., str]]:
    """Execute a request as a worker does; return the run's status and reason."""
    logs = project / "logs"
    places = {"state_path": "state.jsonl", "events_path": "events.jsonl", "run_logs_dir": "runs"}
    worker = Executor(Settings(**{name: str(logs / place) for name, place in places.items()}))
    stop = Stop()

    def execute(**fields: Any) -> str:
        request = {"event": "run_requested", "run_id": "r1", "attempt": 1, "dag": "dags/good.yaml"}
        result = worker.execute({**request, "project": str(project), **fields}, stop, ask_first=True)
        return f"{result.status} {result.reason}"

    yield execute
    stop.close()


def told(faults: list[Any]) -> str:
    """Return the one line that a person is told; there must be one, and nothing in it that commands a terminal."""
    assert faults
    text = str(faults[0])
    assert not commands_in(text.encode("utf-8", "surrogateescape"))
    assert "\n" not in text
    assert len(text) < 1500
    return text


# -- ids ---------------------------------------------------------------------------------------------------------


@each_name
@pytest.mark.parametrize("key", ["id", "tenant"])
def test_no_schedule_has_a_hostile_id_or_tenant(project: Path, key: str, name: str) -> None:
    entry = {"id": "s", "cron": "* * * * *", "dag": "dags/good.yaml", key: name}
    (project / "schedules" / "s.yaml").write_text(json.dumps([entry]))
    configuration = read_configuration(project / "schedules")
    told(configuration.faults)
    assert configuration.schedules == []


@each_name
@pytest.mark.parametrize("key", ["id", "task", "hook", "params", "env"])
def test_no_dag_task_hook_param_or_variable_has_a_hostile_name(project: Path, key: str, name: str) -> None:
    entries = {
        "id": {"id": name},
        "task": {"tasks": [{"id": name, "run": ["true"]}]},
        "hook": {"on_exit": [{"id": name, "run": ["true"]}]},
        "params": {"params": {name: "x"}},
        "env": {"env": {name: "x"}},
    }
    (project / "dags" / "d.yaml").write_text(json.dumps({**GOOD, **entries[key]}))
    with pytest.raises(InvalidFile) as caught:
        load_dag(Path("dags/d.yaml"), project)
    told(list(caught.value.faults))


@each_name
def test_no_run_has_a_hostile_id(project: Path, name: str) -> None:
    with pytest.raises(InvalidRun) as caught:
        run_dag("dags/good.yaml", project=project, run=RunInfo(name))
    told([repr(str(caught.value))[:1000]])
    if name:  # an empty one is made up
        with pytest.raises(InvalidRequest):
            drain_queue(_queue(run_id=name, dag="dags/good.yaml", project=str(project)))
    assert not (project / "logs").exists()


@pytest.mark.parametrize("attempt", [0, -1, True, 1.5, "1", "../../outside", "1/../../../x", None, [1]])
def test_no_run_has_a_hostile_attempt(project: Path, attempt: Any) -> None:
    with pytest.raises(InvalidRun):
        run_dag("dags/good.yaml", project=project, run=RunInfo("r1", attempt=attempt))
    with pytest.raises(InvalidRequest):
        drain_queue(_queue(run_id="r1", attempt=attempt, dag="dags/good.yaml", project=str(project)))
    assert not (project / "logs").exists()


def test_the_longest_ids_still_make_runs(project: Path) -> None:
    longest = "x" * 128
    dag = {"id": longest, "tasks": [{"id": longest, "run": ["echo", "hi"]}]}
    (project / "dags" / "d.yaml").write_text(json.dumps(dag))
    by_hand = run_dag("dags/d.yaml", project=project)
    (by_schedule,) = drain_queue(
        _queue(schedule_id=longest, minute="2026-11-23T09:00:00Z", dag="dags/d.yaml", project=str(project))
    )
    assert (by_hand["status"], by_schedule["status"]) == ("success", "success")


def test_a_service_passes_over_hostile_requests_in_its_log(outside: Outside, tmp_path: Path, wait_for: Any) -> None:
    service = Service(tmp_path / "project")
    good = service.dag("good", "true")
    try:
        for name in ALL.values():
            service.ask(good, name or "../empty")
            service.ask(good, schedule_id=name or "../empty")
        for attempt in (-1, 0, "../../x", 1.5, True, None, 10**30):
            service.ask(good, attempt=attempt)
        for field in ("dag", "project", "params", "minute", "timeout_s"):
            for value in (["x"], 7, {"a": 1}, "../../outside", str(outside.dag), "\x1b[2J", "x" * 3000):
                service.ask(**{"dag": good, field: value})
        last = service.ask(good, "the.last.one")
        service.start()
        wait_for(lambda: service.has_ended(last), 60, "the end of the last run")
        ids = {event["run_id"] for event in service.events("run_started")}
        assert all(set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789.") for run_id in ids)
        assert {path.name for path in (service.root / "logs" / "runs").iterdir()} <= {*ids, ".dags"}
        assert service.story(last) == ["run_started 1", "run_finished 1 success"]
        assert not commands_in(service.err().encode())
        assert "Traceback" not in service.err()
    finally:
        service.end()


# -- paths -------------------------------------------------------------------------------------------------------


@each_path
def test_no_schedule_leads_to_a_dag_outside(project: Path, outside: Outside, path: str) -> None:
    entry = {"id": "s", "cron": "* * * * *", "dag": path.replace("{out}", str(outside.root))}
    (project / "schedules" / "s.yaml").write_text(json.dumps([entry]))
    configuration = read_configuration(project / "schedules")
    told(configuration.faults)
    assert configuration.schedules == []


@each_path
def test_no_request_leads_to_a_dag_outside(executor: Callable[..., str], outside: Outside, path: str) -> None:
    end = executor(dag=path.replace("{out}", str(outside.root)))
    assert end.startswith("failed ")
    assert "internal error" not in end
    told([repr(end)])


@each_path
def test_no_command_line_leads_to_a_dag_outside(project: Path, outside: Outside, capsys: Any, path: str) -> None:
    named = os.path.join(project, path.replace("{out}", str(outside.root)))
    assert run_by_hand(["--project", str(project), "--", named]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    told(err.splitlines())


PROJECTS = ["..", "../outside", "x/../../outside", "a\0b", "x\n", "\x1b[2J", 7, ["/"], True, "%2e%2e/outside"]


@pytest.mark.parametrize("named", PROJECTS, ids=repr)
def test_no_request_names_a_hostile_project(executor: Callable[..., str], named: Any) -> None:
    end = executor(project=named, dag="dags/evil.yaml")
    assert end.startswith("failed ")
    assert "internal error" not in end


def test_a_path_that_changes_while_it_is_opened_never_leads_outside(project: Path, outside: Outside) -> None:
    place, spare, done = project / "dags" / "flip.yaml", project / "dags" / "spare", threading.Event()
    place.symlink_to("good.yaml")

    def flip() -> None:
        while not done.is_set():
            for target in (outside.dag, "good.yaml"):
                os.symlink(target, spare)
                os.rename(spare, place)

    flipping = threading.Thread(target=flip)
    flipping.start()
    ends = {"good": 0, "refused": 0}
    try:
        while min(ends.values()) < 200:
            try:
                ends[load_dag(Path("dags/flip.yaml"), project).id] += 1
            except InvalidFile as error:
                ends["refused"] += "lies outside the project" in str(error)
    finally:
        done.set()
        flipping.join()


@pytest.mark.parametrize("cwd", ["..", "../outside", "x/../../outside", "", "a\0b", "${run.id}"])
def test_no_relative_cwd_leaves_the_project(project: Path, cwd: str) -> None:
    for dag in ({**GOOD, "cwd": cwd}, {**GOOD, "tasks": [{"id": "t", "run": ["true"], "cwd": cwd}]}):
        (project / "dags" / "d.yaml").write_text(json.dumps(dag))
        with pytest.raises(InvalidFile) as caught:
            load_dag(Path("dags/d.yaml"), project)
        assert "`cwd`" in told(list(caught.value.faults))


@pytest.mark.parametrize("cwd", ["..%2foutside", "%2e%2e", "\uff0e\uff0e", "..\\outside", "nowhere\n"])
def test_a_cwd_that_is_no_directory_is_its_tasks_failure(project: Path, cwd: str) -> None:
    (project / "dags" / "d.yaml").write_text(json.dumps({**GOOD, "cwd": cwd}))
    ended = run_dag("dags/d.yaml", project=project)
    assert ended["status"] == "failed"
    assert "cannot enter the working directory" in ended["reason"]


def _queue(**request: Any) -> queue.Queue[Any]:
    requests: queue.Queue[Any] = queue.Queue()
    requests.put(request)
    return requests
