"""The documentation is under test: it names all there is, its examples load, its commands run, its links lead on."""

from __future__ import annotations

import argparse
import ast
import doctest
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from scheduler.ahead import fires_ahead
from scheduler.ahead_text import render_fires
from scheduler.calendar_model import CalendarRule, OwnCalendar
from scheduler.cli import build_module_parser, build_parser
from scheduler.cron import parse_cron
from scheduler.limits import Limits, Tenant
from scheduler.schedule_model import Schedule
from scheduler.schedules import read_configuration, validate
from workers.__main__ import add_arguments
from workers.dag import load_dag
from workers.dag_model import Dag, Retries, Task, TriggerRule
from workers.errors import InvalidFile
from workers.events import Event
from workers.params import RUN_NAMES
from workers.runner import run_dag
from workers.settings import Settings, variables
from workers.yamlfile import load_yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scheduler", "workers")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
EVENT = re.compile(
    r"(?:schedule|run|task|supervisor|worker|clock|log|segment|limit|approval)s?_[a-z]+|drain_(?:started|ended)|backfill_(?:requested|cancelled|finished)"
)


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.fixture(scope="module")
def reference() -> str:
    return page("docs/reference.md")


def section(text: str, title: str) -> str:
    """Return what stands under a heading of any level, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r}"
    return found[2]


def table_names(text: str) -> set[str]:
    """Return the names in backticks in the first column of the tables of a text."""
    cells = re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


# -- the reference names all there is -------------------------------------------------------------------------------


def test_the_reference_has_every_command_and_option(reference: str) -> None:
    commands = section(reference, "Commands")
    by_hand = argparse.ArgumentParser()
    add_arguments(by_hand)
    parsers = [build_parser(), build_module_parser(), by_hand]
    subcommands = parsers[0]._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for name, parser in dict(subcommands).items():  # type: ignore[arg-type]
        assert f"`tickpool {name}" in commands
        parsers.append(parser)
    wanted = set().union(*map(options, parsers))
    written = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", commands))
    assert wanted <= written
    assert table_options(commands) <= wanted


def test_the_table_for_3_am_has_every_command() -> None:
    rows = section(page("docs/operations.md"), "It is 3 a.m. and")
    subcommands = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    named = set(re.findall(r"`tickpool ([a-z]+)", rows)) | set(re.findall(r"`scripts/([a-z]+)`", rows))
    # What nobody does at 3 a.m.: begin a project, start what systemd starts.
    assert set(subcommands or ()) - named == {"init", "serve", "dashboard"}


def table_options(text: str) -> set[str]:
    """Return the options that the table of options describes."""
    return {option for name in table_names(text) for option in re.findall(r"(?:^|, )(--?[a-z-]+)", name)}


def test_the_reference_has_every_script(reference: str) -> None:
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir() if path.is_file()}
    assert scripts <= table_names(section(reference, "Commands"))


def test_the_reference_has_every_environment_variable_with_its_default(reference: str) -> None:
    rows = section(reference, "Environment")
    assert table_names(rows) == {variable.name for variable in variables()}
    defaults = Settings()
    for variable in variables():
        written = re.search(rf"^\| `{variable.name}` \| `([^`]+)` \|", rows, re.MULTILINE)
        assert written, variable.name
        assert variable.read(written[1]) == getattr(defaults, variable.field), variable.name


@pytest.mark.parametrize(
    ("title", "model", "internal"),
    [
        ("Schedules", Schedule, {"project", "matrix_of", "days", "file", "line"}),
        ("DAGs", Dag, {"project"}),
        ("Tasks", Task, set()),
        ("Retries", Retries, set()),
    ],
)
def test_the_reference_has_exactly_the_keys_of_each_file(
    reference: str, title: str, model: type[msgspec.Struct], internal: set[str]
) -> None:
    text = re.split(r"^### ", section(reference, title), flags=re.MULTILINE)[0]
    keys = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    assert keys == {field.encode_name for field in msgspec.structs.fields(model)} - internal


def test_the_reference_has_exactly_the_keys_of_the_limits_file(reference: str) -> None:
    fields = [*msgspec.structs.fields(Limits), *msgspec.structs.fields(Tenant)]
    assert table_names(section(reference, "Limits file")) == {field.encode_name for field in fields}


def test_the_reference_has_exactly_the_keys_of_a_calendar(reference: str) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(CalendarRule)}
    assert table_names(re.split(r"^### ", section(reference, "Calendar"), flags=re.MULTILINE)[0]) == fields
    own = {field.encode_name for field in msgspec.structs.fields(OwnCalendar)}
    assert table_names(section(reference, "Calendars file")) == own


def test_the_reference_has_every_trigger_rule(reference: str) -> None:
    assert table_names(section(reference, "Trigger rules")) == set(get_args(TriggerRule))


def test_the_reference_has_every_reference_to_a_run(reference: str) -> None:
    names = table_names(section(reference, "References"))
    assert {name for name in names if name.startswith("${run.")} == {f"${{run.{name}}}" for name in RUN_NAMES}


# Words of the same form that name something else.
NOT_EVENTS = {
    "clock_jump",
    "log_query",
    "run_id",
    "schedule_id",
    "task_id",
    "task_attempt",
    "run_status",
    "run_logs",
    "run_dag",
    "worker_pid",
    "segment_bytes",
}


def event_names() -> set[str]:
    """Return the names of events in the source: values of `event`, keys of the fold, first arguments of `record`."""
    found: set[str] = set()
    for _, tree in sources():
        for node in ast.walk(tree):
            texts: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                texts += [v for k, v in zip(node.keys, node.values, strict=True) if is_text(k, "event")]
                texts += node.keys
            elif isinstance(node, ast.Call):
                texts += node.args
            found.update(t.value for t in texts if isinstance(t, ast.Constant) and isinstance(t.value, str))
    return {name for name in found if EVENT.fullmatch(name) and name not in NOT_EVENTS} | {"checkpoint"}


def is_text(node: ast.expr | None, value: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def test_the_reference_has_every_event(reference: str) -> None:
    rows = section(reference, "Events")
    written = {name for name in table_names(rows) if EVENT.fullmatch(name)} | {"checkpoint"}
    assert written == event_names()


def recorded_keys(log: Path) -> dict[str, set[str]]:
    keys: dict[str, set[str]] = {}
    for line in log.read_bytes().splitlines():
        event: Event = msgspec.json.decode(line)
        keys.setdefault(event["event"], set()).update(event)
    return keys


def test_the_reference_has_every_field_that_a_run_records(reference: str, example: Path) -> None:
    tickpool(example, "tick", "--now", "2026-11-23T15:05:00Z")
    common = {"timestamp", "event", "seq", "host", "pid", "crc"}
    common |= {"run_id", "schedule_id", "minute", "attempt", "task_id"}
    recorded = recorded_keys(example / "logs/orchestrator_state.jsonl")
    recorded |= recorded_keys(example / "logs/orchestrator_events.jsonl")
    assert {"schedules_loaded", "run_started", "run_finished", "task_started", "task_finished"} <= recorded.keys()
    rows = section(reference, "Events")
    for event, keys in recorded.items():
        row = re.search(rf"^\| `{event}` \|.*$", rows, re.MULTILINE)
        assert row, event
        assert keys - common <= set(re.findall(r"`([a-z_]+)`", row[0])), event


def test_the_reference_has_every_public_function(reference: str) -> None:
    text = section(reference, "Python")
    for module in ("scheduler", "scheduler.state_store"):
        for name in importlib.import_module(module).__all__:
            if name[0].islower() and name != "last_events":
                assert f"`{name}(" in text, name
    names = set(run_dag.__annotations__) - {"return"}
    assert names <= set(re.findall(r"[a-z_]+", text))


# -- the floors ------------------------------------------------------------------------------------------------------


def floors() -> dict[str, int]:
    """Return each module's line in the diagram of docs/ARCHITECTURE.md."""
    diagram = re.search(r"```\n(.*?)```", section(page("docs/ARCHITECTURE.md"), "Floors"), re.DOTALL)
    assert diagram
    floor: dict[str, int] = {}
    package = ""
    for number, line in enumerate(diagram[1].splitlines()):
        words = re.split(r" {2,}", line.strip())
        if words[0] in PACKAGES:
            package = words.pop(0)
        for word in itertools.takewhile(lambda text: re.fullmatch(r"[a-z_]+/?", text), words):
            floor[f"{package}.{word.rstrip('/')}"] = number
    return floor


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])


def test_the_diagram_of_floors_has_every_module() -> None:
    modules = {module_name(path) for path, _ in sources()}
    assert set(floors()) == {name for name in modules if not name.endswith("__init__")}


def test_no_import_goes_up_in_the_diagram_of_floors() -> None:
    floor = floors()
    rising = []
    for path, tree in sources():
        here = module_name(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and here in floor:
                package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
                base = ".".join([*package, *([node.module] if node.module else [])])
                names = {base, *(f"{base}.{each.name}" for each in node.names)}
                rising += [f"{here} -> {name}" for name in names if floor.get(name, 99) < floor[here]]
    assert rising == []


# -- examples --------------------------------------------------------------------------------------------------------


def test_every_schedule_and_dag_of_the_repository_is_without_fault() -> None:
    checked, faults = validate(ROOT / "schedules")
    assert faults == []
    shipped = {path.name for folder in ("schedules", "dags") for path in (ROOT / folder).glob("*.y*ml")}
    assert {Path(name).name for name in checked} >= shipped


def yaml_blocks() -> list[tuple[str, str]]:
    return [
        (f"{path.name}-{number}", match["text"])
        for path in PAGES
        for number, match in enumerate(FENCE.finditer(path.read_text("utf-8")))
        if match["language"] == "yaml"
    ]


@pytest.mark.parametrize(("name", "text"), yaml_blocks(), ids=[name for name, _ in yaml_blocks()])
def test_every_yaml_in_the_docs_is_without_fault(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "schedules").mkdir()
    (tmp_path / "dags").mkdir()
    if text.startswith("pools:"):
        (tmp_path / "schedules" / "limits.yaml").write_text(text)
    elif text.startswith("plant:"):
        (tmp_path / "schedules" / "calendars.yaml").write_text(text)
    elif text.lstrip().startswith("- ") or re.search(r"^- id:", text, re.MULTILINE):
        (tmp_path / "schedules" / "it.yaml").write_text(text)
        given: dict[str, set[str]] = {}
        for entry in load_yaml(tmp_path / "schedules" / "it.yaml").data:
            given.setdefault(entry["dag"], set()).update(entry.get("params", {}), entry.get("matrix", {}))
            if "on_deadline" in entry:
                given.setdefault(entry["on_deadline"], set())
        pools = {entry["pool"]: 1 for entry in load_yaml(tmp_path / "schedules" / "it.yaml").data if "pool" in entry}
        (tmp_path / "schedules" / "limits.yaml").write_text(f"pools: {json.dumps(pools)}\n")
        (tmp_path / "schedules" / "calendars.yaml").write_text("plant: {dates: [12-24]}\n")
        for dag, names in given.items():
            params = "".join(f"  {each}: 1\n" for each in sorted(names))
            header = f"id: it\nparams:\n{params}" if params else "id: it\n"
            (tmp_path / dag).write_text(f"{header}tasks:\n  - id: one\n    run: [true]\n")
    else:
        (tmp_path / "dags" / "it.yaml").write_text(text)
        for task in load_yaml(tmp_path / "dags" / "it.yaml").data["tasks"]:
            if "dag" in task:
                params = json.dumps(dict.fromkeys(task.get("params", {}), 1))
                (tmp_path / task["dag"]).write_text(f"id: it\nparams: {params}\ntasks: [{{id: one, run: [true]}}]\n")
        load_dag(Path("dags/it.yaml"), tmp_path)
    configuration = read_configuration(tmp_path / "schedules")
    assert configuration.faults == [], name
    rows = fires_ahead(configuration.schedules, datetime(2026, 11, 24, tzinfo=UTC), count=2)
    shown = render_fires(rows, None)
    assert all(schedule.id in shown and schedule.fires.explain() for schedule in configuration.schedules)
    try:
        checked, faults = validate(tmp_path / "schedules")
    except InvalidFile as error:
        pytest.fail(str(error))
    assert checked
    assert faults == []


def test_every_cron_expression_of_the_reference_can_be_read(reference: str) -> None:
    rows = table_names(section(reference, "Cron"))
    for text in rows:
        fields = {
            "L": 2,
            "LW": 2,
            "15W": 2,
            "FRIL": 4,
            "5L": 4,
            "MON#2": 4,
            "FRI-MON": 4,
            "?": 2,
            "22-2": 1,
            "H(9-17)": 1,
        }
        whole = text
        if not text.startswith("@"):
            parts = ["0", "*", "*", "*", "*"]
            parts[fields.get(text, 0)] = text
            whole = " ".join(parts)
        assert parse_cron(whole, seed="it").explain()


def test_the_python_sessions_in_the_docs_print_what_they_show() -> None:
    for path in PAGES:
        failed, _ = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
        assert failed == 0, path.name


@pytest.mark.parametrize("name", ["docs/ORCHESTRATION.md", "docs/tutorial.md", "docs/reference.md"])
def test_python_in_the_docs_compiles(name: str) -> None:
    for match in FENCE.finditer(page(name)):
        if match["language"] == "python" and ">>>" not in match["text"]:
            compile(match["text"], name, "exec")


# -- README ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The project that README writes: each YAML block into the file that its first line names."""
    for match in FENCE.finditer(page("README.md")):
        if match["language"] == "yaml":
            name = match["text"].splitlines()[0].removeprefix("# ")
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(match["text"])
    return tmp_path


def tickpool(project: Path, *words: str, module: str = "scheduler.cli") -> subprocess.CompletedProcess[str]:
    ours = {"STATE_STORE_PATH", "ORCH_EVENTS_PATH", "RUN_LOGS_DIR"}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=project,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def sessions() -> list[list[tuple[str, str]]]:
    """Return README's console blocks, each as its commands with their outputs."""
    blocks = [match["text"] for match in FENCE.finditer(page("README.md")) if match["language"] == "console"]
    return [re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE) for block in blocks]


def settled(output: str) -> str:
    """Return an output without what differs from run to run."""
    return re.sub(r"\d+\.\d\d s", "N s", output)


def test_the_commands_of_readme_print_what_it_shows(example: Path) -> None:
    good, bad = sessions()
    assert len(good) == 4
    for command, output in good:
        words = command.split()
        if words[0] == "cat":
            assert (example / words[1]).read_text() == output
            continue
        done = tickpool(example, *words[1:])
        assert settled(done.stdout) == settled(output), done.stderr
        assert done.returncode == 0
    for name, right, wrong in (("schedules", "Paris", "Pariss"), ("dags", "needs: [extract]", "need: [extract]")):
        path = example / name / "report.yaml"
        path.write_text(path.read_text().replace(right, wrong))
    [(command, output)] = bad
    done = tickpool(example, *command.split()[1:])
    assert done.stdout == output
    assert done.returncode == 1


def test_once_and_status_run_as_the_docs_say(example: Path) -> None:
    done = tickpool(example, "--dir", "schedules", "--once", module="scheduler")
    assert done.stdout.startswith("Loaded 1 schedule(s) from schedules\nRunning single tick...\nEnqueued ")
    assert done.returncode == 0
    status = tickpool(example, "status")
    assert status.stdout.startswith("tickpool: DOWN\n")
    assert status.returncode == 2


def test_the_scripts_that_readme_and_ci_name_are_there_and_can_be_run() -> None:
    named = set(re.findall(r"\bscripts/[\w.]+", page("README.md") + page(".ci/run")))
    assert {"scripts/serve.sh", "scripts/test.sh"} <= named
    for name in named:
        assert os.access(ROOT / name, os.X_OK), name


def test_readme_is_short() -> None:
    assert len(page("README.md").splitlines()) < 150


# -- all pages -------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text("utf-8")), target


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page("docs/GUARANTEES.md"))
    assert named
    for file, function in named:
        assert function in page(file), f"{file}::{function}"


def test_no_page_has_an_unfilled_place() -> None:
    for path in PAGES:
        assert not re.search(r"<<OUTPUT|\bTODO\b|\bTBD\b", path.read_text("utf-8")), path.name


def test_no_file_names_a_machine_or_a_registry() -> None:
    # Put together here, or this file would name them itself.
    words = [f"/{name}/".encode() for name in ("home", "root", "work")]
    words += [".".join(parts).encode() for parts in (("pypi", "org"), ("files", "pythonhosted", "org"))]
    words += ["-".join(parts).encode() for parts in (("", "", "index", "url"), ("", "", "extra", "index", "url"))]
    found = [(path.name, word) for path in tracked_files() for word in words if word in path.read_bytes()]
    assert found == []
