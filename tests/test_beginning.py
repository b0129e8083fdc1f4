"""init: a project that validates, runs and serves; and JSON Schemas, held against what the readers say."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import test_docs
from service import REPOSITORY, Service, WaitFor

from scheduler.json_schemas import schemas
from workers.yamlfile import load_yaml


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


MADE = [
    ".tickpool/calendars.schema.json",
    ".tickpool/dag.schema.json",
    ".tickpool/limits.schema.json",
    ".tickpool/schedules.schema.json",
    "dags/hello.yaml",
    "schedules/hello.yaml",
]


def test_a_project_that_was_begun_validates_runs_and_serves(tmp_path: Path, wait_for: WaitFor) -> None:
    command = [sys.executable, "-m", "scheduler.cli", "init", "my project"]
    done = subprocess.run(command, cwd=tmp_path, env=Service(tmp_path / "x").env(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sorted(line.removeprefix("Wrote my project/") for line in lines[:-1]) == MADE
    root = tmp_path / "my project"
    assert (files(root), lines[-1].startswith("Next: cd 'my project' && tickpool validate")) == (MADE, True)
    service = Service(root)
    try:
        assert service.command("validate").stdout == "2 file(s) checked, 0 fault(s)\n"
        done = service.command("run", "dags/hello.yaml", "-p", "who=you")
        assert (done.returncode, done.stdout.splitlines()[-1].split()[0]) == (0, "success")
        service.start()
        wait_for(service.is_ready, what="the service")
        done = service.command("trigger", "hello", "--wait")
        run_id = done.stdout.split()[1]
        assert (done.returncode, done.stderr) == (0, "")
        assert service.command("logs", run_id).stdout.splitlines()[-1] == "count | 5 letters"
        assert service.command("lint").returncode == 0
    finally:
        service.end()


@pytest.mark.parametrize("name", MADE)
def test_nothing_is_written_over_and_nothing_else_is_left(service: Service, name: str) -> None:
    place = service.root / "p"
    (place / name).parent.mkdir(parents=True)
    (place / name).symlink_to("nowhere")
    done = service.command("init", "p")
    told = f"p/{name}: is there already; name another directory, or remove it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    assert [str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()] == [name]


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(service: Service) -> None:
    def limited() -> None:
        # The schemas do not fit; SIGXFSZ is ignored by Python, so the write fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    command = [sys.executable, "-m", "scheduler.cli", "init", "deep/p"]
    env = service.env(COVERAGE_PROCESS_CONFIG="", COVERAGE_PROCESS_START="", PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(command, cwd=service.root, env=env, capture_output=True, text=True, preexec_fn=limited)
    assert (done.returncode, done.stdout) == (2, "")
    assert "File too large" in done.stderr
    assert not (service.root / "deep").exists()


def test_what_is_no_directory_is_told_in_a_line(service: Service) -> None:
    (service.root / "file").write_text("")
    done = service.command("init", "file/p")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in done.stderr


# -- schemas ----------------------------------------------------------------------------------------------------------


def schema(name: str) -> jsonschema.Draft202012Validator:
    found = schemas()[f"{name}.schema.json"]
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def is_good(name: str, data: Any) -> bool:
    return bool(schema(name).is_valid(data))


@pytest.mark.parametrize("name", ["schedules", "dag", "limits", "calendars"])
def test_every_schema_is_one(name: str) -> None:
    assert schema(name).schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_shipped_examples_are_good_and_name_their_schema() -> None:
    for folder, name in (("schedules", "schedules"), ("dags", "dag")):
        for path in sorted((REPOSITORY / folder).glob("*.yaml")):
            schema(name).validate(load_yaml(path).data)
            line = f"# yaml-language-server: $schema=../.tickpool/{name}.schema.json"
            assert path.read_text().splitlines()[0] == line


@pytest.mark.parametrize(("name", "text"), test_docs.yaml_blocks(), ids=[name for name, _ in test_docs.yaml_blocks()])
def test_every_yaml_in_the_docs_is_good(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(text)
    data = load_yaml(tmp_path / "it.yaml").data
    kind = "schedules" if isinstance(data, list) else "dag" if "tasks" in data else "limits"
    schema("calendars" if text.startswith("plant:") else kind).validate(data)


DAG: dict[str, Any] = {"id": "d", "tasks": [{"id": "t", "run": "true"}]}
SCHEDULE: dict[str, Any] = {"id": "s", "cron": "* * * * *", "dag": "dags/d.yaml"}


def changed(task: dict[str, Any]) -> dict[str, Any]:
    return {**DAG, "tasks": [{**DAG["tasks"][0], **task}]}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("schedules", SCHEDULE),
        ("schedules", [{**SCHEDULE, "tennant": "x"}]),
        ("schedules", [{**SCHEDULE, "overlap": "wait"}]),
        ("schedules", [{**SCHEDULE, "enabled": "maybe"}]),
        ("schedules", [{**SCHEDULE, "timeout": "5 minutes"}]),
        ("schedules", [{**SCHEDULE, "priority": "high"}]),
        ("schedules", [{**SCHEDULE, "retries": 3}]),
        ("schedules", [{**SCHEDULE, "params": ["a"]}]),
        ("schedules", [{**SCHEDULE, "tags": {"a": "b"}}]),
        ("schedules", [{**SCHEDULE, "tags": [["a"]]}]),
        ("schedules", [{**SCHEDULE, "id": "no blanks"}]),
        ("schedules", [{**SCHEDULE, "project": "."}]),
        ("schedules", [{"id": "s", "dag": "dags/d.yaml"}]),
        ("schedules", [{"id": "s", "cron": "* * * * *"}]),
        ("dag", {"id": "d"}),
        ("dag", {**DAG, "task": []}),
        ("dag", {**DAG, "tasks": {"t": {}}}),
        ("dag", changed({"rum": "true"})),
        ("dag", changed({"id": None})),
        ("dag", changed({"trigger_rule": "all_ok"})),
        ("dag", changed({"retries": {"count": 1}})),
        ("dag", changed({"timeout": "soon"})),
        ("dag", changed({"needs": {"a": 1}})),
        ("limits", {"pools": {"p": 0}}),
        ("limits", {"pool": {"p": 1}}),
        ("calendars", {"plant": {"holidays": []}}),
    ],
)
def test_a_typical_mistake_is_marked(name: str, data: Any) -> None:
    assert not is_good(name, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("schedules", [SCHEDULE, {**SCHEDULE, "timeout": 90, "jitter": "1m30s", "at": "2026-11-23T09:00:00"}]),
        ("schedules", [{"id": "s", "after": ["a", {"schedule": "b", "status": "any"}], "dag": "dags/d.yaml"}]),
        ("schedules", [{"id": "s", "every": {"period": "90s"}, "dag": "dags/d.yaml"}]),
        ("schedules", [{**SCHEDULE, "tags": ["billing", 2026]}, {**SCHEDULE, "tags": "billing"}]),
        ("dag", changed({"needs": "a", "env": {"PORT": 8080, "ON": True}})),
        ("dag", changed({"run": ["sleep", 5]})),
        ("dag", {**DAG, "on_failure": [{"run": "true"}]}),
    ],
)
def test_what_the_reader_takes_is_not_marked(name: str, data: Any) -> None:
    schema(name).validate(data)


def test_schemas_are_written_for_an_editor_and_again_over_the_old_ones(service: Service) -> None:
    for words, place in ((["--schema"], ".tickpool"), (["--schema", "a/b"], "a/b"), (["--schema"], ".tickpool")):
        done = service.command("validate", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [f"Wrote {place}/{name}" for name in schemas()]
        assert sorted(os.listdir(service.root / place)) == sorted(schemas())
        for name, found in schemas().items():
            assert json.loads((service.root / place / name).read_text()) == json.loads(json.dumps(found))
    told = json.loads(service.command("validate", "--schema", "--json").stdout)
    assert told == {"files": [f".tickpool/{name}" for name in schemas()]}
