"""A terminal gets text and line ends, whatever tasks, files, events and command lines say."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import CONTROLS, TEXT, commands_in
from service import REPOSITORY, Service

from scheduler.state_store import record_event
from workers.errors import Fault
from workers.terminal import clean, clean_lines

ARGUMENT = TEXT.replace("\0", "")
# What a file may be called: no slash, no NUL, 255 bytes.
FILE = "x\x1b[2J\x1b]0;owned\x07\r\n0 fault(s)\x9b31m\u202e\u2066"
# Ours: a line that is drawn again and again, and wiped at the end.
PROGRESS = re.compile(rb"(\r\w+ \[[#.]+\] +\d+% [\w. ]*\x1b\[K)+\r\x1b\[K")
RAISE = f"raise RuntimeError({TEXT!r})\n"
Tickpool = Callable[..., "tuple[int, str]"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A project whose files, DAGs and log hold what commands a terminal."""
    for name in ("schedules", "dags", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "schedules" / f"{FILE}.yaml").write_text(json.dumps([{"id": TEXT, "cron": TEXT, "dag": TEXT, TEXT: 1}]))
    (tmp_path / "schedules" / "good.yaml").write_text('[{"id": "s", "cron": "* * * * *", "dag": "dags/bad.yaml"}]')
    (tmp_path / "dags" / f"{FILE}.yaml").write_text(json.dumps({"id": TEXT, TEXT: TEXT, "tasks": TEXT}))
    (tmp_path / "dags" / "bad.yaml").write_text('{"id": "bad", "tasks": [{"id": "t", "call": "hostile_job:main"}]}')
    (tmp_path / "hostile_job.py").write_text(f"def main():\n    print({TEXT!r})\n    {RAISE}")
    events: list[dict[str, Any]] = [
        {"event": "run_finished", "run_id": TEXT, "schedule_id": TEXT, "status": TEXT, "reason": TEXT, "attempt": 1},
        {"event": "schedule_invalid", "file": TEXT, "line": TEXT, "col": TEXT, "reason": TEXT, "load": TEXT},
        {"event": "run_requested", "run_id": TEXT, "schedule_id": TEXT, "minute": TEXT, "dag": TEXT, "attempt": 1},
        {"event": "run_requested", "run_id": "r", "schedule_id": "other", "dag": TEXT, "project": TEXT, "attempt": 1},
        {"event": "run_started", "run_id": TEXT, "starttime": 1, "boot_id": TEXT, "attempt": 1, "pid": 1},
        {"event": "schedules_loaded", "specs": {TEXT: {"cron": TEXT, "timezone": TEXT, "enabled": True, "dag": TEXT}}},
        {"event": TEXT, TEXT: TEXT},
    ]
    for event in events:
        record_event(event, tmp_path / "logs" / "orchestrator_state.jsonl")
    return tmp_path


@pytest.fixture
def tickpool(hostile: Path) -> Tickpool:
    """Run a command in that project at a terminal; return its exit code and all that the terminal was sent."""

    def run(*words: str, module: str = "scheduler.cli", **environ: str) -> tuple[int, str]:
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environ}
        terminal, side = pty.openpty()
        command = [sys.executable, "-m", module, *words]
        process = subprocess.Popen(command, cwd=hostile, env=env, stdin=side, stdout=side, stderr=side)
        os.close(side)
        sent = b""
        while True:
            try:
                sent += os.read(terminal, 65536)
            except OSError:  # EIO: nobody has the other side any more
                break
        os.close(terminal)
        # A terminal line ends in CR LF, and only there.
        text = PROGRESS.sub(b"", sent.replace(b"\r\n", b"\n"))
        assert not commands_in(text), text
        return process.wait(60), text.decode()

    return run


def test_what_the_log_says_reaches_the_terminal_as_text(tickpool: Tickpool) -> None:
    for words in (["status"], ["runs"], ["runs", "--limit", "1000"], ["audit"]):
        code, text = tickpool(*words)
        assert "Traceback" not in text, text
        assert words == ["audit"] or "\N{REPLACEMENT CHARACTER}" in text
        assert code in (0, 1, 2)
    code, text = tickpool("status")
    # No line of it is the attacker's own.
    assert not [line for line in text.splitlines() if line.startswith("health: ok")]


def test_what_files_say_reaches_the_terminal_as_text(tickpool: Tickpool) -> None:
    code, text = tickpool("validate")
    assert (code, text.splitlines()[-1].startswith("4 file(s) checked, ")) == (1, True), text
    assert not [line for line in text.splitlines() if line.startswith("0 fault(s)")]
    code, text = tickpool("next")
    assert "at every minute" in text or "every minute" in text, text
    assert "no schedule" in tickpool("next", ARGUMENT)[1]


def test_what_a_task_says_reaches_the_terminal_as_text_and_its_log_as_it_is(tickpool: Tickpool, hostile: Path) -> None:
    code, text = tickpool("run", "dags/bad.yaml")
    assert (code, "RuntimeError" in text) == (1, True), text
    code, text = tickpool("dags/bad.yaml", module="workers")
    assert (code, "RuntimeError" in text) == (1, True), text
    code, text = tickpool("--dir", "schedules", "--once", module="scheduler")
    assert (code, "RuntimeError" in text) == (2, True), text
    logs = [path.read_bytes() for path in (hostile / "logs" / "runs").rglob("*.log")]
    assert len(logs) == 3
    assert all(TEXT.encode() in log for log in logs)


COMMAND_LINES = [
    [ARGUMENT],
    ["next", "--dir", ARGUMENT],
    ["tick", "--now", ARGUMENT],
    ["tick", "--dir", ARGUMENT],
    ["serve", "--dir", ARGUMENT],
    ["run", ARGUMENT],
    ["run", "dags/bad.yaml", "-p", ARGUMENT],
    ["run", "dags/bad.yaml", "-p", f"{ARGUMENT}=1"],
    ["run", "--project", ARGUMENT, "dags/bad.yaml"],
    ["run", f"dags/{FILE}.yaml"],
    ["runs", "--limit", ARGUMENT],
    ["status", ARGUMENT],
    ["status", f"--{ARGUMENT}"],
]


@pytest.mark.parametrize("words", COMMAND_LINES, ids=range(len(COMMAND_LINES)))
def test_what_a_command_line_says_comes_back_as_text(tickpool: Tickpool, words: list[str]) -> None:
    code, text = tickpool(*words)
    assert (code, "Traceback" in text) == (2, False), text


@pytest.mark.parametrize("words", [[ARGUMENT], [f"--{ARGUMENT}"], ["a", ARGUMENT]], ids=range(3))
def test_so_does_what_a_run_by_hand_is_given(tickpool: Tickpool, words: list[str]) -> None:
    assert tickpool(*words, module="workers")[0] == 2
    assert tickpool(*words, module="scheduler")[0] == 2


def test_a_setting_comes_back_as_text(tickpool: Tickpool) -> None:
    for name in ("SCHED_TICK_MS", "STATE_STORE_PATH", "STATE_FSYNC"):
        code, text = tickpool("status", **{name: ARGUMENT})
        assert (code, "Traceback" in text) == (2, False), text


def test_a_terminal_that_knows_only_ascii_gets_ascii(tickpool: Tickpool) -> None:
    code, text = tickpool("runs", PYTHONIOENCODING="ascii")
    assert (code, text.isascii()) == (0, True)


def test_a_service_says_and_logs_text(hostile: Path, wait_for: Any) -> None:
    service = Service(hostile)
    try:
        service.ask("dags/bad.yaml", "asked")
        service.start()
        wait_for(lambda: service.has_ended("asked"), 60, "the end of the run")
        (hostile / "schedules" / f"{FILE}2.yaml").write_text(TEXT.replace("\0", ""))
        wait_for(lambda: "has faults" in service.out(), 60, "the refusal of the new file")
        printed = service.out() + service.err()
        assert not commands_in(printed.encode())
        assert "owned" in service.err()
    finally:
        service.end()


@pytest.mark.parametrize("char", CONTROLS + "\ud800\udcff")
def test_a_clean_text_is_one_line_of_what_shows(char: str) -> None:
    assert clean(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"
    assert str(Fault(f"a{char}b", 1, 2, f"x{char}y")).count("\N{REPLACEMENT CHARACTER}") == 2
    assert clean("Grüße, 日本 🎉") == "Grüße, 日本 🎉"
    assert clean_lines("a\nb\x1b") == "a\nb\N{REPLACEMENT CHARACTER}"
