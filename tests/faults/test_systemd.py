"""The shipped unit under a real systemd: each promise of docs/operations.md, on a machine of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service import Service
from service_manager import REPOSITORY, UNIT, Machine, why_not

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]
PROJECT = "/opt/tickpool"
HELD = "touch var/up; echo kept > /tmp/kept; while [ ! -e var/go ]; do sleep 0.02; done; cat /tmp/kept; mktemp"


@pytest.fixture
def machine(tmp_path: Path, wait_for: WaitFor) -> Iterator[Machine]:
    """A booted machine with the checkout, before anything was installed."""
    if reason := why_not():
        pytest.skip(reason)
    machine = Machine(tmp_path)
    try:
        machine.start()
        wait_for(machine.is_up, timeout=60, what="a booted systemd")
        yield machine
    finally:
        machine.end()


@pytest.fixture
def service(machine: Machine) -> Service:
    """The project on that machine; its processes are the machine's."""
    service = Service(machine.checkout)
    service.log = machine.state / "orchestrator_state.jsonl"
    return service


def _docs_commands(behind: str = "\n## As a systemd service\n") -> list[str]:
    """The commands of the first block behind these words of docs/operations.md."""
    section = (REPOSITORY / "docs/operations.md").read_text("utf-8").partition(behind)[2]
    return section.partition("```sh\n")[2].partition("```")[0].splitlines()


def _do_for_the_unit(machine: Machine, *words: str, user: str = UNIT) -> subprocess.CompletedProcess[str]:
    """Run a command of tickpool as the docs say; `runuser` for `sudo`, which tells the same of who typed it."""
    told = "\n".join(_docs_commands("\n## Commands for the unit\n"))
    function = told.replace("sudo -u tickpool", f"SUDO_USER=ann runuser -u {user} --").partition("\n}\n")[0]
    return machine.run("sh", "-ec", f'{function}\n}}\ntickpool "$@"', "-", *words)


def _install(machine: Machine) -> str:
    """Do what the docs say, but for making `.venv`, which is there; return what the last command prints."""
    commands = _docs_commands()
    made = [line for line in commands if ".venv" in line]
    assert made == ["python3 -m venv .venv", ".venv/bin/pip install --require-hashes -r requirements.lock"]
    done = machine.run("sh", "-ec", "\n".join(line for line in commands if line not in made))
    assert done.returncode == 0, f"{done.stderr}\n{machine.journal()}"
    return done.stdout


def _set(machine: Machine, **variables: str) -> None:
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    machine.run("sh", "-c", f"cat > /etc/default/{UNIT}", stdin=text)


def _is_active(machine: Machine) -> bool:
    return machine.show("ActiveState") == "active"


def _ask_held(machine: Machine, service: Service, wait_for: WaitFor) -> str:
    """Start a run that goes on until `_let_go`."""
    run_id = service.ask(service.dag("held", HELD), project=PROJECT)
    wait_for((machine.checkout / "var" / "up").exists, timeout=20, what="the task")
    return run_id


def _let_go(machine: Machine) -> None:
    (machine.checkout / "var" / "go").touch()


def _await_successor(machine: Machine, old: str, wait_for: WaitFor) -> float:
    """Wait until another supervisor is ready; return after how many seconds."""
    began = time.monotonic()
    wait_for(lambda: machine.show("MainPID") not in ("0", old) and _is_active(machine), timeout=60, what="a successor")
    return time.monotonic() - began


# -- start -----------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_docs_install_a_service_that_works(
    machine: Machine, service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    service.schedule("nightly", "0 3 * * *", service.dag("d", "id -un; grep CapEff /proc/self/status"))
    began = time.monotonic()
    shown = _install(machine)
    started_s = time.monotonic() - began
    assert "Active: active (running)" in shown
    assert re.search(r'Status: "\d running, 0 queued, 1 schedules"', machine.systemctl("status", UNIT))
    assert machine.systemctl("is-enabled", UNIT).strip() == "enabled"
    run_id = service.ask("dags/d.yaml", project=PROJECT)
    wait_for(lambda: service.has_ended(run_id), timeout=20)
    assert service.story(run_id) == ["run_started 1", "run_finished 1 success"]
    [log] = (machine.state / "runs" / run_id).rglob("*.log")
    user, capabilities = log.read_text("ascii").splitlines()
    assert (user, int(capabilities.split()[1], 16)) == ("tickpool", 0)
    figure(f"installed, started and ready in {started_s:.1f} s; a run as tickpool, without capabilities, succeeded")


def test_a_command_for_the_unit_reaches_the_service_and_says_who_typed_it(machine: Machine, service: Service) -> None:
    service.schedule("nightly", "0 3 * * *", service.dag("d", "echo well"))
    _install(machine)
    assert _do_for_the_unit(machine, "status").returncode == 0
    done = _do_for_the_unit(machine, "trigger", "nightly", "--wait")
    assert done.returncode == 0, done.stderr
    (request,) = service.events("run_requested")
    assert request["by"].startswith("ann@")
    assert "well" in _do_for_the_unit(machine, "logs", request["run_id"]).stdout


def test_members_of_the_group_may_look_and_ask_for_nothing(machine: Machine, service: Service) -> None:
    service.schedule("nightly", "0 3 * * *", service.dag("d", "echo well"))
    _install(machine)
    assert machine.run("useradd", "--groups", UNIT, "ann").returncode == 0
    assert _do_for_the_unit(machine, "trigger", "nightly", "--wait").returncode == 0
    (request,) = service.events("run_requested")
    looks = [["status"], ["runs"], ["stats"], ["audit"], ["show", request["run_id"]], ["logs", request["run_id"]]]
    told = {words[0]: _do_for_the_unit(machine, *words, user="ann") for words in looks}
    assert {name: done.stderr for name, done in told.items() if done.returncode} == {}
    assert "well" in told["logs"].stdout
    for words in (["pause", "nightly"], ["trigger", "nightly"], ["cancel", "--queued"]):
        done = _do_for_the_unit(machine, *words, user="ann")
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done
    assert len(service.events("run_requested")) == 1
    assert service.events("schedule_paused") == []


ASK = """
import json, sys, urllib.request
path, *body = sys.argv[1:]
token = open("/var/lib/tickpool/orchestrator_state.jsonl.tokens").read().split()[-1]
headers = {"Authorization": f"Bearer {token}", "X-Tickpool": "1", "Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8400" + path, body[0].encode() if body else None, headers)
sys.stdout.write(urllib.request.urlopen(request).read().decode())
"""


def test_the_dashboard_beside_the_unit_sees_the_service_and_has_it_run_what_is_asked(
    machine: Machine, service: Service, wait_for: WaitFor
) -> None:
    service.schedule("nightly", "0 3 * * *", service.dag("d", "echo well"))
    _install(machine)
    commands = _docs_commands("\n**The dashboard** beside the unit")
    done = machine.run("sh", "-ec", "\n".join(line for line in commands if not line.startswith("cat ")))
    assert done.returncode == 0, done.stderr

    def ask(*words: str) -> str:
        return machine.run(".venv/bin/python", "-c", ASK, *words).stdout

    wait_for(lambda: "tickpool_up 1.0" in ask("/metrics"), timeout=30, what="the dashboard")
    assert "tickpool_workers_wanted 3.0" in ask("/metrics")
    ask("/api/v1/schedules/nightly/trigger", "{}")
    (request,) = service.events("run_requested")
    assert request["by"] == "tickpool@dashboard"
    wait_for(lambda: service.has_ended(request["run_id"]), timeout=20)
    assert service.story(request["run_id"])[-1] == "run_finished 1 success"
    machine.systemctl("stop", f"{UNIT}-dashboard")
    assert machine.systemctl("show", "--value", "--property=Result", f"{UNIT}-dashboard").strip() == "success"
    assert _is_active(machine)


def test_the_service_is_active_only_when_it_is_ready(
    machine: Machine, service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    _install(machine)
    machine.systemctl("stop", UNIT)
    _set(machine, STATE_LOCK_TIMEOUT_S="0.2")
    # Who holds the log's lock holds up recovery, and so READY=1.
    hold = ["flock", "--no-fork", str(service.log) + ".lock", "cat"]
    with subprocess.Popen(hold, stdin=subprocess.PIPE) as holder:
        wait_for(lambda: subprocess.run([*hold[:1], "-n", hold[2], "true"], check=False).returncode)
        machine.systemctl("start", "--no-block", UNIT)
        wait_for(lambda: "the service cannot begin" in machine.journal(), timeout=20)
        assert machine.show("ActiveState") == "activating"
        assert holder.stdin
        holder.stdin.close()
        began = time.monotonic()
        wait_for(lambda: _is_active(machine), timeout=20)
    figure(f"activating while the log was locked, active {time.monotonic() - began:.1f} s after")


def test_a_configuration_that_cannot_be_mended_by_a_restart_is_not_restarted(
    machine: Machine, wait_for: WaitFor, figure: Figure
) -> None:
    _install(machine)
    schedules = machine.checkout / "schedules"
    faults: list[tuple[str, Callable[[], object]]] = [
        ("environment variable SCHED_MAX_PARALLEL='many'", lambda: _set(machine, SCHED_MAX_PARALLEL="many")),
        ("Read-only file system", lambda: _set(machine, STATE_STORE_PATH="/etc/tickpool/state.jsonl")),
        ("Permission denied", lambda: _set(machine, STATE_STORE_PATH="/var/lib/tickpool/shut/state.jsonl")),
        ("no such directory", lambda: (_set(machine), schedules.rename(schedules.with_name("other")))),
    ]
    machine.run("mkdir", "-m", "700", "/var/lib/tickpool/shut")
    for named, break_it in faults:
        break_it()
        assert machine.run("systemctl", "restart", UNIT).returncode == 1
        assert [machine.show(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")] == ["failed", "2", "0"]
        assert named in machine.journal()
    figure(f"{len(faults)} faults of the configuration: exit code 2, its reason in the journal, 0 restarts")


def test_a_credential_of_the_unit_reaches_the_service(machine: Machine, figure: Figure) -> None:
    machine.run("sh", "-c", "umask 077; echo s3cret > /etc/token")
    machine.drop_in("[Service]\nLoadCredential=token:/etc/token\nSetCredential=region:eu\n")
    _install(machine)
    pid = machine.show("MainPID")
    told = machine.run("sh", "-c", f"tr '\\0' '\\n' < /proc/{pid}/environ").stdout
    place = re.search("^CREDENTIALS_DIRECTORY=(.*)$", told, re.MULTILINE)
    assert place
    user = ["nsenter", f"--target={pid}", "--mount", "setpriv", "--reuid=tickpool", "--clear-groups"]

    values = [machine.run(*user, "cat", f"{place[1]}/{name}").stdout for name in ("token", "region")]
    assert values == ["s3cret\n", "eu"]
    assert machine.run(*user, "cat", "/etc/token").returncode == 1
    figure("LoadCredential= and SetCredential= readable by the service in $CREDENTIALS_DIRECTORY, the source is not")


def test_the_units_are_without_fault_and_their_score_is_good(machine: Machine, tmp_path: Path, figure: Figure) -> None:
    _install(machine)
    for name in (UNIT, f"{UNIT}-dashboard"):
        done = machine.run("systemd-analyze", "verify", f"/opt/tickpool/scripts/{name}.service")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    scores = [_score(tmp_path / "shipped"), _score(tmp_path / "permissive", "10-permissive.conf")]
    assert scores[0] <= 2.0
    page = (REPOSITORY / "docs/operations.md").read_text("utf-8")
    assert [f"{score} (" in page for score in scores] == [True, True], scores
    figure(f"systemd-analyze verify: no word; security: {scores[0]}, permissive {scores[1]}")


def _score(place: Path, *drop_ins: str) -> float:
    """Return the exposure of the shipped unit with these of its drop-ins."""
    shutil.copytree(REPOSITORY / "scripts" / f"{UNIT}.service.d", place / f"{UNIT}.service.d")
    for path in (place / f"{UNIT}.service.d").iterdir():
        if path.name not in drop_ins:
            path.unlink()
    shutil.copy(REPOSITORY / "scripts" / f"{UNIT}.service", place)
    analyze = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(place / f"{UNIT}.service")]
    told = subprocess.run(analyze, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])


def test_the_permissive_drop_in_gives_tasks_what_the_unit_takes_away(
    machine: Machine, service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    _install(machine)
    machine.run("sh", "-ec", "cp /usr/bin/id /usr/bin/setuid-id; chmod 4755 /usr/bin/setuid-id")
    dag = service.dag("d", "setuid-id -u; stat -c '%a %u' /tmp /var/tmp")
    place = f"/etc/systemd/system/{UNIT}.service.d"
    told = []
    for drop_in in ("", "10-permissive.conf"):
        if drop_in:
            machine.run("sh", "-ec", f"mkdir {place}; cp scripts/{UNIT}.service.d/{drop_in} {place}")
            machine.systemctl("daemon-reload")
            machine.systemctl("restart", UNIT)
        run_id = service.ask(dag, project=PROJECT)
        wait_for(lambda run_id=run_id: service.has_ended(run_id), timeout=20)
        [log] = (machine.state / "runs" / run_id).rglob("*.log")
        told.append(log.read_text("ascii").split())
    user = machine.run("id", "-u", UNIT).stdout.strip()
    assert told == [[user, *["700", user] * 2], ["0", *["1777", user] * 2]]
    figure("a setuid program changes its user with the drop-in, and not without it; /tmp is 1777, 0700 without it")


# -- reload and stop -------------------------------------------------------------------------------------------------


def test_reload_takes_a_changed_schedule(machine: Machine, service: Service, wait_for: WaitFor, figure: Figure) -> None:
    dag = service.dag("d", "true")
    service.schedule("s", "0 3 * * *", dag)
    # Nothing but the signal makes it look sooner than in a minute.
    _set(machine, SCHED_TICK_MS="60000")
    _install(machine)
    pid = machine.show("MainPID")
    service.schedule("s", "0 4 * * *", dag)
    service.schedule("another", "0 5 * * *", dag)
    began = time.monotonic()
    machine.systemctl("reload", UNIT)
    wait_for(lambda: "2 schedules" in machine.show("StatusText"), timeout=20)
    taken_s = time.monotonic() - began
    assert len(service.events("schedules_loaded")) == 2
    assert machine.show("MainPID") == pid
    figure(f"a changed and a new schedule in force {taken_s:.2f} s after systemctl reload")


def test_stop_gives_runs_their_grace_cancels_the_rest_and_leaves_nothing(
    machine: Machine, service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    grace_s, task_grace_s = 2, 1
    _set(machine, SCHED_GRACE_S=str(grace_s), TASK_GRACE_S=str(task_grace_s))
    _install(machine)
    deaf = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 300' & touch var/deaf; while :; do sleep 0.1; done"
    good = _ask_held(machine, service, wait_for)
    bad = service.ask(service.dag("deaf", deaf), project=PROJECT)
    wait_for((machine.checkout / "var" / "deaf").exists, timeout=20)
    began = time.monotonic()
    machine.systemctl("stop", "--no-block", UNIT)
    wait_for(lambda: "Stopping: 2 run(s)" in machine.journal(), timeout=20)
    _let_go(machine)
    wait_for(lambda: machine.show("ActiveState") == "inactive", timeout=60)
    stopped_s = time.monotonic() - began
    assert service.story(good) == ["run_started 1", "run_finished 1 success"]
    assert service.story(bad) == ["run_started 1", "run_finished 1 cancelled"]
    assert [machine.show(name) for name in ("Result", "ExecMainStatus", "NRestarts")] == ["success", "0", "0"]
    assert machine.processes() == {}
    assert stopped_s < grace_s + task_grace_s + 5
    figure(f"stopped {stopped_s - grace_s - task_grace_s:.1f} s after the graces, 1 success, 1 cancelled, 0 left")


def test_a_supervisor_that_does_not_stop_in_time_leaves_nothing_and_its_run_is_cancelled(
    machine: Machine, service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    machine.drop_in("[Service]\nTimeoutStopSec=1\n")
    _install(machine)
    run_id = _ask_held(machine, service, wait_for)
    _stop_process(machine, machine.show("MainPID"))
    began = time.monotonic()
    machine.systemctl("stop", UNIT)
    assert service.story(run_id) == ["run_started 1", "run_finished 1 cancelled"]
    assert machine.show("Result") == "timeout"
    assert machine.processes() == {}
    figure(f"a stopped supervisor: all gone {time.monotonic() - began:.1f} s after systemctl stop, TimeoutStopSec=1")


def _stop_process(machine: Machine, pid: str) -> None:
    assert machine.run("kill", "-STOP", pid).returncode == 0


# -- death -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_loop_that_hangs_is_replaced_and_its_runs_go_on(
    machine: Machine, service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    watchdog_s = count(2, 30)
    shipped = (REPOSITORY / "scripts" / f"{UNIT}.service").read_text("utf-8")
    assert "\nWatchdogSec=30\n" in shipped
    if watchdog_s != 30:
        machine.drop_in(f"[Service]\nWatchdogSec={watchdog_s}\n")
    _install(machine)
    run_id = _ask_held(machine, service, wait_for)
    pid = machine.show("MainPID")
    # A loop that turns is left alone.
    started = _watchdog_us(machine)
    turning_s = 1.5 * watchdog_s
    wait_for(lambda: _watchdog_us(machine) - started > turning_s * 1e6, timeout=60, what="pings for so long")
    assert (machine.show("MainPID"), machine.show("NRestarts")) == (pid, "0")
    _stop_process(machine, pid)
    replaced_s = _await_successor(machine, pid, wait_for)
    assert service.story(run_id) == ["run_started 1"]
    _let_go(machine)
    wait_for(lambda: service.has_ended(run_id), timeout=20)
    assert service.story(run_id) == ["run_started 1", "run_finished 1 success"]
    after = service.ask("dags/held.yaml", project=PROJECT)
    wait_for(lambda: service.has_ended(after), timeout=20)
    assert service.story(after)[-1] == "run_finished 1 success"
    said = machine.journal()
    assert f"Watchdog timeout (limit {watchdog_s}s)" in said
    # The place where it hung.
    assert re.search(r"Fatal Python error: Aborted(.*\n)+?.*scheduler/supervisor\.py.* in _", said)
    assert machine.show("NRestarts") == "1"
    assert replaced_s <= watchdog_s + 5
    figure(f"WatchdogSec={watchdog_s}: a successor served after {replaced_s:.1f} s, the run went on to success")


def _watchdog_us(machine: Machine) -> int:
    """Return when the last ping came, in microseconds of the monotonic clock."""
    return int(machine.show("WatchdogTimestampMonotonic"))


def test_runs_go_on_when_the_supervisor_is_killed(
    machine: Machine, service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    _install(machine)
    run_id = _ask_held(machine, service, wait_for)
    kills, waits_s = count(2, 20), []
    for _ in range(kills):
        pid = machine.show("MainPID")
        machine.run("kill", "-KILL", pid)
        waits_s.append(_await_successor(machine, pid, wait_for))
    assert service.story(run_id) == ["run_started 1"]
    _let_go(machine)
    wait_for(lambda: service.has_ended(run_id), timeout=20)
    assert service.story(run_id) == ["run_started 1", "run_finished 1 success"]
    # What it had in /tmp was still there, and it could make more.
    [log] = (machine.state / "runs" / run_id).rglob("*.log")
    assert re.fullmatch(r"kept\n/tmp/\S+\n", log.read_text("ascii"))
    # A start limit would end it at some number of kills.
    assert machine.show("StartLimitIntervalUSec") == "0"
    # Of those that were killed no process is left.
    wait_for(lambda: sum(name == "python" for name in machine.processes().values()) == 3, timeout=20)
    assert machine.show("NRestarts") == str(kills)
    figure(f"{kills} kills of the supervisor: successor ready after {max(waits_s):.1f} s at most, 0 runs lost")


def test_a_stop_ends_the_runs_that_a_killed_supervisor_had_started(
    machine: Machine, service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    _set(machine, SCHED_GRACE_S="1")
    _install(machine)
    run_id = service.ask(service.dag("held", f"setsid sleep 300 & {HELD}"), project=PROJECT)
    forked = service.ask(service.tasks("forked", {"id": "t", "call": "naps:main"}), project=PROJECT)
    (machine.checkout / "naps.py").write_text("import time\ndef main():\n    time.sleep(300)\n", "ascii")
    wait_for(lambda: len(service.events("run_started")) == 2, timeout=20)
    wait_for((machine.checkout / "var" / "up").exists, timeout=20)
    pid = machine.show("MainPID")
    machine.run("kill", "-KILL", pid)
    _await_successor(machine, pid, wait_for)
    began = time.monotonic()
    machine.systemctl("stop", UNIT)
    assert machine.processes() == {}
    for each in (run_id, forked):
        assert service.story(each) == ["run_started 1", "run_finished 1 cancelled"]
    assert machine.show("Result") == "success"
    figure(f"2 runs of a killed supervisor cancelled by a stop of {time.monotonic() - began:.1f} s, 0 processes left")


# -- the machine itself ----------------------------------------------------------------------------------------------


def test_a_machine_that_is_switched_off_leaves_nothing_behind(
    tmp_path: Path, wait_for: WaitFor, figure: Figure
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    before = [Path(name).read_bytes() for name in ("/proc/self/mounts", "/etc/passwd", "/etc/group")]
    machine = Machine(tmp_path)
    try:
        machine.start()
        wait_for(machine.is_up, timeout=60)
        _install(machine)
        told = machine.pids_outside()
        assert len(told) >= 6
    finally:
        machine.end()
    assert [pid for pid in told if os.path.exists(f"/proc/{pid}")] == []
    assert machine.cgroups() == []
    after = [Path(name).read_bytes() for name in ("/proc/self/mounts", "/etc/passwd", "/etc/group")]
    assert before == after
    figure(f"{len(told)} processes, 1 tree of cgroups and all mounts of the machine were gone with it")
