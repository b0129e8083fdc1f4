"""The command line as a person types it: real processes, their output and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Tickpool = Callable[..., "subprocess.CompletedProcess[str]"]

SCHEDULES = """\
- id: every_minute
  cron: "* * * * *"
  dag: dags/good.yaml
- id: new_year
  cron: "0 0 1 1 *"
  dag: dags/good.yaml
  timezone: Europe/Paris
"""
GOOD = "id: good\nparams: {n: 1, word: hi}\ntasks:\n  - id: say\n    run: [echo, '${params.word}']\n"
BAD = "id: bad\ntasks:\n  - id: fall\n    run: exit 3\n"
NOW = "2026-11-23T15:05:00Z"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two schedules and two DAGs."""
    (tmp_path / "schedules").mkdir()
    (tmp_path / "dags").mkdir()
    (tmp_path / "schedules" / "all.yaml").write_text(SCHEDULES)
    (tmp_path / "dags" / "good.yaml").write_text(GOOD)
    (tmp_path / "dags" / "bad.yaml").write_text(BAD)
    return tmp_path


@pytest.fixture
def tickpool(project: Path) -> Tickpool:
    """Run a command in the project and return how it ended."""

    def run(*words: str, module: str = "scheduler.cli", **environ: str) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [sys.executable, "-m", module, *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_once_prints_the_lines_of_the_contract_and_a_line_a_run(tickpool: Tickpool) -> None:
    done = tickpool("--dir", "schedules", "--once", module="scheduler")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["Loaded 2 schedule(s) from schedules", "Running single tick...", "Enqueued 1 run(s)"]
    assert len(lines) == 4
    assert lines[3].split()[0] == "success"
    assert lines[3].split()[1].startswith("every_minute.")
    assert (done.stderr, done.returncode) == ("", 0)


def test_once_exits_1_when_a_run_failed_and_says_why(tickpool: Tickpool, project: Path) -> None:
    (project / "schedules" / "all.yaml").write_text('- {id: fails, cron: "* * * * *", dag: dags/bad.yaml}\n')
    done = tickpool("--dir", "schedules", "--once", module="scheduler")
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "task `fall` failed: exit code 3" in done.stdout


def test_once_runs_the_good_files_names_the_bad_one_and_exits_2(tickpool: Tickpool, project: Path) -> None:
    (project / "schedules" / "broken.yaml").write_text('- id: x\n  cron: "61 * * * *"\n  dag: dags/good.yaml\n')
    done = tickpool("--dir", "schedules", "--once", module="scheduler")
    assert done.returncode == 2
    assert "Enqueued 1 run(s)" in done.stdout
    assert "success" in done.stdout
    place, message = done.stderr.strip().split(": ", 1)
    assert place == "schedules/broken.yaml:2:9"
    assert "minute `61` is out of range; allowed: 0-59" in message


def test_tick_with_no_run_only_enqueues_and_a_later_tick_runs_it(tickpool: Tickpool) -> None:
    first = tickpool("tick", "--now", NOW, "--no-run", "--json")
    assert [event["run_id"] for event in json.loads(first.stdout)["verdicts"]] == ["every_minute.20261123T1505Z"]
    assert json.loads(first.stdout)["runs"] == []
    second = tickpool("tick", "--now", NOW, "--json")
    told = json.loads(second.stdout)
    assert told["verdicts"] == []
    assert [(run["run_id"], run["status"]) for run in told["runs"]] == [("every_minute.20261123T1505Z", "success")]
    assert json.loads(tickpool("tick", "--now", NOW, "--json").stdout)["runs"] == []


def test_run_shows_tasks_as_they_end_and_leaves_history(tickpool: Tickpool) -> None:
    done = tickpool("run", "dags/good.yaml", "-p", "word=hello there")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("Run good.manual.")
    assert done.stdout.splitlines()[1].split()[:2] == ["success", "say"]
    runs = json.loads(tickpool("runs", "--json").stdout)
    assert [(run["status"], run["run_id"].split(".")[0]) for run in runs] == [("success", "good")]
    failed = tickpool("dags/bad.yaml", "--json", module="workers")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["tasks"]["fall"]["exit_code"] == 3


def test_runs_filters_by_status_and_limit(tickpool: Tickpool) -> None:
    assert tickpool("runs").stdout == "No runs yet\n"
    for dag in ("good", "bad", "good"):
        tickpool("run", f"dags/{dag}.yaml")
    assert len(json.loads(tickpool("runs", "--status", "success", "--json").stdout)) == 2
    assert len(json.loads(tickpool("runs", "--limit", "1", "--json").stdout)) == 1
    assert "bad.manual." in tickpool("runs", "--status", "failed").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("next --count x", "next: argument --count: x: write a whole number from 1 to 1000000"),
        ("next --count 0", "next: argument --count: 0: write a whole number from 1 to 1000000"),
        ("runs --limit -1", "runs: argument --limit: -1: write a whole number from 1 to 1000000"),
        ("status --watch -1", "status: argument --watch: -1: write a number from 0.01 to 86400"),
        ("status --watch nan", "status: argument --watch: nan: write a number from 0.01 to 86400"),
        ("status --watch soon", "status: argument --watch: soon: write a number from 0.01 to 86400"),
        (f"forecast --days {'9' * 50}", f"forecast: argument --days: {'9' * 40}: write a whole number from 1 to 366"),
        ("forecast --workers 1.5", "forecast: argument --workers: 1.5: write a whole number from 1 to 1000"),
        ("selftest --kills none", "selftest: argument --kills: none: write a whole number from 1 to 1000000"),
    ],
)
def test_a_number_that_an_option_cannot_take_is_told_with_what_it_can(
    tickpool: Tickpool, words: str, told: str
) -> None:
    done = tickpool(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tickpool {told} (see tickpool {words.split()[0]} --help)\n"


def test_validate_names_every_fault_of_every_file_and_exits_1(tickpool: Tickpool, project: Path) -> None:
    assert tickpool("validate").returncode == 0
    (project / "schedules" / "more.yaml").write_text(
        '- {id: "no good", cron: "* * * *", dag: dags/none.yaml, tennant: x}\n'
    )
    (project / "dags" / "unused.yaml").write_text("id: unused\ntasks:\n  - id: a\n    rum: x\n    needs: [b]\n")
    done = tickpool("validate", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    messages = "\n".join(fault["message"] for fault in told["faults"])
    assert "did you mean `tenant`?" in messages
    assert "did you mean `run`?" in messages
    assert any(fault["line"] == 4 and fault["file"].endswith("unused.yaml") for fault in told["faults"])
    text = tickpool("validate").stdout.splitlines()
    assert text[-1].endswith(f"{len(told['faults'])} fault(s)")


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        (["servee"], {}, "unknown command `servee`; did you mean `serve`?"),
        ([], {}, "the following arguments are required: COMMAND"),
        (["tick", "--dir", "nowhere"], {}, "nowhere: no such directory"),
        (["tick", "--dir", "schedules/all.yaml"], {}, "is not a directory"),
        (["tick", "--now", "yesterday"], {}, "--now 'yesterday': write an ISO 8601 time with its zone"),
        (["tick", "--now", "2026-11-23T15:05:00"], {}, "write an ISO 8601 time with its zone"),
        (["next", "every_minut"], {}, "no schedule `every_minut`; did you mean `every_minute`?"),
        (["run", "dags/none.yaml"], {}, "cannot be read: No such file or directory"),
        (["run", "dags/good.yaml", "-p", "wrd=1"], {}, "has no parameter `wrd`; did you mean `word`?"),
        (["run", "dags/good.yaml", "-p", "n=x"], {}, "the default is 1; write JSON"),
        (["run", "dags/good.yaml", "-p", "word"], {}, "write NAME=VALUE"),
        (["status"], {"SCHED_TICK_MS": "soon"}, "SCHED_TICK_MS='soon': write a whole number of milliseconds"),
        (["serve"], {"STATE_FSYNC": "maybe"}, "STATE_FSYNC='maybe': write off, interval or always"),
        (["serve"], {"SCHED_MAX_PARALLEL": "0"}, "SCHED_MAX_PARALLEL='0'"),
        (["tick"], {"STATE_STORE_PATH": "/proc/none/log"}, "/proc/none"),
        (["serve"], {"STATE_STORE_PATH": "/proc/none/log"}, "/proc/none"),
        (["tick"], {"STATE_STORE_PATH": "schedules"}, "cannot be read: not a regular file"),
        (["serve"], {"STATE_STORE_PATH": "schedules"}, "cannot be read: not a regular file"),
        (["status"], {"STATE_STORE_PATH": "schedules"}, "cannot be read: not a regular file"),
        (["runs"], {"STATE_STORE_PATH": "schedules"}, "cannot be read: not a regular file"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_2(
    tickpool: Tickpool, words: list[str], environ: dict[str, str], says: str
) -> None:
    done = tickpool(*words, **environ)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_reader_that_closes_the_pipe_early_ends_the_command_quietly(project: Path) -> None:
    command = f"{sys.executable} -m scheduler.cli next --count 20000 | head -1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("SCHEDULE")
    assert done.stderr == ""
