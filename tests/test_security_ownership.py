"""Root runs nothing that others may write: schedules, DAGs, and the directories they lie in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service import REPOSITORY, Service

from scheduler.reload import ConfigurationWatch
from scheduler.schedules import read_configuration, validate
from workers.dag import load_dag
from workers.errors import InvalidFile
from workers.ownership import directories_between

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user, and only root asks")
NOBODY = 65534
PLACES = [".", "schedules", "schedules/s.yaml", "dags", "dags/deep", "dags/deep/d.yaml"]
Spoil = Callable[[Path], object]
SPOILED: dict[str, tuple[Spoil, str]] = {
    "written by others": (lambda place: place.chmod(place.stat().st_mode | 0o002), "chmod go-w"),
    "written by a group": (lambda place: (os.chown(place, 0, 1), place.chmod(0o775)), "chmod go-w"),
    "of another user": (lambda place: os.chown(place, NOBODY, 0), "chown root"),
    "sticky": (lambda place: place.chmod(0o1777), "chmod go-w"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a directory that anybody may write, as /tmp is."""
    tmp_path.chmod(0o1777)
    project = tmp_path / "project"
    (project / "schedules").mkdir(parents=True)
    (project / "dags" / "deep").mkdir(parents=True)
    (project / "dags" / "deep" / "d.yaml").write_text('{"id": "d", "tasks": [{"id": "t", "run": ["true"]}]}')
    (project / "schedules" / "s.yaml").write_text('[{"id": "s", "cron": "* * * * *", "dag": "dags/deep/d.yaml"}]')
    return project


def tickpool(project: Path, *words: str, option: str = "-m") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, option, *words]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)


@is_root
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", SPOILED)
def test_root_refuses_what_others_may_write_and_says_how_to_mend_it(project: Path, place: str, how: str) -> None:
    spoil, mend = SPOILED[how]
    assert read_configuration(project / "schedules").faults == []
    spoil(project / place)
    configuration = read_configuration(project / "schedules")
    (fault,) = configuration.faults
    assert fault.path == str(project / place)
    assert mend in fault.message
    assert configuration.schedules == []
    assert validate(project / "schedules")[1] == [fault]
    if not place.startswith("schedules"):
        with pytest.raises(InvalidFile, match=mend):
            load_dag(Path("dags/deep/d.yaml"), project)


@is_root
def test_a_link_is_judged_by_what_it_leads_to(project: Path, tmp_path: Path) -> None:
    (project / "dags" / "real").mkdir(mode=0o777)
    (project / "dags" / "real").chmod(0o777)
    os.rename(project / "dags/deep/d.yaml", project / "dags/real/d.yaml")
    (project / "dags/deep/d.yaml").symlink_to("../real/d.yaml")
    assert [fault.path for fault in read_configuration(project / "schedules").faults] == [f"{project}/dags/real"]
    elsewhere = tmp_path / "s.yaml"
    elsewhere.write_text("[]")
    elsewhere.chmod(0o666)
    (project / "dags" / "real").chmod(0o755)
    (project / "schedules" / "link.yaml").symlink_to(elsewhere)
    (fault,) = read_configuration(project / "schedules").faults
    assert fault.path == f"{project}/schedules/link.yaml"


def test_what_only_root_and_its_group_may_write_is_taken(project: Path) -> None:
    for place in PLACES:
        (project / place).chmod(0o775 if (project / place).is_dir() else 0o664)  # a checkout with umask 002
    if os.geteuid() == 0:
        assert (project / "dags").stat().st_gid == 0
    configuration = read_configuration(project / "schedules")
    assert (configuration.faults, len(configuration.schedules)) == ([], 1)


@is_root
@pytest.mark.parametrize("place", PLACES)
def test_the_commands_refuse_it_with_their_exit_codes(project: Path, place: str) -> None:
    (project / place).chmod(0o777)
    validated = tickpool(project, "scheduler.cli", "validate")
    assert (validated.returncode, "chmod go-w" in validated.stdout) == (1, True)
    once = tickpool(project, "scheduler", "--dir", "schedules", "--once")
    assert (once.returncode, "chmod go-w" in once.stderr) == (2, True)
    assert "Enqueued 0 run(s)" in once.stdout
    if not place.startswith("schedules"):
        by_hand = tickpool(project, "workers", "dags/deep/d.yaml")
        assert (by_hand.returncode, "chmod go-w" in by_hand.stderr, by_hand.stdout) == (2, True, "")


@is_root
@pytest.mark.parametrize("place", PLACES)
def test_a_reload_sees_who_may_write_and_keeps_the_old_configuration(project: Path, place: str) -> None:
    watch = ConfigurationWatch(project / "schedules")
    before = (project / place).stat().st_mode
    (project / place).chmod(before | 0o002)
    assert watch.poll() is None  # the second scan in a row decides
    refused = watch.poll()
    assert refused is not None
    assert "chmod go-w" in refused.faults[0].message
    assert len(watch.current.schedules) == 1
    (project / place).chmod(before)
    assert watch.poll() is None
    mended = watch.poll()
    assert mended is not None
    assert (mended.faults, len(mended.schedules)) == ([], 1)


@is_root
def test_a_dag_that_others_came_to_write_is_not_run(tmp_path: Path, wait_for: Any) -> None:
    service = Service(tmp_path)
    try:
        dag = service.dag("d", "true")
        service.environ["SCHED_MAX_PARALLEL"] = "1"
        service.start()
        first = service.ask(dag)
        wait_for(lambda: service.has_ended(first), 60, "the end of the first run")
        (tmp_path / dag).chmod(0o666)  # neither its content nor its time of change; the worker has it in memory
        second = service.ask(dag)
        wait_for(lambda: service.has_ended(second), 60, "the end of the second run")
    finally:
        service.end()
    ends = {event["run_id"]: event for event in service.events("run_finished")}
    assert ends[first]["status"] == "success"
    assert ends[second]["status"] == "failed"
    assert "chmod go-w" in ends[second]["reason"]
    assert not (tmp_path / "logs" / "runs" / second).exists()


@is_root
def test_a_user_who_is_not_root_is_asked_for_no_owner(project: Path) -> None:
    for place in PLACES:
        (project / place).chmod(0o777)
    look = (
        "import os, sys; from pathlib import Path; from scheduler.schedules import read_configuration as read; "
        "place = Path(sys.argv[1]); before = read(place); os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "after = read(place); print(len(before.schedules), len(after.schedules), after.faults)"
    )
    with tempfile.TemporaryDirectory() as public:  # pytest's own directories are for root alone
        os.chmod(public, 0o755)
        shutil.copytree(project, f"{public}/project")
        done = tickpool(project, look, f"{public}/project/schedules", option="-c")
    assert done.stdout == "0 1 []\n", done.stderr


def test_the_directories_of_a_file_are_those_of_its_path_and_of_its_place(project: Path) -> None:
    (project / "dags" / "link.yaml").symlink_to("deep/d.yaml")
    (project / "dags" / "out.yaml").symlink_to("/etc/hostname")
    root = str(project)
    assert directories_between(project, Path("x.yaml")) == [root]
    assert directories_between(project, Path("dags/link.yaml")) == [root, f"{root}/dags", f"{root}/dags/deep"]
    assert directories_between(project, Path("dags/out.yaml")) == [root, f"{root}/dags", "/etc"]
