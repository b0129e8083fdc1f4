"""What a task is given of the service, and what it can do to it by what it writes, leaves and sends back."""

from __future__ import annotations

import json
import os
import pickle
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import Outside
from service import Service

from workers.event_log import EventLog
from workers.lock import Lock
from workers.log_files import LogUnwritable
from workers.runner import RunInfo, run_dag
from workers.tasks import BadOutputs, read_outputs

# What the service has and no task must see.
SERVICE_ENV = {
    "NOTIFY_SOCKET": "/nowhere",
    "WATCHDOG_USEC": "30000000",
    "WATCHDOG_PID": "1",
    "CREDENTIALS_DIRECTORY": "/nowhere",
    "LISTEN_FDS": "1",
    "LISTEN_PID": "1",
    "INVOCATION_ID": "0",
    "JOURNAL_STREAM": "1:1",
    "TICKPOOL_FAILPOINTS": "off",
    "AWS_SECRET_ACCESS_KEY": "x",
    "PYTHONSTARTUP": "/nowhere",
    "SOME_VARIABLE": "x",
}
ALLOWED = {
    *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "VIRTUAL_ENV"),
    *("STATE_STORE_PATH", "ORCH_EVENTS_PATH", "RUN_LOGS_DIR", "RUN_ID", "SCHEDULE_ID", "DAG_ID", "FIRE_TIME"),
    *("ATTEMPT", "RUN_DIR", "TICKPOOL_RUN", "TASK_ID", "TASK_ATTEMPT", "TASK_OUTPUT", "RUN_STATUS", "RUN_REASON"),
    *("PWD", "SHLVL", "OLDPWD", "_"),  # the shell's own
}
# Tells in JSON what a process sees: descriptors, environment, umask, standard input.
LOOK = """\
import json, os, sys

def look(name):
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # the listing's own
    mask = os.umask(0)
    os.umask(mask)
    seen = {"fds": fds, "env": sorted(os.environ), "umask": mask, "stdin": os.read(0, 9).decode()}
    with open(os.path.join(os.environ["RUN_DIR"], name + ".json"), "w") as file:
        json.dump(seen, file)

if __name__ == "__main__":
    look(sys.argv[1])
"""
ATTACK = """\
import glob, os, pickle

class Bomb:
    def __reduce__(self):
        return os.system, ("touch " + os.path.abspath("pwned"),)

def attack():
    bomb = pickle.dumps(Bomb())
    frame = len(bomb).to_bytes(4, "big") + bomb
    for data in (bomb, frame, b"\\n" + frame + b"\\n", b"\\0" * 64 + bomb):
        for name in os.listdir("/proc/self/fd"):
            try:
                os.write(int(name), data)
            except OSError:
                pass
    with open(os.environ["TASK_OUTPUT"], "wb") as file:
        file.write(bomb)
    return {"bomb": bomb.decode("latin-1"), "raw": [bomb.decode("latin-1")] * 3}

def answer():
    return Bomb()

if __name__ == "__main__":
    attack()
"""


@pytest.fixture
def looks(service: Service, wait_for: Any) -> dict[str, Any]:
    """What each kind of task sees under a real service that has variables, descriptors and a umask of its own."""
    service.environ.update(SERVICE_ENV)
    del service.environ["WATCHDOG_PID"]
    (service.root / "look.py").write_text(LOOK)
    dag = {
        "id": "d",
        "tasks": [
            {"id": "command", "run": [sys.executable, "look.py", "command"]},
            {"id": "shell", "run": f"{sys.executable} look.py shell"},
            {"id": "forked", "call": "look:look", "args": {"name": "forked"}},
        ],
        "on_exit": [{"id": "hook", "run": [sys.executable, "look.py", "hook"]}],
    }
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    run_id = service.ask("dags/d.yaml")
    service.start()
    wait_for(lambda: service.has_ended(run_id), 60, "the end of the run")
    assert service.story(run_id) == ["run_started 1", "run_finished 1 success"], service.err()
    place = service.root / "logs" / "runs" / run_id / "1"
    return {name: json.loads((place / f"{name}.json").read_text()) for name in ("command", "shell", "forked", "hook")}


def test_a_task_gets_a_small_environment_and_nothing_of_the_services(looks: dict[str, Any]) -> None:
    for name, seen in looks.items():
        extra = {each for each in seen["env"] if each not in ALLOWED and not each.startswith(("LC_", "PARAM_"))}
        assert not extra, name
        assert not set(SERVICE_ENV) & set(seen["env"]), name


def test_a_task_has_no_descriptor_of_the_service(looks: dict[str, Any]) -> None:
    for name, seen in looks.items():
        fds = seen["fds"]
        assert fds.pop("0") == "/dev/null"
        assert fds.pop("1").startswith("pipe:")
        assert fds.pop("2").startswith("pipe:")
        # A forked Python has two more: what it reports in, and the way to multiprocessing's resource tracker.
        kinds = sorted(target.partition(":")[0].partition(" ")[0] for target in fds.values())
        assert kinds == (["/memfd", "pipe"] if name == "forked" else []), (name, fds)


def test_a_task_has_an_empty_input_and_shares_what_it_writes_with_nobody(looks: dict[str, Any]) -> None:
    for name, seen in looks.items():
        assert seen["stdin"] == "", name
        assert oct(seen["umask"]) == "0o77", name


def test_logs_keep_the_umask_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    task = {"id": "t", "run": "echo hi; touch made"}
    (tmp_path / "dags" / "d.yaml").write_text(json.dumps({"id": "d", "tasks": [task]}))
    before = os.umask(0o027)
    try:
        run_dag("dags/d.yaml", project=tmp_path, run=RunInfo("r1"))
        log = EventLog(tmp_path / "state.jsonl")
        log.append({"event": "x"})
        log.close()
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes["made"] == "0o600"
    assert (modes["t.1.log"], modes["t.1.log.times"], modes["state.jsonl"]) == ("0o640",) * 3
    assert oct((tmp_path / "logs" / "runs" / "r1" / "1").stat().st_mode & 0o777) == "0o750"


# -- no pickle ---------------------------------------------------------------------------------------------------


def test_the_bomb_of_these_tests_goes_off_where_it_is_unpickled(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "attack_here.py").write_text(ATTACK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import attack_here

    pickle.loads(pickle.dumps(attack_here.Bomb()))
    assert (tmp_path / "pwned").exists()


def test_nothing_a_task_writes_is_executed(service: Service, wait_for: Any) -> None:
    (service.root / "attack.py").write_text(ATTACK)
    tasks: list[dict[str, Any]] = [
        {"id": "command", "run": [sys.executable, "attack.py"], "continue_on_failure": True},
        {"id": "forked", "call": "attack:attack", "continue_on_failure": True},
        {"id": "answer", "call": "attack:answer", "continue_on_failure": True},
        {"id": "here", "call": "attack:answer", "isolate": False, "continue_on_failure": True},
        {"id": "log", "run": ["sh", "-c", _append_to_logs()], "continue_on_failure": True},
    ]
    dag = service.tasks("bombs", *tasks)
    bombs = [service.ask(dag) for _ in range(3)]
    service.start()
    wait_for(lambda: service.has_ended(*bombs), 60, "the end of the runs")
    last = service.ask(service.dag("after", "true"))
    wait_for(lambda: service.has_ended(last), 60, "the end of a run after them")
    assert service.story(last) == ["run_started 1", "run_finished 1 success"]
    ends = {event["task_id"]: event for event in _task_events(service, "task_finished")}
    assert set(ends) == {task["id"] for task in tasks} | {"t"}
    assert "TASK_OUTPUT" in ends["command"]["reason"]
    assert "cannot be written as JSON" in ends["answer"]["reason"]
    assert not list(service.root.rglob("pwned"))


def _append_to_logs() -> str:
    return textwrap.dedent("""\
        python3 -c "import attack, pickle, sys; sys.stdout.buffer.write(pickle.dumps(attack.Bomb()) + bytes([10]))" \
            | tee -a "$STATE_STORE_PATH" >> "$ORCH_EVENTS_PATH"
        """)


def _task_events(service: Service, name: str) -> list[dict[str, Any]]:
    lines = (service.root / "logs" / "orchestrator_events.jsonl").read_bytes().splitlines()
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # the attacker's
    return [event for event in events if event.get("event") == name]


# -- what a task leaves in the way -------------------------------------------------------------------------------


def _plant(place: Path, kind: str, outside: Outside) -> None:
    if kind == "link":
        place.symlink_to(outside.precious)
    elif kind == "dangling":
        place.symlink_to(outside.root / "made")
    elif kind == "hard":
        os.link(outside.precious, place)
        outside.touched()  # the link itself changes the file
    else:
        os.mkfifo(place)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard", "fifo"])
@pytest.mark.parametrize("suffix", ["log", "log.times", "output"])
def test_a_link_planted_for_the_next_attempt_is_not_followed(
    outside: Outside, tmp_path: Path, kind: str, suffix: str
) -> None:
    project = tmp_path / "project"
    run = 'echo hi; [ "$TASK_ATTEMPT" = 2 ] && echo a=b >> "$TASK_OUTPUT"'
    task = {"id": "t", "run": run, "retries": {"max": 1}}
    (project / "dags" / "d.yaml").write_text(json.dumps({"id": "d", "tasks": [task]}))

    def record(event: dict[str, Any]) -> None:
        if event["event"] == "task_retried":
            _plant(project / "logs" / "runs" / "r1" / "1" / f"t.2.{suffix}", kind, outside)

    ended = run_dag("dags/d.yaml", project=project, run=RunInfo("r1"), record=record)
    result = ended["tasks"]["t"]
    assert (ended["status"], result["attempts"], result["outputs"]) == ("success", 2, {"a": "b"})
    if kind == "hard":
        outside.touched()  # its last name in the project went


@pytest.mark.parametrize("depth", ["r1", "r1/1"])
def test_a_link_planted_for_the_directory_of_a_run_is_not_followed(
    outside: Outside, tmp_path: Path, depth: str
) -> None:
    project = tmp_path / "project"
    (project / "dags" / "d.yaml").write_text(json.dumps({"id": "d", "tasks": [{"id": "t", "run": "echo hi"}]}))
    place = project / "logs" / "runs" / depth
    place.parent.mkdir(parents=True)
    place.symlink_to(outside.root)
    ended = run_dag("dags/d.yaml", project=project, run=RunInfo("r1"))
    assert ended["status"] == "failed"
    assert "a link or a file is in its way" in ended["reason"]
    assert sorted(path.name for path in outside.root.iterdir()) == ["dags", "precious"]


def test_an_output_file_that_is_a_link_or_a_fifo_is_no_output(outside: Outside, tmp_path: Path) -> None:
    for kind in ("link", "dangling", "fifo"):
        _plant(tmp_path / kind, kind, outside)
        with pytest.raises(BadOutputs, match="is not a regular file"):
            read_outputs(str(tmp_path / kind))
    assert read_outputs(str(tmp_path / "none")) == {}


@pytest.mark.parametrize("name", ["state.jsonl.lock", "state.jsonl.next", "state.jsonl.torn"])
def test_a_link_planted_beside_the_log_is_not_followed(outside: Outside, tmp_path: Path, name: str) -> None:
    state = tmp_path / "state.jsonl"
    state.write_bytes(b"half a line" if name.endswith("torn") else b"")
    (tmp_path / name).symlink_to(outside.root / "made")
    log = EventLog(state)
    works = _tells_whether(lambda: log.append({"event": "x"}))
    if works:
        log.rotate(0, lambda _: [])
    log.close()
    # The new segment takes the link's place; a lock or a place for torn lines is never made elsewhere.
    assert works is name.endswith("next")
    assert not (outside.root / "made").exists()


def test_a_link_in_place_of_a_lock_is_not_followed(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(outside.root / "made")
    lock = Lock(tmp_path / "lock")
    with pytest.raises(OSError, match="symbolic links"):
        lock.try_acquire()


def _tells_whether(act: Callable[[], object]) -> bool:
    try:
        act()
    except LogUnwritable as error:
        return "symbolic links" not in str(error)
    return True
