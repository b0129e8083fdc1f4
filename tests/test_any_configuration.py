"""Whatever schedules say, half right and half wrong, every command that looks at them answers with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cli import main
from scheduler.schedule_model import Schedule

DAG = "id: d\nparams: {region: us}\ntasks: [{id: t, run: 'true'}]\n"
NAMES = ["a", "b", "c", "d"]
# What people write, and next to each what they write by mistake.
WHEN: dict[str, list[Any]] = {
    "cron": ["* * * * *", ["0 9 * * MON", "30 2 * * *"], "H 2 31 2 *", "0 25 * * *", []],
    "every": ["90s", {"period": "1h", "anchor": "2026-11-23T00:00:30Z"}, "0s", "often"],
    "at": [["2026-12-24T18:00:00"], ["2020-01-01"], ["soon"], []],
    "after": ["a", ["b", "c"], {"schedule": "d", "status": ["failed", "timeout"]}, "nobody", []],
    "on_file": [{"path": "in/a.csv"}, {"path": "in/b.csv", "stable_for": "1m"}, {"path": ""}],
}
WHAT: dict[str, list[Any]] = {
    "calendar": ["plant", "plnt", {"country": "FR", "on_holiday": "next_business_day"}, {"market": "XNYS"},
                 {"name": "plant", "business_day": [3, -1]}, {"business_day": 40}],
    "blackout": [{"cron": "0 1 * * SUN", "duration": "3h", "then": "defer"}, {"from": "2026-11-20", "to": "2027-01-02"},
                 {"cron": "0 1 * * *"}, {"from": "2027-01-02", "to": "2026-12-24"}],
    "timezone": ["Europe/Paris", "Europe/Pariss"],
    "tenant": ["acme", "unknown"],
    "tags": [["billing", "nightly"], "billing", ["a b"], ["a", "a"], []],
    "pool": ["warehouse", "warehose"],
    "enabled": [False],
    "params": [{"region": "eu"}, {"regoin": "eu"}],
    "matrix": [{"region": ["eu", "us"]}, {"region": []}, {"zone": ["x"]}],
    "overlap": ["skip", "queue", "replace", "allow", "queued"],
    "max_queued": [5, 0],
    "catchup": ["latest", "all", "every"],
    "catchup_window": ["6h", "2 weeks"],
    "catchup_max": [3, 0],
    "jitter": ["10m", "-1s"],
    "start_deadline": ["30m", "0s"],
    "deadline": ["2h", "5m"],
    "on_deadline": ["dags/d.yaml", "dags/none.yaml"],
    "timeout": ["1h", "0s"],
    "retries": [2, {"max": 2, "delay": "1m"}, {"max": -1}],
    "retry_on_crash": [True],
    "priority": [10, 1000],
    "description": ["what it does"],
    "dag": ["dags/none.yaml", "../d.yaml"],
    "id": ["no id"],
    "crom": ["* * * * *"],
}  # fmt: skip


def one_of_each(choices: dict[str, list[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.lists(st.sampled_from(sorted(choices)), max_size=most, unique=True)
    return keys.flatmap(lambda names: st.fixed_dictionaries({name: st.sampled_from(choices[name]) for name in names}))


ENTRY = st.tuples(one_of_each(WHEN, 2), one_of_each(WHAT, 5)).map(lambda both: {**both[0], **both[1]})
FILES = st.lists(st.lists(ENTRY, max_size=3), max_size=2)
LIMITS = st.sampled_from(["pools: {warehouse: 1}\ntenants: {acme: {weight: 2}}\n", "pools: {warehouse: 0}\n", ""])
CALENDARS = st.sampled_from(["plant: {dates: [12-24]}\n", "plant: {dates: [24.12.]}\n", ""])


def test_every_key_is_among_those_that_are_tried() -> None:
    read = {"project", "matrix_of", "days", "file", "line"}
    assert set(Schedule.__struct_fields__) - read <= {*WHEN, *WHAT}


@settings(max_examples=120, deadline=None)
@given(files=FILES, limits=LIMITS, calendars=CALENDARS)
def test_whatever_schedules_say_every_command_that_reads_them_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: list[list[dict[str, Any]]],
    limits: str,
    calendars: str,
) -> None:
    directory = tmp_path / "schedules"
    for place in (directory, tmp_path / "dags"):
        place.mkdir(exist_ok=True)
    (tmp_path / "dags" / "d.yaml").write_text(DAG)
    (directory / "limits.yaml").write_text(limits)
    (directory / "calendars.yaml").write_text(calendars)
    names = iter(NAMES * 2)
    for file, entries in zip(("a.yaml", "b.yaml"), [*files, [], []], strict=False):
        given = [{"id": next(names), "dag": "dags/d.yaml"} | each for each in entries]
        (directory / file).write_text(json.dumps(given))
    monkeypatch.setenv("STATE_STORE_PATH", str(tmp_path / "state.jsonl"))
    faults = main(["validate", "--dir", str(directory)])
    told = capsys.readouterr()
    assert faults in (0, 1), told.err
    assert all(line.startswith(str(directory)) or "file(s)" in line for line in told.out.splitlines()), told.out
    for command in (["next", "--count", "2"], ["lint"], ["forecast", "--days", "1"]):
        code = main([*command, "--dir", str(directory)])
        told = capsys.readouterr()
        assert code in (0, 1, 2), (command, told.err)
        assert (told.out + told.err).strip(), command
