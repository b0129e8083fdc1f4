"""Paths that cannot be a log: every command says so in one line and ends with 2; none waits, none shows a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from service import Service

Figure = Callable[[str], None]
NOBODY = 65534
# Those that only read take an absent log for an empty one: status says that the service is down.
COMMANDS = {
    "once": ("-m", "scheduler", "--dir", "schedules", "--once"),
    "serve": ("-m", "scheduler", "--dir", "schedules", "--serve"),
    "run": ("-m", "scheduler.cli", "run", "dags/d.yaml"),
    "status": ("-m", "scheduler.cli", "status"),
    "runs": ("-m", "scheduler.cli", "runs"),
}
WRITING = ("once", "serve", "run")


def _directory(place: Path) -> Path:
    path = place / "log.jsonl"
    path.mkdir()
    return path


def _fifo(place: Path) -> Path:
    path = place / "log.jsonl"
    os.mkfifo(path)
    path.chmod(0o666)
    return path


def _below_a_file(place: Path) -> Path:
    (place / "file").touch()
    return place / "file" / "log.jsonl"


def _loop(place: Path) -> Path:
    path = place / "log.jsonl"
    path.symlink_to(path)
    return path


def _device(place: Path) -> Path:
    path = place / "log.jsonl"
    path.symlink_to("/dev/full")
    return path


def _too_long(place: Path) -> Path:
    return place / ("x" * 300)


def _dangling_link_into_a_closed_directory(place: Path) -> Path:
    closed = place / "closed"
    closed.mkdir()
    path = place / "log.jsonl"
    path.symlink_to(closed / "target.jsonl")
    closed.chmod(0o500)
    return path


def _closed_directory(place: Path) -> Path:
    closed = place / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    return closed / "log.jsonl"


def _missing_in_a_closed_directory(place: Path) -> Path:
    return _closed_directory(place).parent / "missing" / "log.jsonl"


def _locked_directory(place: Path) -> Path:
    closed = place / "closed"
    closed.mkdir()
    (closed / "log.jsonl").touch()
    closed.chmod(0)
    return closed / "log.jsonl"


def _file_of_another_owner(place: Path) -> Path:
    path = place / "log.jsonl"
    path.touch(mode=0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        path.chmod(0)
    return path


# What no user can use, and whether a reader must refuse it too.
FOR_ALL = {
    _directory: True,
    _fifo: True,
    _device: True,
    _loop: True,
    _too_long: True,
    _below_a_file: False,
}
# What only somebody else, or root, may do.
FOR_OTHERS = {
    _closed_directory: False,
    _missing_in_a_closed_directory: False,
    _dangling_link_into_a_closed_directory: False,
    _locked_directory: True,
    _file_of_another_owner: True,
}


def _run(service: Service, command: str, *before: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, *COMMANDS[command]],
        cwd=service.root,
        env=service.env(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _refuses(done: subprocess.CompletedProcess[str], path: Path, what: str) -> None:
    said = f"{what}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 2, said
    assert len(done.stderr.splitlines()) == 1, said
    assert "Traceback" not in done.stderr, said
    names = [str(path), os.path.realpath(path), str(path.parent), path.parent.name, "/dev/full"]
    assert any(name in done.stderr for name in names), said


def _reads_as_empty(done: subprocess.CompletedProcess[str], command: str, what: str) -> None:
    said = f"{what}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == (2 if command == "status" else 0), said
    assert done.stderr == "", said
    assert ("No runs yet" if command == "runs" else "tickpool: DOWN") in done.stdout, said


@pytest.fixture
def project(service: Service) -> Service:
    """A project with one schedule that is due."""
    service.schedule("s", "* * * * *", service.dag("d", "true"))
    return service


def _without_privilege() -> tuple[str, ...]:
    """Return what to put before a command so that the modes of files bind it, for root too."""
    if os.geteuid() != 0:
        return ()
    words = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
    if shutil.which("setpriv") is None or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("root cannot shed its privileges here: there is no setpriv")
    return words


@pytest.mark.slow
@pytest.mark.parametrize("make", FOR_ALL, ids=lambda make: make.__name__.strip("_"))
def test_a_state_path_that_nobody_can_use_is_refused_in_one_line(
    project: Service, make: Callable[[Path], Path], figure: Figure
) -> None:
    place = project.root / "place"
    place.mkdir()
    path = make(place)
    for command in COMMANDS:
        done = _run(project, command, STATE_STORE_PATH=str(path))
        if command in WRITING or FOR_ALL[make]:
            _refuses(done, path, f"{make.__name__}, {command}")
        else:
            _reads_as_empty(done, command, f"{make.__name__}, {command}")
    Path("/dev/full.lock").unlink(missing_ok=True)
    Path("/dev/full.leader").unlink(missing_ok=True)
    figure(f"{len(COMMANDS)} commands, exit code 2, one line each, 0 tracebacks")


@pytest.mark.slow
@pytest.mark.parametrize("make", FOR_OTHERS, ids=lambda make: make.__name__.strip("_"))
def test_a_state_path_that_this_user_may_not_use_is_refused_in_one_line(
    project: Service, make: Callable[[Path], Path], figure: Figure
) -> None:
    before = _without_privilege()
    place = project.root / "place"
    place.mkdir()
    path = make(place)
    for command in COMMANDS:
        done = _run(project, command, *before, STATE_STORE_PATH=str(path))
        if command in WRITING or FOR_OTHERS[make]:
            _refuses(done, path, f"{make.__name__}, {command}")
        else:
            _reads_as_empty(done, command, f"{make.__name__}, {command}")
    figure(f"{len(COMMANDS)} commands without the right to it, exit code 2, one line each, 0 tracebacks")


def test_a_missing_directory_is_made_and_a_dangling_link_is_filled(project: Service, figure: Figure) -> None:
    link = project.root / "link.jsonl"
    link.symlink_to(project.root / "behind" / "log.jsonl")
    made = 0
    for path in (project.root / "a" / "b" / "c" / "log.jsonl", link):
        for command in ("status", "runs"):
            _reads_as_empty(_run(project, command, STATE_STORE_PATH=str(path)), command, command)
        assert not path.exists()
        done = _run(project, "run", STATE_STORE_PATH=str(path))
        assert (done.returncode, done.stderr) == (0, "")
        assert path.stat().st_size > 0
        made += 1
    assert link.is_symlink()
    figure(f"{made} logs made where nothing was, and read as empty before")


@pytest.mark.slow
@pytest.mark.parametrize("make", FOR_ALL, ids=lambda make: make.__name__.strip("_"))
def test_a_task_log_that_nobody_can_use_is_told_and_leaves_no_run_open(
    project: Service, make: Callable[[Path], Path], figure: Figure
) -> None:
    place = project.root / "place"
    place.mkdir()
    path = make(place)
    for command in ("once", "run"):
        done = _run(project, command, ORCH_EVENTS_PATH=str(path))
        said = f"{make.__name__}, {command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "task event lost" in done.stderr, said
        assert "written, but" not in done.stderr, said
        # What the tasks did is not on record, and said so; the runs themselves are.
        assert done.returncode == 0, said
        assert "Traceback" not in done.stderr + done.stdout, said
        assert str(path) in done.stderr + done.stdout or os.path.realpath(path) in done.stderr + done.stdout, said
    started = [event["run_id"] for event in project.events("run_started")]
    ended = [event["run_id"] for event in project.events("run_finished")]
    assert sorted(started) == sorted(ended)
    Path("/dev/full.lock").unlink(missing_ok=True)
    figure("2 commands: the path is named, every run that started has its end, 0 tracebacks")
