"""The JSON of the commands: the reference names each key, and real output has no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from service import Service

from scheduler.forecast_facts import ForecastFacts
from scheduler.run_stats import ScheduleStats
from scheduler.run_view import RunFacts
from scheduler.status import Status
from scheduler.task_view import AttemptFacts, TaskFacts

REFERENCE = (Path(__file__).resolve().parents[1] / "docs" / "reference.md").read_text("utf-8")


def documented(title: str) -> dict[str, dict[str, str]]:
    """Return what each table of a section says of each key, by the list that its head says they are of."""
    found = re.search(rf"^{title} --json`\n(.*?)(?=^##)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert found, title
    tables: dict[str, dict[str, str]] = {}
    for head, rows in re.findall(r"^\| key(.*?) \| is \|\n\|---\|---\|\n((?:\|.*\n)+)", found[1], re.MULTILINE):
        cells = re.findall(r"^\|([^|]*)\|(.*)\|$", rows, re.MULTILINE)
        name = re.sub(r" of|`| ", "", head)
        tables[name] = {key: told for names, told in cells for key in re.findall(r"`([^`]+)`", names)}
    return tables


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command prints of two runs of a real service, one asked for, one that failed and was retried."""
    service = Service(tmp_path_factory.mktemp("project"))
    try:
        tasks = [
            {"id": "a", "run": 'echo n=1 >> "$TASK_OUTPUT"; echo hi'},
            {"id": "b", "run": "exit 1", "needs": ["a"]},
        ]
        service.schedule("s", "5 15 23 11 *", service.tasks("d", *tasks), retries={"max": 1})
        assert service.command("tick", "--now", "2026-11-23T15:05:00Z").returncode == 1
        first = service.events("run_finished")[0]["run_id"]
        service.command("trigger", "s")
        assert service.command("tick", "--now", "2026-11-23T15:05:00Z").returncode == 1
        (second,) = [event["run_id"] for event in service.events("run_requested")]

        def printed(*words: str) -> str:
            done = service.command(*words, "--json")
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        found = {
            "runs": json.loads(printed("runs")),
            "show": json.loads(printed("show", first)),
            "diff": json.loads(printed("diff", first, second)),
            "stats": json.loads(printed("stats")),
            "logs": [json.loads(line) for line in printed("logs", first).splitlines()],
        }
    finally:
        service.end()
    return found


@pytest.mark.parametrize("command", ["show", "diff"])
def test_an_object_has_the_keys_of_the_reference(outputs: dict[str, Any], command: str) -> None:
    tables = documented(f"### `{command}")
    assert outputs[command].keys() == tables.pop("").keys()
    for name, keys in tables.items():
        assert outputs[command][name], name
        for row in outputs[command][name]:
            assert row.keys() == keys.keys(), name


@pytest.mark.parametrize("command", ["stats", "logs"])
def test_each_of_a_list_has_the_keys_of_the_reference(outputs: dict[str, Any], command: str) -> None:
    assert outputs[command]
    for row in outputs[command]:
        assert row.keys() == documented(f"### `{command}")[""].keys()


def test_an_end_has_no_key_that_the_reference_lacks_and_all_of_them_have_each(outputs: dict[str, Any]) -> None:
    rows = outputs["runs"]
    assert len(rows) == 2
    assert set().union(*rows) == documented("### `runs")[""].keys()
    assert {row["for_schedule"] for row in rows if "for_schedule" in row} == {"s"}
    assert {row["tenant"] for row in rows} == {"test"}


def structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the structs that a field of this type may hold, and those that they hold."""
    parts = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        parts = tuple(get_type_hints(kind).values())
    for each in parts:
        yield from structs_in(each)


def keys_of(struct: type[msgspec.Struct]) -> set[str]:
    """Return the keys of a struct as JSON."""
    tag = struct.__struct_config__.tag_field
    return {*struct.__struct_encode_fields__, *([tag] if tag else [])}


@pytest.mark.parametrize(
    ("section", "table", "struct"),
    [
        ("## `status", "", Status),
        ("### `forecast", "", ForecastFacts),
        ("### `show", "", RunFacts),
        ("### `show", "attempts", AttemptFacts),
        ("### `show", "tasks", TaskFacts),
        ("### `stats", "", ScheduleStats),
    ],
)
def test_the_reference_has_exactly_the_fields_of_what_is_told(
    section: str, table: str, struct: type[msgspec.Struct]
) -> None:
    tables = documented(section)
    assert tables[table].keys() == keys_of(struct)
    for name, kind in get_type_hints(struct).items():
        # What an object holds stands in its row, or in a table of its own.
        told = tables.get(name) or re.findall(r"`([a-z0-9_]+)`", tables[table][name])
        assert set().union(*map(keys_of, structs_in(kind))) <= set(told), name


def test_quantiles_and_counts_are_numbers_by_name(outputs: dict[str, Any]) -> None:
    (row,) = outputs["stats"]
    assert (row["runs"], row["by_operator"], row["ended"]) == (1, 1, {"failed": 1})
    for key in ("duration_s", "lateness_s"):
        assert all(isinstance(row[key][name], float) for name in ("p50", "p95", "p99"))


# -- the other commands -----------------------------------------------------------------------------------------------

# Mappings whose keys are names of others, and events, which have a section of their own.
BY_NAME = {"by_schedule", "specs", "counts", "skipped", "missed", "cancelled", "outputs", "params", "tasks", "write"}
COMMANDS = [
    "tick --now 2026-11-23T15:05:00Z", "trigger s", "bump", "cancel --queued", "pause s", "resume s", "drain",
    "drain --off", "backfill s --from 2024-01-01T00:00:00Z --dry-run",
    "backfill s --from 2024-01-01T00:00:00Z --detach", "next", "lint", "validate", "validate --schema", "init new",
    "forecast --days 1", "audit", "run dags/d.yaml", "status",
]  # fmt: skip


def keys_in(value: Any) -> set[str]:
    """Return the keys of an object and of what it holds; events are told as such."""
    if isinstance(value, list):
        return set().union(*map(keys_in, value))
    if not isinstance(value, dict) or "event" in value:
        return set()
    return set(value).union(*(keys_in(each) for key, each in value.items() if key not in BY_NAME))


def row_of(command: str) -> str:
    """Return what the reference says of a command's JSON."""
    if command in ("forecast", "status"):
        found = re.search(rf"^##+ `{command} --json`\n(.*?)(?=^##)", REFERENCE, re.MULTILINE | re.DOTALL)
    elif command == "run":
        found = re.search(r"(mapping:\n\n.*)", REFERENCE, re.DOTALL)
    else:
        found = re.search(rf"^\| [^|]*`tickpool {command} --json`[^|]*\|(.*)$", REFERENCE, re.MULTILINE)
    assert found, command
    return found[1]


def test_every_key_of_the_other_commands_is_in_the_reference(service: Service) -> None:
    service.schedule("s", "0 0 1 1 *", service.dag("d", "true"))
    for command in COMMANDS:
        line = f"bump {service.events('run_requested')[-1]['run_id']}" if command == "bump" else command
        done = service.command(*line.split(), "--json")
        assert done.stdout, (line, done.stderr)
        keys = keys_in(json.loads(done.stdout))
        words = set(re.findall(r"`([a-z0-9_]+)`", row_of(command.split()[0])))
        assert keys <= words | {"params"}, (line, keys - words)
