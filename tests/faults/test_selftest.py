"""The selftest: a sound product passes it, and each way of losing or doubling something makes it fail."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from service import REPOSITORY

from scheduler import cli
from scheduler.selftest.checker import Verdict, check
from scheduler.state_store import record_event
from workers import lock
from workers.failpoints import POINTS
from workers.segments import LogReader

WaitFor = Callable[..., None]
Figure = Callable[[str], None]
Start = Callable[..., "subprocess.Popen[str]"]
Log = tuple[list[dict[str, Any]], list[str], list[str]]

# A child of the shell is a child of what the shell turns into, and none of its business.
WITH_BYSTANDER = 'sleep 300 > /dev/null 2>&1 & echo $! > "$0"; exec "$@"'


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `tickpool selftest` in `tmp_path`; whatever still works there at the end is killed."""
    begun: list[subprocess.Popen[str]] = []

    def launch(*words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        begun.append(
            subprocess.Popen(
                [*prefix, sys.executable, "-m", "scheduler.cli", "selftest", *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return begun[-1]

    yield launch
    for process in begun:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    for left in _working_in(tmp_path):
        left.kill()


def _working_in(place: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            cwd = Path(process.cwd())
        except (psutil.Error, OSError):
            continue
        if cwd == place or place in cwd.parents:
            found.append(process)
    return found


def _project(tmp_path: Path) -> Path | None:
    return next(iter(tmp_path.glob("tickpool-selftest-*")), None)


def _tell(result: dict[str, Any], figure: Figure) -> None:
    struck = ", ".join(f"{name} {n}" for name, n in result["failpoints"].items())
    kinds = ", ".join(f"{name} {n}" for name, n in result["kills"].items())
    cost = f"lost {len(result['lost'])}, twice {len(result['twice'])}, stuck {result['stuck']}"
    figure(
        f"{result['all_kills']} kills ({kinds}; {struck}), {result['asked']} runs, {cost}, descriptor growth "
        f"{result['descriptor_growth']}, {len(result['violations'])} violations, seed {result['seed']}, "
        f"{result['seconds']} s"
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_is_lost_doubled_or_stuck_however_it_is_killed(
    start: Start, tmp_path: Path, count: Callable[[int, int], int], figure: Figure
) -> None:
    kills = count(25, 200)
    out, err = start("--dir", ".", "--kills", str(kills), "--json").communicate(timeout=390)
    result = json.loads(out)
    _tell(result, figure)
    assert err == ""
    assert result["clean"] is True, result
    assert (result["lost"], result["twice"], result["stuck"], result["violations"]) == ([], [], 0, [])
    assert result["all_kills"] >= kills
    assert result["all_kills"] == sum(result["kills"].values()) + sum(result["failpoints"].values())
    assert result["asked"] == sum(result["ended"].values())
    assert set(result["failpoints"]) == set(POINTS)
    if kills == 200:
        assert {name for name, n in result["failpoints"].items() if n} == set(POINTS)
        assert {"busy worker", "idle worker", "task", "service", "fork server"} <= set(result["kills"])
    assert Path(result["directory"]) == _project(tmp_path)
    assert _working_in(tmp_path) == []


@pytest.mark.slow
def test_people_get_a_table_and_bystanders_are_left_alone(start: Start, tmp_path: Path, figure: Figure) -> None:
    process = start("--kills", "5", "--seed", "7", prefix=("sh", "-c", WITH_BYSTANDER, str(tmp_path / "pid")))
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    rows = {line[:20].strip(): line[20:].strip() for line in out.splitlines()}
    assert (rows["lost"], rows["twice"], rows["stuck"], rows["seed"]) == ("0", "0", "0", "7")
    assert rows["audit"].startswith("0 violation(s)")
    bystander = psutil.Process(int((tmp_path / "pid").read_text("ascii")))
    assert bystander in _working_in(tmp_path)
    bystander.kill()
    assert _project(tmp_path) is None
    figure(f"{rows['kills']}; the bystander lives")


def _double_an_effect(project: Path) -> None:
    with (project / "effects").open("a", encoding="ascii") as file:
        file.write((project / "effects").read_text("ascii").splitlines()[0] + "\n")


def _double_a_start(project: Path) -> None:
    log = project / "logs" / "state.jsonl"
    events = LogReader(log, from_start=True)
    record_event(next(event for event in events.read() if event["event"] == "run_started"), log)
    events.close()


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", [_double_an_effect, _double_a_start])
def test_a_product_that_does_a_thing_twice_fails_and_its_directory_is_kept(
    start: Start, tmp_path: Path, wait_for: WaitFor, sabotage: Callable[[Path], None], figure: Figure
) -> None:
    process = start("--kills", "10", "--json")
    wait_for(lambda: (found := _project(tmp_path)) and (found / "effects").exists() and _has_effect(found), timeout=60)
    project = _project(tmp_path)
    assert project is not None
    sabotage(project)
    out, _ = process.communicate(timeout=100)
    result = json.loads(out)
    figure(f"{sabotage.__name__}: {len(result['twice'])} twice, {len(result['violations'])} violations")
    assert process.returncode == 1
    assert result["clean"] is False
    assert result["twice"]
    assert result["violations"]
    assert result["kept"] is True
    assert Path(result["directory"]) == project


def _has_effect(project: Path) -> bool:
    return (project / "effects").read_text("ascii").endswith("\n")


@pytest.mark.slow
def test_a_service_that_ends_though_nobody_killed_it_is_a_fault(
    start: Start, tmp_path: Path, wait_for: WaitFor, figure: Figure
) -> None:
    process = start("--kills", "10", "--json")
    ended: set[int] = set()

    def end_a_leader() -> bool:
        for each in _working_in(tmp_path):
            if each.pid not in ended and "--serve" in each.cmdline():
                each.terminate()
                ended.add(each.pid)
        return len(ended) >= 3 or process.poll() is not None

    wait_for(end_a_leader, timeout=60)
    out, _ = process.communicate(timeout=100)
    faults = json.loads(out)["faults"]
    figure(f"{len(ended)} services ended by another hand, {len(faults)} named")
    assert process.returncode == 1
    assert any("and nobody had killed it" in fault for fault in faults)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_it_leaves_nothing_running_and_nothing_on_disk(
    start: Start, tmp_path: Path, wait_for: WaitFor, number: int, figure: Figure
) -> None:
    process = start("--kills", "100000")
    wait_for(lambda: (found := _project(tmp_path)) and (found / "effects").exists() and _has_effect(found), timeout=60)
    running = len(_working_in(tmp_path)) - 1
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")
    assert _working_in(tmp_path) == []
    assert _project(tmp_path) is None
    figure(f"{running} processes at signal {number}, 0 after it")


@pytest.mark.parametrize("words", [("--kills", "0"), ("--kills", "many"), ("--dir", "no/such"), ("--dir", "file")])
def test_bad_input_is_one_line_and_exit_code_2(
    start: Start, tmp_path: Path, words: tuple[str, ...], figure: Figure
) -> None:
    (tmp_path / "file").touch()
    process = start(*words)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    figure(err.strip().replace(str(tmp_path), "DIR"))


def test_a_network_file_system_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure: Figure
) -> None:
    mounts = Path("/proc/self/mounts").read_text("utf-8").splitlines()
    monkeypatch.setattr(lock, "_NETWORK", tuple({row.split()[2] for row in mounts}))
    assert cli.main(["selftest", "--dir", str(tmp_path)]) == 2
    assert "lies on a network file system" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    figure("refused in one line")


# -- the second judge ------------------------------------------------------------------------------------------------


def _good(runs: int) -> Log:
    """Return the log, the effects and the requests of a service without a fault: some runs need a second attempt."""
    events: list[dict[str, Any]] = []
    effects, asked = [], []
    for number in range(runs):
        run_id = f"r.{number}"
        if number % 3:
            events.append({"event": "schedule_enqueued", "run_id": run_id, "schedule_id": "s", "minute": str(number)})
        else:
            events.append({"event": "run_requested", "run_id": run_id})
            asked.append(run_id)
        attempts = ["crashed", "success"] if number % 4 == 0 else ["success"]
        for attempt, status in enumerate(attempts, 1):
            events.append({"event": "run_started", "run_id": run_id, "attempt": attempt})
            more = {"next_attempt": attempt + 1} if status == "crashed" else {}
            events.append({"event": "run_finished", "run_id": run_id, "attempt": attempt, "status": status, **more})
            effects.append(f"{run_id} {attempt}")
    return _numbered(events), effects, asked


def _drop_the_end_of_a_park(log: Log, place: int) -> Log:
    """Park a run that is at work, and let nobody go on with it."""
    start = [at for at, event in enumerate(log[0]) if event["event"] == "run_started"][place % 40]
    parked = {**log[0][start], "event": "run_parked"}
    return _numbered([*log[0][: start + 1], parked, *log[0][start + 1 :]]), log[1], log[2]


def _double_the_start_of_a_run_that_ends_parked(log: Log, place: int) -> Log:
    events = _of(f"parked.{place}", "requested", "started", "parked", "started")
    return _numbered([*log[0], *events, {**events[-1], "event": "run_finished", "status": "cancelled"}]), log[1], log[2]


def _of(run_id: str, *names: str) -> list[dict[str, Any]]:
    return [{"event": f"run_{name}", "run_id": run_id, "attempt": 1} for name in names]


def _numbered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "seq": seq} for seq, event in enumerate(events, 1)]


def _drop_a_line(log: Log, place: int) -> Log:
    return log[0][:place] + log[0][place + 1 :], log[1], log[2]


def _drop_an_event(log: Log, place: int) -> Log:
    return (_numbered(_drop_a_line(log, place)[0]), log[1], log[2])


def _double_an_event(log: Log, place: int) -> Log:
    return _numbered(log[0][: place + 1] + log[0][place:]), log[1], log[2]


def _double_a_line_of_effects(log: Log, place: int) -> Log:
    return log[0], [*log[1], log[1][place % len(log[1])]], log[2]


def _drop_the_effect_of_a_success(log: Log, place: int) -> Log:
    of_success = [f"{e['run_id']} {e['attempt']}" for e in log[0] if e.get("status") == "success"]
    dropped = of_success[place % len(of_success)]
    return log[0], [line for line in log[1] if line != dropped], log[2]


def _make_up_an_effect(log: Log, place: int) -> Log:
    return log[0], [*log[1], f"r.{place} 9"], log[2]


def _lose_an_acknowledged_request(log: Log, place: int) -> Log:
    gone = log[2][place % len(log[2])]
    events = _numbered([event for event in log[0] if event["run_id"] != gone])
    return events, [line for line in log[1] if not line.startswith(f"{gone} ")], log[2]


DOCTORS = {
    _drop_a_line: "lost",
    _drop_an_event: "any",
    _double_an_event: "twice",
    _drop_the_end_of_a_park: "lost",
    _double_the_start_of_a_run_that_ends_parked: "twice",
    _double_a_line_of_effects: "twice",
    _drop_the_effect_of_a_success: "odd",
    _make_up_an_effect: "odd",
    _lose_an_acknowledged_request: "lost",
}


def test_the_second_judge_finds_nothing_where_nothing_is() -> None:
    events, effects, asked = _good(40)
    parked = [*_of("parked", "requested", "started", "parked", "resumed", "started")]
    events += [*parked, {**parked[-1], "event": "run_finished", "status": "success"}]
    assert check(_numbered(events), [*effects, "parked 1"], asked) == Verdict([], [], [])


@pytest.mark.parametrize("doctor", DOCTORS, ids=lambda doctor: doctor.__name__.strip("_"))
def test_the_second_judge_sees_whatever_was_doctored(
    doctor: Callable[[Log, int], Log], count: Callable[[int, int], int], figure: Figure
) -> None:
    dice = random.Random(3)
    rounds = count(50, 400)
    for _ in range(rounds):
        log = _good(40)
        # The end of the last line of a log cannot be told from its last line.
        verdict = check(*doctor(log, dice.randrange(len(log[0]) - 1)))
        assert any(verdict), doctor
        kind = DOCTORS[doctor]
        assert kind == "any" or getattr(verdict, kind), verdict
    figure(f"{rounds} of {rounds} seen")
