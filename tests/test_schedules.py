"""Schedule files: what is read, what is refused, and where the fault is."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import load_schedules
from scheduler.schedule_model import Schedule
from scheduler.schedule_rules import schedule_from
from scheduler.schedules import NoSchedules, read_configuration, signature, validate
from workers.errors import Fault, InvalidFile

DAG = 'id: a\nparams: {region: us}\ntasks:\n  - id: t\n    run: ["true"]\n'
GOOD = "- id: good\n  cron: '* * * * *'\n  dag: dags/a.yaml\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.yaml").write_text(DAG)
    (tmp_path / "schedules").mkdir()
    return tmp_path / "schedules"


def told(directory: Path) -> list[str]:
    """Return the faults without the directory in their paths."""
    return [str(fault).replace(f"{directory.parent}/", "") for fault in read_configuration(directory).faults]


def entry(**fields: Any) -> str:
    return json.dumps([{"id": "x", "cron": "* * * * *", "dag": "dags/a.yaml", **fields}])


def test_all_files_of_a_directory_are_read_in_order(directory: Path) -> None:
    (directory / "b.yml").write_text("- id: last\n  cron: '@daily'\n  dag: dags/a.yaml\n")
    (directory / "a.yaml").write_text(GOOD + "- {id: second, cron: '0 9 * * MON', dag: dags/a.yaml, enabled: false}\n")
    for ignored in (".hidden.yaml", "notes.txt", "a.yaml~", "a.yaml.bak"):
        (directory / ignored).write_text("{")
    schedules = load_schedules(directory)
    assert [schedule.id for schedule in schedules] == ["good", "second", "last"]
    assert [schedule.enabled for schedule in schedules] == [True, False, True]
    assert [(Path(schedule.file).name, schedule.line) for schedule in schedules] == [
        ("a.yaml", 1),
        ("a.yaml", 4),
        ("b.yml", 1),
    ]
    assert {schedule.project for schedule in schedules} == {str(directory.parent)}


def test_the_whole_format_is_read(directory: Path) -> None:
    (directory / "a.yaml").write_text(
        "- id: daily_report\n  cron: '0 9 * * MON-FRI'\n  timezone: Europe/Paris\n  dag: dags/a.yaml\n"
        "  tags: [billing, nightly]\n"
        "  tenant: acme-corp\n  description: figures\n  params: {region: eu}\n  overlap: queue\n  catchup: all\n"
        "  catchup_window: 24h\n  timeout: 1h\n  retry_on_crash: true\n"
        "  retries: {max: 2, delay: 10s, backoff: 2, max_delay: 5m, jitter: true}\n"
    )
    [schedule] = load_schedules(directory)
    assert (schedule.tenant, schedule.timezone, schedule.zone.key) == ("acme-corp", "Europe/Paris", "Europe/Paris")
    assert schedule.tags == ["billing", "nightly"]
    assert (schedule.overlap, schedule.catchup, schedule.catchup_window) == ("queue", "all", timedelta(days=1))
    assert (schedule.params, schedule.timeout) == ({"region": "eu"}, timedelta(hours=1))
    assert (schedule.retries.max, schedule.retries.delay, schedule.retry_on_crash) == (2, timedelta(seconds=10), True)


def test_an_empty_directory_and_an_empty_file_hold_no_schedules(directory: Path) -> None:
    assert load_schedules(directory) == []
    (directory / "a.yaml").write_text("# nothing yet\n")
    assert (load_schedules(directory), told(directory)) == ([], [])


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoSchedules, match="none: no such directory; name a directory of schedule files with --dir"):
        load_schedules(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(NoSchedules, match="file: is not a directory"):
        load_schedules(str(tmp_path / "file"))


def test_a_bad_file_does_not_cost_the_schedules_of_another(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    (directory / "bad.yaml").write_text(
        "- id: bad\n  cron: 61 * * * *\n  dag: dags/a.yaml\n" + GOOD.replace("good", "near")
    )
    (directory / "good.yaml").write_text(GOOD)
    assert [schedule.id for schedule in load_schedules(directory)] == ["good"]
    assert "schedules/bad.yaml:2:9: schedule `bad`: cron `61 * * * *`: minute `61` is out of range" in caplog.text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id: x\n", "schedules/a.yaml:1:1: a schedule file is a list; begin each schedule with `- id: name`"),
        ("just text\n", "schedules/a.yaml:1:1: a schedule file is a list; begin each schedule with `- id: name`"),
        ("- x\n- [1]\n", "schedules/a.yaml:1:3: a schedule is a mapping: `- id: name`, then its keys below"),
        ("- cron: '* * * * *'\n  dag: dags/a.yaml\n", "schedules/a.yaml:1:3: schedule: `id` is missing"),
        (
            "- id: x\n  cron: */5 * * * *\n",
            'schedules/a.yaml:2:9: a text that begins with `*` must be quoted; quote it: "*/5 * * * *"',
        ),
        (GOOD + "  crom: x\n", "4:3 unknown key `crom`; did you mean `cron`?"),
        (GOOD + "  file: x\n", "4:3 unknown key `file`"),
        (GOOD + "  notify: {on_failure: [ops]}\n", "4:3 `notify` is not available in this version"),
        (GOOD + "  overlap: skipp\n", '4:12 `overlap`: "skipp" is not one of its values; did you mean `skip`?'),
        (
            GOOD + "  catchup_window: 1h\n",
            "4:19 `catchup_window` has no meaning without `catchup: latest` or `catchup: all`",
        ),
        (
            GOOD + "  catchup: all\n",
            "4:12 `catchup: all` would be skipped by `overlap: skip`; write `overlap: queue` or `overlap: allow`",
        ),
        (GOOD + "  timezone: Europe/Pari\n", "4:13 unknown time zone 'Europe/Pari'; did you mean `Europe/Paris`?"),
        (GOOD + "  timezone: ../UTC\n", "4:13 unknown time zone '../UTC'"),
        (GOOD + "  timezone: Europe\n", "4:13 unknown time zone 'Europe'; did you mean"),
        (
            GOOD + "  timezone: Qqqq\n",
            "4:13 unknown time zone 'Qqqq'; allowed: the names of the IANA database, such as",
        ),
        (GOOD + "  enabled: on\n", '4:12 `enabled`: expected true or false, got "on"'),
        (GOOD + "  timeout: soon\n", "4:12 `timeout`: 'soon' is not a duration"),
        (GOOD + "  params: {regoin: eu}\n", "4:11 dag `a` has no param `regoin`; did you mean `region`?"),
        (GOOD + "  tenant: a b\n", "4:11 'a b' is no id"),
        (GOOD + "  tag: [a]\n", "4:3 unknown key `tag`; did you mean `tags`?"),
        (GOOD + "  tags: [a, b c]\n", "4:9 `tags`: 'b c' is no id; an id begins with a letter or digit and holds"),
        (GOOD + "  tags: [a, '']\n", "4:9 `tags`: '' is no id"),
        (GOOD + "  tags: [a, b, a]\n", "4:9 `tags`: 'a' stands there 2 times; write it once"),
        (GOOD + "  tags: {a: b}\n", "4:9 `tags`: expected a list of texts, got a mapping"),
        (GOOD + "  tags: [a, [b]]\n", "4:13 `tags[1]`: expected a text, got a list"),
        (
            GOOD + f"  tags: {[f't{number}' for number in range(21)]}\n",
            "4:9 `tags`: there are 21; at most 20 are allowed",
        ),
        (GOOD.replace("good", "a/b"), "schedules/a.yaml:1:7: schedule `a/b`: 'a/b' is no id"),
        (GOOD.replace("dags/a.yaml", "dags/b.yaml"), "3:8 no such file 'dags/b.yaml' in "),
        (GOOD.replace("dags/a.yaml", "../a.yaml"), "3:8 '../a.yaml' lies outside the project "),
        (GOOD.replace("dags/a.yaml", "/etc/hostname"), "3:8 '/etc/hostname' lies outside the project "),
        (GOOD.replace("dags/a.yaml", "."), "3:8 '.' lies outside the project "),
        (GOOD.replace("dags/a.yaml", '"dags/a\\0.yaml"'), "3:8 'dags/a\\x00.yaml' is no path; "),
        (GOOD.replace("dags/a.yaml", "''"), "3:8 '' is no path; "),
        (GOOD.replace("dags/a.yaml", "dags"), "dags: is a directory"),
        (GOOD.replace("dags/a.yaml", "dags/a.yaml/b.yaml"), "3:8 no such file "),
    ],
)
def test_a_fault_names_the_place_and_what_is_allowed(directory: Path, text: str, fault: str) -> None:
    (directory / "a.yaml").write_text(text)
    faults = told(directory)
    place, _, message = fault.partition(" ")
    if not place.endswith(":"):
        fault = f"schedules/a.yaml:{place}: schedule `good`: {message}"
    assert faults[0].startswith(fault), faults[0]
    assert load_schedules(directory) == []


def test_every_fault_of_a_file_is_told(directory: Path) -> None:
    (directory / "a.yaml").write_text("- id: x y\n  cron: '1'\n  timezone: Mars\n  dag: dags/a.yaml\n- 5\n")
    assert [fault.line for fault in read_configuration(directory).faults] == [1, 2, 3, 5]


def test_an_id_given_twice_names_the_other_place(directory: Path) -> None:
    (directory / "a.yaml").write_text(GOOD)
    (directory / "b.yaml").write_text(GOOD.replace("good", "other") + GOOD)
    taken = f"this id is taken by {directory}/a.yaml:1; ids are unique"
    assert [fault.message for fault in read_configuration(directory).faults] == [f"schedule `good`: {taken}"]
    assert [(s.id, Path(s.file).name) for s in load_schedules(directory)] == [("good", "a.yaml")]
    (directory / "a.yaml").write_text(GOOD + GOOD)
    (directory / "b.yaml").unlink()
    assert told(directory) == [f"schedules/a.yaml:4:7: schedule `good`: {taken}".replace(f"{directory.parent}/", "")]


def test_a_dag_that_leads_out_of_the_project_by_a_link_is_refused(directory: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.yaml"
    outside.write_text(DAG)
    (tmp_path / "dags" / "a.yaml").unlink()
    (tmp_path / "dags" / "a.yaml").symlink_to(outside)
    (directory / "a.yaml").write_text(GOOD)
    assert "'dags/a.yaml' lies outside the project" in told(directory)[0]


@pytest.mark.parametrize("path", ["dags/../dags/a.yaml", "./dags/a.yaml", "dags/link.yaml"])
def test_a_dag_inside_the_project_is_found_however_it_is_written(directory: Path, path: str) -> None:
    (directory.parent / "dags" / "link.yaml").symlink_to("a.yaml")
    (directory / "a.yaml").write_text(entry(dag=path))
    assert [schedule.dag for schedule in load_schedules(directory)] == [path]


def test_a_project_may_lie_behind_a_link(directory: Path, tmp_path: Path) -> None:
    (directory / "a.yaml").write_text(GOOD)
    (tmp_path / "link").symlink_to(directory.parent)
    assert [schedule.id for schedule in load_schedules(tmp_path / "link" / "schedules")] == ["good"]


def test_a_bad_dag_makes_its_schedules_bad_and_is_told_once(directory: Path) -> None:
    (directory.parent / "dags" / "bad.yaml").write_text(DAG + "    retires: 2\n")
    (directory / "a.yaml").write_text(
        "\n".join(GOOD.replace("good", f"s{n}").replace("a.yaml", "bad.yaml") for n in (1, 2))
    )
    (directory / "b.yaml").write_text(GOOD)
    assert told(directory) == [
        "dags/bad.yaml:6:5: task `t`: unknown key `retires`; did you mean `retries`?",
        "schedules/a.yaml:7:8: schedule `s2`: dags/bad.yaml has faults",
    ]
    assert [schedule.id for schedule in load_schedules(directory)] == ["good"]


@pytest.mark.parametrize("make", ["directory", "fifo", "dangling"])
def test_what_is_no_file_is_a_fault_and_does_not_block(directory: Path, make: str) -> None:
    place = directory / "a.yaml"
    {"directory": place.mkdir, "fifo": lambda: os.mkfifo(place), "dangling": lambda: place.symlink_to("nowhere")}[
        make
    ]()
    (directory / "b.yaml").write_text(GOOD)
    [fault] = told(directory)
    assert fault.startswith("schedules/a.yaml: ")
    assert len(load_schedules(directory)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_a_fault(directory: Path) -> None:
    (directory / "a.yaml").write_text(GOOD)
    (directory / "a.yaml").chmod(0)
    assert told(directory) == ["schedules/a.yaml: cannot be read: Permission denied"]


def test_params_that_would_not_fit_in_a_line_of_the_log_are_refused(directory: Path) -> None:
    (directory / "a.yaml").write_text(entry(params={"region": "é" * 6000}))
    [fault] = told(directory)
    assert "schedule `x`: `params` take 36014 bytes as JSON; at most 32768 are allowed" in fault


def test_schedules_that_are_written_alike_share_what_is_compiled(directory: Path) -> None:
    (directory / "a.yaml").write_text(
        GOOD + GOOD.replace("good", "twin") + GOOD.replace("good", "h").replace("* *", "H *", 1)
    )
    good, twin, hashed = load_schedules(directory)
    assert good.fires is twin.fires
    assert hashed.fires.seed == "h"


def test_a_mapping_becomes_a_schedule_as_a_file_would(tmp_path: Path) -> None:
    schedule = schedule_from(
        {"id": "x", "cron": "0 9 * * *", "dag": "d.yaml", "catchup": "latest", "catchup_window": "1h"}
    )
    assert (schedule.catchup_window, schedule.enabled) == (timedelta(hours=1), True)
    assert schedule_from(schedule) is schedule
    with pytest.raises(InvalidFile, match="schedule `x`: unknown key `crom`; did you mean `cron`"):
        schedule_from({"id": "x", "crom": "0 9 * * *", "dag": "d.yaml"})
    with pytest.raises(InvalidFile, match="schedule `x` cannot be written as JSON"):
        schedule_from({"id": "x", "cron": "0 9 * * *", "dag": "d.yaml", "params": {"when": object()}})


def test_validate_checks_dags_that_no_schedule_names_too(directory: Path) -> None:
    (directory / "a.yaml").write_text(entry(dag="dags/../dags/a.yaml"))
    (directory.parent / "dags" / "unused.yaml").write_text("id: u\n")
    checked, faults = validate(directory)
    assert [Path(place).name for place in checked] == ["a.yaml", "unused.yaml", "a.yaml"]
    assert [str(fault) for fault in faults] == ["dags/unused.yaml:1:1: dag `u`: `tasks` is missing"]


def test_a_signature_changes_only_when_a_file_does(directory: Path) -> None:
    (directory / "a.yaml").write_text(GOOD)
    configuration = read_configuration(directory)
    assert signature(configuration) == configuration.signature
    (directory / "new.yaml").write_text("")
    assert signature(configuration) != configuration.signature


@pytest.mark.parametrize("name", [".", "../schedules", "{}"])
def test_a_signature_is_stable_however_the_directory_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (directory / "a.yaml").write_text(entry(dag="schedules/beside.dag"))
    (directory / "b.yaml").write_text("")
    (directory / "beside.dag").write_text(DAG)
    monkeypatch.chdir(directory)
    configuration = read_configuration(Path(name.format(directory)))
    assert (configuration.faults, len(configuration.schedules)) == ([], 1)
    assert signature(configuration) == configuration.signature
    (directory / "b.yaml").unlink()
    again = read_configuration(Path(configuration.directory))
    assert signature(configuration) == signature(again) == again.signature != configuration.signature


KEYS = [*Schedule.__struct_fields__, "crom", "priority", "1", ""]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=6))
    | st.sampled_from(
        ["* * * * *", "dags/a.yaml", "all", "queue", "latest", "1h", "UTC", "a", "../a", "\ud800", "/", "H H * * *"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "max", "delay"]), inner, max_size=4)
    ),
    max_leaves=8,
)
ENTRY = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8).map(
    lambda fields: {"id": "x", "cron": "* * * * *", "dag": "dags/a.yaml"} | fields
)
FUZZ = settings(max_examples=150, deadline=None)


@FUZZ
@given(st.lists(ENTRY | VALUES, max_size=3))
def test_whatever_a_file_holds_there_are_only_schedules_and_faults(directory: Path, data: list[Any]) -> None:
    (directory / "a.yaml").write_text(json.dumps(data))
    configuration = read_configuration(directory)
    assert all(isinstance(each, Schedule) for each in configuration.schedules)
    for fault in configuration.faults:
        assert isinstance(fault, Fault)
        assert "\n" not in str(fault)
    assert configuration.faults or len(configuration.schedules) == len(data)


@FUZZ
@given(
    st.binary(max_size=80)
    | st.text(alphabet="-: \n\t'\"{}[]*&!|>%@`#,?idcronags/0\u00e9\x85", max_size=80).map(str.encode)
)
def test_whatever_the_bytes_of_a_file_there_are_only_schedules_and_faults(directory: Path, data: bytes) -> None:
    (directory / "a.yaml").write_bytes(GOOD.encode() + data)
    configuration = read_configuration(directory)
    assert all("\n" not in str(fault) for fault in configuration.faults)


@FUZZ
@given(st.dictionaries(st.sampled_from(KEYS), VALUES | st.just(object()), max_size=8))
def test_whatever_a_mapping_holds_it_is_a_schedule_or_an_invalid_file(fields: dict[str, Any]) -> None:
    with suppress(InvalidFile):
        schedule = schedule_from({"id": "x", "cron": "* * * * *", "dag": "d.yaml", **fields})
        assert schedule.fires.expr == schedule.cron


def test_an_unknown_or_a_missing_key_hides_no_other_fault(tmp_path: Path) -> None:
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules" / "s.yaml").write_text(
        '- id: s\n  cron: "0 25 * * *"\n  tenat: x\n  timezone: Europe/Pariss\n'
    )
    told = "\n".join(map(str, read_configuration(tmp_path / "schedules").faults))
    assert told.count("s.yaml:") == 4, told
    for part in (
        "hour `25` is out of range",
        "did you mean `tenant`?",
        "did you mean `Europe/Paris`?",
        "`dag` is missing",
    ):
        assert part in told
