"""The commands at a real terminal: its width, its colours, the operator's zone, Ctrl+C."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from service import Service, WaitFor

from scheduler.state_store import record_event

Terminal = Callable[..., "tuple[int, str]"]
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def terminal(service: Service) -> Terminal:
    """Run a command at a terminal of so many columns; return its exit code and all that the terminal was sent."""

    def run(line: str, columns: int = 100, **environ: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        env = service.env(**environ)
        env.pop("COLUMNS", None)
        command = [sys.executable, "-m", "scheduler.cli", *line.split()]
        process = subprocess.Popen(command, cwd=service.root, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        sent = b""
        while True:
            try:
                sent += os.read(ours, 65536)
            except OSError:  # EIO: nobody has the other side any more
                break
        os.close(ours)
        return process.wait(60), sent.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def ran(service: Service, wait_for: WaitFor) -> Service:
    """A directory in which a service has run two runs, one of which failed for a long reason, and one is at work."""
    service.tasks(
        "long",
        {"id": "gather_everything", "run": 'for n in 1 2 3 4 5; do echo "key_$n=value" >> "$TASK_OUTPUT"; done'},
        {"id": "fall", "call": "nowhere.module_with_a_long_name:function", "needs": ["gather_everything"]},
    )
    runs = [service.ask(service.dag("good", "true")), service.ask("dags/long.yaml", "a_run_with_a_name.20261123T1505Z")]
    service.start()
    wait_for(lambda: service.has_ended(*runs), what="the runs")
    service.ask(service.dag("slow", "touch began; sleep 100"), "slow.1")
    wait_for((service.root / "began").exists, what="the slow run")
    service.command("pause", "--all", "--reason", "because of " * 20)
    return service


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_every_table_fits_the_terminal(ran: Service, terminal: Terminal, columns: int) -> None:
    for line in ("runs", "status", "stats", "show a_run_with_a_name.20261123T1505Z", "show slow.1",
                 "diff asked.1 a_run_with_a_name.20261123T1505Z"):  # fmt: skip
        code, text = terminal(line, columns)
        assert code == 0, text
        rows = ESCAPE.sub("", text).split("\n")
        # What is no table is not cut: a sentence, a path.
        tables = [row for row in rows if "  " in row.strip() and not row.startswith(("  ", "log "))]
        assert tables or line == "stats"
        assert [row for row in tables if len(row) > columns] == []
    code, text = terminal("show a_run_with_a_name.20261123T1505Z", 200)
    assert "CPU" in text
    assert "CPU" not in terminal("show a_run_with_a_name.20261123T1505Z", 80)[1]


def test_colours_come_on_a_terminal_only_and_not_where_no_color_is_set(ran: Service, terminal: Terminal) -> None:
    assert "\x1b[31mfailed\x1b[0m" in terminal("runs")[1]
    assert "\x1b[32msuccess\x1b[0m" in terminal("runs")[1]
    assert "\x1b[33mrunning\x1b[0m" in terminal("show slow.1")[1]
    assert "\x1b" in terminal("runs", NO_COLOR="")[1]
    for line in ("runs", "status", "show slow.1", "logs asked.1"):
        assert "\x1b" not in terminal(line, NO_COLOR="1")[1]
        assert "\x1b" not in ran.command(*line.split()).stdout


def test_times_are_those_of_the_operator_or_with_utc_those_of_the_log(service: Service, terminal: Terminal) -> None:
    start = {"event": "run_started", "run_id": "r", "attempt": 1, "pid": 1, "starttime": 1, "boot_id": "b"}
    record_event({**start, "timestamp": "2026-11-23T15:05:00Z"}, service.log)
    end = {"event": "run_finished", "run_id": "r", "attempt": 1, "status": "success", "duration_s": 1.0}
    record_event({**end, "timestamp": "2026-11-23T15:05:00Z"}, service.log)
    assert terminal("status", TZ="UTC")[0] == 2  # down, and there is something to see all the same
    for zone, shown in (("Asia/Kolkata", "2026-11-23 20:35:00"), ("America/New_York", "2026-11-23 10:05:00")):
        assert shown in terminal("runs", TZ=zone)[1]
        assert shown in terminal("show r", TZ=zone)[1]
        for line in ("runs --utc", "show r --utc", "status --utc"):
            assert "2026-11-23 15:05:00" in terminal(line, TZ=zone)[1]
        (row,) = json.loads(terminal("runs --json", TZ=zone)[1])
        assert row["timestamp"] == "2026-11-23T15:05:00Z"


def test_a_trend_is_ascii_where_the_terminal_knows_no_more(service: Service, terminal: Terminal) -> None:
    for number in range(3):
        end = {"event": "run_finished", "run_id": f"s.{number}", "schedule_id": "s", "attempt": 1, "status": "success"}
        record_event({**end, "duration_s": float(number), "timestamp": datetime.now(UTC).isoformat()}, service.log)
    assert terminal("stats")[1].splitlines()[1].endswith("▁▅█")
    assert terminal("stats", PYTHONIOENCODING="ascii")[1].splitlines()[1].endswith("_+#")


def test_control_characters_of_others_are_shown_and_not_obeyed(service: Service, terminal: Terminal) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202e\x9b31m\r\n"
    request = {"event": "run_requested", "run_id": "r", "attempt": 1, "dag": evil, "params": {evil: evil}, "by": evil}
    record_event(request, service.log)
    record_event({"event": "run_started", "run_id": "r", "attempt": 1, "pid": 1}, service.log)
    end = {"event": "run_finished", "run_id": "r", "attempt": 1, "status": evil, "reason": evil}
    record_event(end, service.log)
    tasks = service.root / "logs" / "orchestrator_events.jsonl"
    for event in ("task_started", "task_finished"):
        fields = {"task_id": evil, "status": "failed", "reason": evil, "outputs": {evil: evil}}
        record_event({"event": event, "run_id": "r", "attempt": 1, **fields}, tasks)
    for line in ("show r", "runs", "diff r r", "stats"):
        code, text = terminal(line)
        assert code == 0, text
        assert not set("\x07\u202e\x9b\r") & set(text)
        assert "\x1b" not in ESCAPE.sub("", text)
    assert "\N{REPLACEMENT CHARACTER}" in terminal("show r")[1]


def test_ctrl_c_ends_a_command_that_waits_with_130(ran: Service, wait_for: WaitFor) -> None:
    ran.ask(ran.dag("says", "echo hi; sleep 100"), "says.1")
    for number, words in enumerate((["logs", "-f", "says.1"], ["logs", "-f", "says.1", "--json"])):
        process = ran.launch("-m", "scheduler.cli", *words)
        wait_for(lambda: "hi" in ran.out(), what=f"line {number}")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert ran.err() == ""
