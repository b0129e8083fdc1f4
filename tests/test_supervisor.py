"""The service as its operator meets it: signals, a second service, changed files, a log that cannot be written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from service import REPOSITORY, Service, is_running, kill9

from scheduler.state_store import record_event
from workers.event_log import LogUnwritable

WaitFor = Callable[..., None]
WAIT = "while [ ! -e go ]; do sleep 0.02; done"


def _pid(service: Service, name: str = "pid") -> int:
    text = (service.root / name).read_text("ascii") if (service.root / name).exists() else ""
    return int(text) if text.endswith("\n") else 0


# -- what is said, and when ------------------------------------------------------------------------------------------


def test_the_service_says_what_it_serves_and_what_it_hands_out(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "0 0 1 1 *", service.dag("d", "true"))
    supervisor = service.start(SCHED_TICK_MS="1000", SCHED_MAX_PARALLEL="3")
    wait_for(service.is_ready)
    service.ask("dags/d.yaml")
    os.kill(supervisor.pid, signal.SIGUSR1)
    wait_for(lambda: "Draining" in service.out())
    lines = service.out().splitlines()
    assert lines[:3] == [
        "Loaded 1 schedule(s) from schedules",
        "Serving scheduler (tick=1000ms, max_parallel=3)...",
        "Press Ctrl+C to stop",
    ]
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] Draining 1 run\(s\)\.\.\.", lines[3])


def test_a_signal_wakes_a_service_whose_tick_is_a_minute(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    supervisor = service.start(SCHED_TICK_MS="60000")
    wait_for(service.is_ready)
    asked = service.ask(dag)
    os.kill(supervisor.pid, signal.SIGUSR1)
    wait_for(lambda: service.has_ended(asked), timeout=5)


def test_fire_times_are_met_though_the_tick_is_a_minute(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "true"))
    service.start(SCHED_TICK_MS="60000")
    wait_for(lambda: len(service.events("run_finished")) >= 3)
    for event in service.events("run_started")[1:]:
        late = datetime.fromisoformat(event["timestamp"]) - datetime.fromisoformat(event["minute"])
        assert 0 <= late.total_seconds() < 1


def test_no_more_runs_go_on_at_once_than_there_are_workers(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "sleep 0.05")
    asked = [service.ask(dag) for _ in range(12)]
    service.start(SCHED_MAX_PARALLEL="3")
    wait_for(lambda: service.has_ended(*asked))
    assert _most_at_once(service) == 3


def test_workers_are_replaced_after_so_many_runs_and_no_run_is_lost(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    asked = [service.ask(dag) for _ in range(20)]
    service.start(SCHED_WORKER_MAX_RUNS="3")
    wait_for(lambda: service.has_ended(*asked))
    by_worker = Counter(event["pid"] for event in service.events("run_started"))
    assert sum(by_worker.values()) == 20
    assert max(by_worker.values()) <= 3
    assert {event["status"] for event in service.events("run_finished")} == {"success"}
    assert service.events("worker_exited") == []


def _most_at_once(service: Service) -> int:
    running = most = 0
    for event in service.events():
        running += (event["event"] == "run_started") - (event["event"] == "run_finished")
        most = max(most, running)
    return most


# -- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_service_lets_runs_end_and_starts_no_other(
    service: Service, wait_for: WaitFor, number: signal.Signals
) -> None:
    dag, quick = service.dag("d", f"touch up; {WAIT}"), service.dag("quick", "true")
    supervisor = service.start(SCHED_MAX_PARALLEL="1")
    wait_for(service.is_ready)
    running, queued = service.ask(dag), service.ask(quick)
    wait_for((service.root / "up").exists)
    supervisor.send_signal(number)
    wait_for(lambda: "Stopping: 1 run(s) may take up to 5 s to end..." in service.out())
    late = service.ask(quick)
    (service.root / "go").touch()
    assert supervisor.wait(10) == 0
    assert service.story(running) == ["run_started 1", "run_finished 1 success"]
    assert service.story(queued) == service.story(late) == []
    assert service.events()[-1]["event"] == "supervisor_stopped"
    assert service.out().endswith("Stopped\n")
    service.start()
    wait_for(lambda: service.has_ended(queued, late))
    assert set(service.starts().values()) == {1}


def test_a_signal_for_the_whole_process_group_takes_no_grace_from_the_runs(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", f"touch up; {WAIT}")
    supervisor = service.start()
    asked = service.ask(dag)
    wait_for((service.root / "up").exists)
    os.killpg(supervisor.pid, signal.SIGTERM)
    wait_for(lambda: "Stopping" in service.out())
    (service.root / "go").touch()
    assert supervisor.wait(10) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]


def test_after_the_grace_runs_are_cancelled_and_their_trees_get_term_and_kill(
    service: Service, wait_for: WaitFor
) -> None:
    polite = service.dag("polite", "trap 'echo bye > said; exit 0' TERM; echo $$ > pid; while :; do sleep 0.02; done")
    stubborn = service.dag("stubborn", "(trap '' TERM; setsid sleep 300) & trap '' TERM; echo $! > pid2; wait; wait")
    supervisor = service.start(SCHED_GRACE_S="0.2", TASK_GRACE_S="0.3")
    wait_for(service.is_ready)
    asked = [service.ask(polite), service.ask(stubborn)]
    wait_for(lambda: _pid(service) and _pid(service, "pid2"))
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert (service.root / "said").read_text("ascii") == "bye\n"
    assert not is_running(_pid(service))
    assert not is_running(_pid(service, "pid2"))
    assert [service.story(run_id)[-1] for run_id in asked] == ["run_finished 1 cancelled"] * 2
    assert "Cancelling 2 run(s)..." in service.out()


def test_a_second_signal_kills_at_once(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "trap '' TERM; echo $$ > pid; while :; do sleep 0.02; done")
    supervisor = service.start(SCHED_GRACE_S="300", TASK_GRACE_S="300")
    wait_for(service.is_ready)
    asked = service.ask(dag)
    wait_for(lambda: _pid(service))
    supervisor.terminate()
    wait_for(lambda: "Stopping" in service.out())
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 cancelled"]
    assert not is_running(_pid(service))


def test_signals_that_come_before_the_service_serves_stop_it_too(service: Service) -> None:
    dag = service.dag("d", "true")
    asked = service.ask(dag)
    supervisor = service.start()
    while supervisor.poll() is None and "Loaded" not in service.out():
        pass
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert service.story(asked) in ([], ["run_started 1", "run_finished 1 success"])


def test_a_reader_of_the_output_that_goes_away_takes_no_grace_from_the_runs(
    service: Service, wait_for: WaitFor
) -> None:
    dag = service.dag("d", f"touch up; {WAIT}")
    reading, writing = os.pipe()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "scheduler", "--dir", "schedules", "--serve"],
        cwd=service.root,
        env=service.env(),
        stdout=writing,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    asked = service.ask(dag)
    wait_for((service.root / "up").exists)
    os.close(reading)
    supervisor.terminate()
    # It sees the signal when its idle worker has gone.
    wait_for(lambda: len(service.workers(supervisor)) == 1)
    (service.root / "go").touch()
    assert supervisor.wait(10) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]


# -- a second service ------------------------------------------------------------------------------------------------


def test_a_second_service_stands_by_and_takes_over_when_the_first_is_killed(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "true"), catchup="all", overlap="allow")
    first = service.start()
    wait_for(service.is_ready)
    second = service.start()
    wait_for(lambda: f"Process {first.pid} leads on this log; standing by..." in service.out())
    wait_for(lambda: len(service.events("run_finished")) >= 2)
    kill9(first)
    wait_for(lambda: service.events("supervisor_started")[-1]["pid"] == second.pid, timeout=2)
    before = len(service.events("run_finished"))
    wait_for(lambda: len(service.events("run_finished")) >= before + 3)
    second.terminate()
    assert second.wait(10) == 0
    minutes = sorted(event["minute"] for event in service.events("schedule_enqueued"))
    assert len(set(minutes)) == len(minutes)
    assert set(service.starts().values()) == {1}
    times = [datetime.fromisoformat(minute) for minute in minutes]
    assert {(after - before).total_seconds() for before, after in pairwise(times)} == {1.0}


def test_a_service_that_stands_by_can_be_stopped(service: Service, wait_for: WaitFor) -> None:
    service.start()
    wait_for(service.is_ready)
    second = service.start()
    wait_for(lambda: "standing by" in service.out())
    for number in (signal.SIGHUP, signal.SIGUSR1):
        second.send_signal(number)
    second.terminate()
    assert second.wait(5) == 0
    assert len(service.events("supervisor_started")) == 1
    assert service.events("supervisor_stopped") == []


def test_a_service_that_takes_over_serves_what_the_files_say_now(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    service.schedule("s", "0 0 1 1 *", dag)
    first = service.start()
    wait_for(service.is_ready)
    second = service.start()
    wait_for(lambda: "standing by" in service.out())
    service.schedule("s", "0 0 2 2 *", dag)
    wait_for(lambda: len(service.events("schedules_loaded")) == 2)
    kill9(first)
    wait_for(service.is_ready)
    assert [e["specs"]["s"]["cron"] for e in service.events("schedules_loaded")] == ["0 0 1 1 *", "0 0 2 2 *"]
    assert second.poll() is None


# -- the configuration -----------------------------------------------------------------------------------------------


def test_sighup_takes_a_changed_configuration_without_waiting_for_the_tick(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    supervisor = service.start(SCHED_TICK_MS="60000")
    wait_for(service.is_ready)
    service.schedule("s", "@every 1s", dag)
    supervisor.send_signal(signal.SIGHUP)
    wait_for(lambda: "Loaded 1 schedule(s)" in service.out(), timeout=5)
    wait_for(lambda: service.events("run_finished"), timeout=5)


def test_a_faulty_configuration_leaves_the_old_one_in_force(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    service.schedule("s", "@every 1s", dag)
    service.start()
    wait_for(lambda: service.events("run_finished"))
    service.schedule("s", "61 * * * *", dag)
    wait_for(lambda: service.events("schedule_invalid"))
    wait_for(lambda: "the one before stays in force" in service.out())
    before = len(service.events("run_finished"))
    wait_for(lambda: len(service.events("run_finished")) >= before + 2)


def test_a_schedules_directory_that_goes_away_stops_nothing(service: Service, wait_for: WaitFor) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "true"))
    service.start()
    wait_for(lambda: service.events("run_finished"))
    (service.root / "schedules").rename(service.root / "elsewhere")
    wait_for(lambda: "schedules" in service.err())
    before = len(service.events("run_finished"))
    wait_for(lambda: len(service.events("run_finished")) >= before + 2)
    (service.root / "elsewhere").rename(service.root / "schedules")
    service.schedule("t", "@every 1s", "dags/d.yaml")
    wait_for(lambda: any(e["schedule_id"] == "t" for e in service.events("run_finished")))
    assert "Traceback" not in service.err()


# -- faults of the system --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(service: Service) -> Iterator[Path]:
    """A file system of 1 MiB under the log."""
    place = service.root / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tickpool-test", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    service.log = place / "state.jsonl"
    service.environ["STATE_STORE_PATH"] = str(service.log)
    yield place
    service.end()
    subprocess.run(["umount", str(place)], check=True)


def _fill(service: Service, place: Path) -> Path:
    """Take all the space there is, and what is left in the log's last page; return the file to remove."""
    filler = place / "filler"
    with open(filler, "ab", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    size = 4096
    while size:
        try:
            record_event({"event": "padding", "text": "x" * size}, service.log)
        except LogUnwritable:
            size //= 2
    return filler


def test_a_full_disk_stops_nothing_and_loses_nothing(service: Service, wait_for: WaitFor, small_disk: Path) -> None:
    dag = service.dag("d", f"touch up; {WAIT}; echo done >> effects")
    service.schedule("s", "@every 1s", service.dag("often", "true"), catchup="all", overlap="allow")
    supervisor = service.start()
    wait_for(service.is_ready)
    running = service.ask(dag)
    wait_for((service.root / "up").exists)
    filler = _fill(service, small_disk)
    seen = len(service.events())
    (service.root / "go").touch()
    wait_for(lambda: (service.root / "effects").exists() and "its end is not on record yet" in service.err())
    wait_for(lambda: "the service cannot tick" in service.err())
    service.schedule("new", "@every 1s", "dags/often.yaml")
    wait_for(lambda: "the service cannot reload" in service.err())
    assert len(service.events()) == seen
    assert supervisor.poll() is None
    filler.unlink()
    wait_for(lambda: service.has_ended(running))
    assert service.story(running) == ["run_started 1", "run_finished 1 success"]
    wait_for(lambda: "the service can tick again" in service.err())
    wait_for(lambda: any(event["schedule_id"] == "new" for event in service.events("run_finished")))
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    enqueued = service.events("schedule_enqueued")
    minutes = [datetime.fromisoformat(event["minute"]) for event in enqueued if event["schedule_id"] == "s"]
    steps = {(after - before).total_seconds() for before, after in pairwise(minutes)}
    assert steps == {1.0}
    assert [event["seq"] for event in service.events()] == list(range(1, len(service.events()) + 1))
    # What goes on failing alike is said once.
    assert service.err().count("the service cannot tick") <= 3


def test_a_service_started_on_a_full_disk_waits_for_space(
    service: Service, wait_for: WaitFor, small_disk: Path
) -> None:
    asked = service.ask(service.dag("d", "true"))
    (small_disk / "state.jsonl.leader").touch()
    filler = _fill(service, small_disk)
    supervisor = service.start()
    wait_for(lambda: "the service cannot begin" in service.err())
    filler.unlink()
    wait_for(lambda: service.has_ended(asked))
    supervisor.terminate()
    assert supervisor.wait(10) == 0


def test_a_worker_without_a_service_records_its_end_when_there_is_space(
    service: Service, wait_for: WaitFor, small_disk: Path
) -> None:
    asked = service.ask(service.dag("d", f"touch up; {WAIT}; touch done"))
    supervisor = service.start()
    wait_for((service.root / "up").exists)
    kill9(supervisor)
    filler = _fill(service, small_disk)
    (service.root / "go").touch()
    wait_for(lambda: "its end is not on record yet" in service.err())
    filler.unlink()
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]


HOLD = """
import sys, time
from pathlib import Path
from workers.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire(10)
print("held", flush=True)
time.sleep(300)
"""


def test_a_stopped_process_that_holds_the_lock_delays_the_service_and_no_more(
    service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "true"), catchup="all", overlap="allow")
    supervisor = service.start(STATE_LOCK_TIMEOUT_S="0.3")
    wait_for(lambda: service.events("run_finished"))
    holder = service.launch("-c", HOLD, f"{service.log}.lock")
    wait_for(lambda: service.out() == "held\n")
    holder.send_signal(signal.SIGSTOP)
    wait_for(lambda: f"process {holder.pid} holds it" in service.err(0))
    before = len(service.events())
    kill9(holder)
    wait_for(lambda: len(service.events("run_finished")) >= 4 and len(service.events()) > before)
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert set(service.starts().values()) == {1}
    assert {event["status"] for event in service.events("run_finished")} == {"success"}


def test_a_service_started_while_the_lock_is_held_waits_for_it(service: Service, wait_for: WaitFor) -> None:
    asked = service.ask(service.dag("d", "true"))
    holder = service.launch("-c", HOLD, f"{service.log}.lock")
    wait_for(lambda: service.out() == "held\n")
    service.start(STATE_LOCK_TIMEOUT_S="0.2")
    wait_for(lambda: "the service cannot begin" in service.err())
    kill9(holder)
    wait_for(lambda: service.has_ended(asked))


def test_a_log_that_can_never_be_written_is_one_line_and_exit_code_2(service: Service) -> None:
    service.log.mkdir(parents=True)
    (service.root / "file").touch()
    first, second = service.start(), service.start(STATE_STORE_PATH="file/state.jsonl")
    assert (first.wait(10), second.wait(10)) == (2, 2)
    for number, name in enumerate(("orchestrator_state.jsonl", "file")):
        (line,) = service.err(number).splitlines()
        assert name in line


FAULTY = """
import os, sys, time
from pathlib import Path
from scheduler import supervisor
from workers.settings import read_settings

class Faulty(supervisor.Supervisor):
    turns = failed = 0

    def _tick(self):
        self.turns += 1
        {turn}
        super()._tick()

if __name__ == "__main__":
    sys.exit(Faulty(Path("schedules"), read_settings(os.environ), lambda line: print(line, flush=True)).run())
"""


def test_a_run_that_is_due_as_the_signal_comes_is_not_started(service: Service) -> None:
    asked = service.ask(service.dag("d", "true"))
    script = FAULTY.format(turn="if self.turns == 1: os.kill(os.getpid(), 15)")
    (service.root / "stopped.py").write_text(script, "ascii")
    assert service.launch("stopped.py").wait(10) == 0
    assert service.story(asked) == []


def test_a_fault_of_ours_in_a_turn_is_logged_and_the_service_goes_on(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", "true")
    service.schedule("s", "@every 1s", dag)
    # Two turns fail, both with a fire time that has come.
    is_due = "self._ticker.next_fire().timestamp() <= time.time()"
    fail = "self.failed += 1; print(time.monotonic(), flush=True); raise KeyError('a fault of ours')"
    script = FAULTY.format(turn=f"if self.failed < 2 and {is_due}: {fail}")
    (service.root / "faulty.py").write_text(script, "ascii")
    supervisor = service.launch("faulty.py", SCHED_TICK_MS="1000")
    wait_for(lambda: "the service can tick again" in service.err())
    assert service.err().count("KeyError: 'a fault of ours'") == 1
    first, second = (float(line) for line in service.out().splitlines() if re.fullmatch(r"[\d.]+", line))
    assert second - first >= 0.9  # what is due and fails is no reason to spin
    assert "Traceback" in service.err()
    asked = service.ask(dag)
    wait_for(lambda: service.has_ended(asked))
    supervisor.terminate()
    assert supervisor.wait(10) == 0


def test_the_file_that_systemd_starts_is_the_same_service(service: Service, wait_for: WaitFor) -> None:
    asked = service.ask(service.dag("d", "true"))
    env_without_path = {"PYTHONPATH": ""}
    supervisor = service.launch(
        str(REPOSITORY / "scheduler" / "supervisor.py"), "--dir", "schedules", **env_without_path
    )
    wait_for(lambda: service.has_ended(asked))
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert service.err() == ""
