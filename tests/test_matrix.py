"""A matrix: one entry of a file, one schedule a combination, each with its own key."""

from __future__ import annotations

import queue
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler import tick_once
from scheduler.audit import audit
from scheduler.matrix import expand
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import read_configuration
from tests.story import Story
from workers.errors import InvalidFile

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
DAG = "id: d\nparams: {region: eu}\ntasks:\n  - id: t\n    run: 'true'\n"
LOAD = {"id": "load", "cron": "0 6 * * *", "dag": "dags/d.yaml"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "schedules").mkdir()
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.yaml").write_text(DAG)
    return tmp_path


def entry(**keys: Any) -> dict[str, Any]:
    return {**LOAD, **keys}


def fault(**keys: Any) -> str:
    with pytest.raises(InvalidFile) as caught:
        schedule_from(entry(**keys))
    (found,) = caught.value.faults
    return found.message


def test_each_combination_is_a_schedule_with_its_values_in_its_id_and_its_params() -> None:
    whole = schedule_from(entry(matrix={"region": ["eu", "us"], "tier": [1, True]}, params={"full": "no"}))
    found = {each.id: each.params for each in expand(whole)}
    assert found == {
        "load.eu-1": {"full": "no", "region": "eu", "tier": 1},
        "load.eu-true": {"full": "no", "region": "eu", "tier": True},
        "load.us-1": {"full": "no", "region": "us", "tier": 1},
        "load.us-true": {"full": "no", "region": "us", "tier": True},
    }
    assert {each.matrix_of for each in expand(whole)} == {"load"}


def test_a_schedule_without_a_matrix_is_itself() -> None:
    schedule = schedule_from(LOAD)
    assert expand(schedule) == [schedule]


def test_values_that_cannot_stand_in_an_id_are_hashed_alike_each_time() -> None:
    names = [each.id for each in expand(schedule_from(entry(matrix={"path": ["/data/a b", "../x", ""]})))]
    assert len(set(names)) == 3
    assert all(len(name.removeprefix("load.")) == 8 for name in names)
    assert names == [each.id for each in expand(schedule_from(entry(matrix={"path": ["/data/a b", "../x", ""]})))]


def test_all_combinations_fire_at_the_one_time_that_an_h_stands_for() -> None:
    combinations = expand(schedule_from(entry(cron="H H * * *", matrix={"n": list(range(20))})))
    assert len({each.fires.next(NOW) for each in combinations}) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"matrix": {"region": []}},
            "schedule `load`: `matrix.region` needs a list of texts, numbers, true or false; write at least one",
        ),
        (
            {"matrix": {"region": [["eu"]]}},
            "schedule `load`: `matrix.region` needs a list of texts, numbers, true or false; write at least one",
        ),
        (
            {"matrix": {"region": ["eu"]}, "params": {"region": "us"}},
            "schedule `load`: `region` stands in `params` and in `matrix`; write it once",
        ),
        (
            {"matrix": {"a": list(range(40)), "b": list(range(40))}},
            "schedule `load`: `matrix` has 1600 combinations; at most 1000 are allowed",
        ),
        (
            {"matrix": {"region": ["eu", "us", "eu"]}},
            "schedule `load`: `matrix` has 2 combinations that make the id `load.eu`; write each value once",
        ),
    ],
)
def test_a_matrix_that_cannot_be_is_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    assert fault(**keys) == message


def test_an_id_that_another_entry_has_is_refused_where_the_matrix_makes_it(project: Path) -> None:
    (project / "schedules" / "a.yaml").write_text(
        "- id: load.eu\n  cron: '@daily'\n  dag: dags/d.yaml\n"
        "- id: load\n  cron: '@daily'\n  dag: dags/d.yaml\n  matrix: {region: [eu]}\n"
    )
    faults = read_configuration(project / "schedules").faults
    assert [(fault.line, fault.message) for fault in faults] == [
        (4, f"schedule `load.eu`: this id is taken by {project}/schedules/a.yaml:1; ids are unique")
    ]


def test_the_dag_has_to_declare_what_the_matrix_gives(project: Path) -> None:
    (project / "schedules" / "a.yaml").write_text(
        "- id: load\n  cron: '@daily'\n  dag: dags/d.yaml\n  matrix: {regoin: [eu]}\n"
    )
    (found,) = read_configuration(project / "schedules").faults
    assert found.line == 1
    assert "regoin" in found.message


def test_a_tick_asks_for_one_run_a_combination_and_asks_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    asked: queue.Queue[dict[str, Any]] = queue.Queue()
    for _ in range(2):
        tick_once(NOW, [entry(matrix={"region": ["eu", "us"]})], asked)
    requests = [asked.get_nowait() for _ in range(asked.qsize())]
    assert [(each["run_id"], each["params"]) for each in requests] == [
        ("load.eu.20261123T0600Z", {"region": "eu"}),
        ("load.us.20261123T0600Z", {"region": "us"}),
    ]


def test_the_audit_follows_every_combination(tmp_path: Path) -> None:
    story = Story(tmp_path / "state.jsonl")
    story.begin(entry(cron="H/5 * * * *", matrix={"n": [1, 2, 3]}))
    story.live(30)
    report = audit(tmp_path / "state.jsonl", story.now)
    assert report.violations == []
    assert {effect.split(".")[1] for effect in story.effects} == {"1", "2", "3"}
