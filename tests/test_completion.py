"""Completion, in real shells: what a Tab makes of a command line."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service import Service, WaitFor

from scheduler.cli.completing import candidates
from scheduler.state_store import record_event

Typed = Callable[[str, str], str]
BEGIN = {
    "bash": "bash --norc --noprofile -i",
    "zsh": "zsh -f -i",
}
LOAD = {
    "bash": "PS1=; bind 'set enable-bracketed-paste off'; source <(tickpool completion bash)",
    "zsh": "PS1=; autoload -U compinit; compinit -u -D; source <(tickpool completion zsh)",
}


def demand(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")


@pytest.fixture
def project(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Two schedules, an ended run with a task, and an open one; `bin/tickpool` notes what it is given."""
    for name, tenant, tags in (("alpha", "acme", ["nightly"]), ("beta", "globex", ["billing", "nightly"])):
        service.schedule(name, "0 0 1 1 *", service.dag("d", "true"), tenant=tenant, tags=tags)
    end = {"run_id": "alpha.20261123T1505Z", "schedule_id": "alpha", "attempt": 1}
    record_event(
        {"event": "schedule_enqueued", "minute": "2026-11-23T15:05:00Z", "dag": "dags/d.yaml", **end}, service.log
    )
    record_event({"event": "run_finished", "status": "success", **end}, service.log)
    service.ask("dags/d.yaml", "open.1")
    record_event({"event": "run_requested", "run_id": "../evil $(touch evil)\n*", "dag": "d"}, service.log)
    tasks = service.root / "logs" / "orchestrator_events.jsonl"
    record_event({"event": "task_started", "run_id": "alpha.20261123T1505Z", "attempt": 1, "task_id": "extract"}, tasks)
    (service.root / "bin").mkdir()
    script = service.root / "bin" / "tickpool"
    python = f'exec "{sys.executable}" -m scheduler.cli "$@"'
    script.write_text(
        f'#!/bin/sh\ncase $1 in completion) {python};; esac\nprintf "%s " "$@" >> "$TYPED"\necho >> "$TYPED"\n'
    )
    script.chmod(0o755)
    for name, value in service.env(PATH=f"{script.parent}:{os.environ['PATH']}").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(service.root)
    return service


@pytest.fixture
def typed(project: Service, wait_for: WaitFor) -> Iterator[Typed]:
    """Type a line into a shell that sits at a terminal; return the words that the command then got."""
    ours, theirs = pty.openpty()
    sent = bytearray()

    def read() -> None:
        os.set_blocking(ours, False)
        try:
            sent.extend(os.read(ours, 65536))
        except OSError:
            return

    def type_line(shell: str, line: str) -> str:
        file = project.root / "typed"
        env = {**os.environ, "TYPED": str(file), "HOME": str(project.root), "TERM": "dumb", "HISTFILE": "/dev/null"}
        process = subprocess.Popen(
            BEGIN[shell].split(), stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.write(ours, f"{LOAD[shell]}; tickpool loaded\n".encode())
        is_there = lambda words: (read(), file.exists() and words in file.read_text())[1]  # noqa: E731
        wait_for(lambda: is_there("loaded"), timeout=20, what=f"{shell}, which said {bytes(sent)!r}")
        os.write(ours, f"{line}\n".encode())
        wait_for(
            lambda: (read(), file.read_text().count("\n") == 2)[1], timeout=30, what=f"{shell}, which said {sent!r}"
        )
        process.kill()
        process.wait()
        return file.read_text().splitlines()[1].strip()

    yield type_line
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tickpool sho\t al\t", "show alpha.20261123T1505Z"),
        ("tickpool logs al\t ex\t --fo\t", "logs alpha.20261123T1505Z extract --follow"),
        ("tickpool trigger be\t", "trigger beta"),
        ("tickpool trigger dags/\t", "trigger dags/d.yaml"),
        ("tickpool runs --ten\t gl\t --stat\t cra\t", "runs --tenant globex --status crashed"),
        ("bin/tickpool cancel o\t", "cancel open.1"),
    ],
)
def test_a_tab_completes(typed: Typed, shell: str, line: str, words: str) -> None:
    demand(shell)
    assert typed(shell, line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tickpool sho", ["show"]),
        ("tickpool show al", ["alpha.20261123T1505Z"]),
        ("tickpool logs alpha.20261123T1505Z ", ["extract"]),
        ("tickpool runs --status ", ["success", "failed", "timeout", "cancelled", "crashed"]),
        ("tickpool pause ", ["alpha", "beta"]),
        ("tickpool run dags/", ["dags/d.yaml"]),
    ],
)
def test_fish_is_offered_the_same(project: Service, line: str, words: list[str]) -> None:
    demand("fish")
    script = f"tickpool completion fish | source; complete -C '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env={**os.environ, "HOME": str(project.root)}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert sorted(row.split("\t")[0] for row in done.stdout.splitlines()) == sorted(words), done.stderr


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("comp", ["completion"]),
        ("nothing ", []),
        ("show ", ["alpha.20261123T1505Z", "open.1"]),
        ("diff open.1 ", ["alpha.20261123T1505Z"]),
        ("diff open.1 alpha.20261123T1505Z ", ["--help", "--json", "--utc", "-h"]),
        ("cancel ", ["open.1"]),
        ("cancel open.1 ", []),
        ("cancel --schedule ", ["alpha", "beta"]),
        ("cancel --backfill ", []),
        ("retry ", ["alpha.20261123T1505Z"]),
        ("retry alpha.20261123T1505Z --from ", ["extract"]),
        ("logs --tail 5 alpha.20261123T1505Z ", ["extract"]),
        ("pause alpha ", ["beta"]),
        ("pause --tenant ", ["acme", "globex"]),
        ("runs --tag ", ["billing", "nightly"]),
        ("next --dir nowhere ", []),
        ("next --dir ", []),
        ("runs --limit ", []),
        ("runs --s", ["--schedule", "--since", "--status"]),
        ("status --watch --", ["--help", "--json", "--utc", "--watch"]),
        ("completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_a_word_may_become_what_the_command_takes(project: Service, line: str, found: list[str]) -> None:
    *before, word = line.split(" ")
    assert candidates(before, word) == found


def test_the_first_word_may_become_any_command() -> None:
    found = candidates([], "")
    assert found == sorted(found)
    assert {"serve", "show", "completion"} <= set(found)


def test_a_script_is_for_a_shell_that_is_named(project: Service) -> None:
    done = project.command("completion")
    assert (done.returncode, done.stderr) == (2, "completion for which shell? name bash, zsh, fish\n")
    for words in (["0", "tickpool"], ["x"], ["9", "tickpool"], []):
        assert project.command("completion", "--words", *words).stdout == ""
    assert not (project.root / "evil").exists()
    bad = Path("schedules") / "bad.yaml"
    bad.write_text("- {")
    assert candidates(["pause"], "") == ["alpha", "beta"]
