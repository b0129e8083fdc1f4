"""The scripts of a checkout, in a copy of it with a `.venv` of its own that borrows the installed libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from service import REPOSITORY

from workers.settings import variables

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout whose `.venv` counts as installed."""
    root = tmp_path / "check out"
    for name in ("scheduler", "workers", "scripts", "dags"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, root)
    (root / "schedules").mkdir()
    (root / "schedules" / "s.yaml").write_text('- {id: s, cron: "* * * * *", dag: dags/s.yaml}\n')
    (root / "dags" / "s.yaml").write_text("id: s\ntasks:\n  - {id: t, run: 'true'}\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    stamp = "".join((root / name).read_text() for name in ("requirements.lock", "pyproject.toml", "scripts/venv.sh"))
    (root / ".venv" / ".installed-requirements").write_text(stamp)
    site = root / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site / "borrowed.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n")
    return root


@pytest.fixture
def script(checkout: Path, tmp_path: Path) -> Script:
    """Run a script of the checkout from another directory, in an environment without our variables."""

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        ours = {variable.name for variable in variables()} | {"PYTHONPATH"}
        env = {key: value for key, value in os.environ.items() if key not in ours}
        command = [checkout / "scripts" / name, *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_tick_once_needs_no_argument_and_works_from_any_directory(script: Script, checkout: Path) -> None:
    done = script("tick_once.sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "Loaded 1 schedule(s) from schedules",
        "Running single tick...",
        "Enqueued 1 run(s)",
    ]
    assert (checkout / "logs" / "orchestrator_state.jsonl").exists()


def test_tick_once_exits_1_when_a_run_failed(script: Script, checkout: Path) -> None:
    (checkout / "dags" / "s.yaml").write_text("id: s\ntasks:\n  - {id: t, run: 'false'}\n")
    assert script("tick_once.sh").returncode == 1


def test_status_says_down_with_exit_2_and_json(script: Script) -> None:
    done = script("status", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["supervisor"]["pid"] is None


def test_the_console_script_of_a_checkout_starts_workers_once(checkout: Path) -> None:
    """Workers import the main module again: without a guard in it, each would start a tickpool of its own."""
    text = (REPOSITORY / "scripts" / "venv.sh").read_text()
    lines = [line for line in text.splitlines() if ".venv/bin/tickpool" in line]
    environ = {**os.environ, "PYTHON": str(checkout / ".venv" / "bin" / "python")}
    subprocess.run(["sh", "-eu"], input="\n".join(lines), text=True, cwd=checkout, env=environ, check=True)
    command = [checkout / ".venv" / "bin" / "tickpool", "tick", "--json"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in json.loads(done.stdout)["runs"]] == ["success"]


def test_the_unit_starts_what_the_checkout_has() -> None:
    unit = (REPOSITORY / "scripts" / "tickpool.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert settings["Type"] == "notify"
    assert settings["KillMode"] == "process"
    assert int(settings["WatchdogSec"]) > 0
    assert settings["ExecReload"].endswith("kill -HUP $MAINPID")
    assert " -m scheduler.supervisor --dir " in settings["ExecStart"]
