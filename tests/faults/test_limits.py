"""A system that gives no more descriptors or processes, and names of processes that are used again."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from service import WITHOUT_COVERAGE, Service, is_running, kill9

from workers.process import Identity, identity, is_alive

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]

WAIT = "while [ ! -e go ]; do sleep 0.02; done"


@pytest.fixture(autouse=True)
def _uncovered(service: Service) -> None:
    service.environ |= WITHOUT_COVERAGE


def _the_worker(service: Service, supervisor: subprocess.Popen[bytes], wait_for: WaitFor) -> psutil.Process:
    """Return the one worker that runs; a dead one may show until the next is buried along with it."""
    found: list[psutil.Process] = []

    def is_alone() -> bool:
        found[:] = [worker for worker in service.workers(supervisor) if is_running(worker.pid)]
        return len(found) == 1

    wait_for(is_alone)
    return found[0]


@contextmanager
def _limited(pid: int, kind: int, value: int) -> Iterator[None]:
    """Give a live process a soft limit for a while, as `prlimit` does."""
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (soft, hard))


@contextmanager
def _without_processes(service: Service, *pids: int) -> Iterator[None]:
    """Let processes of another user start no more; only that user may do so without CAP_SYS_RESOURCE."""
    tables = [Path(f"/proc/{pid}/limits").read_text("ascii") for pid in pids]
    before = [table.split("Max processes")[1].split()[0] for table in tables]

    def limit(pid: int, value: str) -> int:
        words = [*_words_of(service), "prlimit", f"--pid={pid}", f"--nproc={value}:"]
        return subprocess.run(words, check=False, capture_output=True).returncode

    for pid in pids:
        assert limit(pid, "1") == 0
    yield
    for pid, value in zip(pids, before, strict=True):
        limit(pid, value)


def _words_of(service: Service) -> list[str]:
    """Return the command that runs what follows as the owner of a directory, who has none of root's rights but one."""
    uid = os.stat(service.root).st_uid
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all,+dac_override"]
    # It may pass directories, like root: those above may be root's own.
    return [*words, "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]


def _limit_for(pid: int, spare: int) -> int:
    """Return the limit under which a process can open `spare` more files: each takes the lowest number that is free."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in itertools.count() if number not in taken)
    return next(itertools.islice(free, spare, None))


def _ask(service: Service, pid: int, dag: str) -> str:
    asked = service.ask(dag)
    os.kill(pid, signal.SIGUSR1)
    return asked


# -- no more descriptors ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("state", ["fresh", "used"])
@pytest.mark.parametrize("kind", ["run", "call"])
def test_a_worker_without_descriptors_fails_the_run_with_the_reason_or_leaves_it_to_another(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure, kind: str, state: str
) -> None:
    (service.root / "hello.py").write_text("def main():\n    return 1\n", "ascii")
    task = {"run": "echo hello"} if kind == "run" else {"call": "hello:main"}
    dag = service.tasks("d", {"id": "t", **task})
    supervisor = service.start(SCHED_MAX_PARALLEL="1")
    wait_for(lambda: service.is_ready() and service.workers(supervisor))
    used = _ask(service, supervisor.pid, dag)
    wait_for(lambda: service.has_ended(used))
    told: Counter[str] = Counter()
    room = count(12, 24)
    for spare in range(room):
        if state == "fresh":
            old = _the_worker(service, supervisor, wait_for)
            kill9(old)
            wait_for(lambda old=old: service.workers(supervisor) not in ([], [old]))
        worker = _the_worker(service, supervisor, wait_for)
        wait_for(lambda worker=worker: worker.status() == psutil.STATUS_SLEEPING)
        before = worker.num_fds()
        with _limited(worker.pid, resource.RLIMIT_NOFILE, _limit_for(worker.pid, spare)):
            asked = _ask(service, supervisor.pid, dag)
            wait_for(
                lambda asked=asked: service.has_ended(asked) or f"run {asked} waits" in service.err(),
                what=f"the end of the run with room for {spare}",
            )
        wait_for(lambda asked=asked: service.has_ended(asked))
        end = service.events("run_finished", asked)[-1]
        is_same = service.events("run_started", asked)[0]["pid"] == worker.pid
        waited = f"run {asked} waits" in service.err()
        success = "success" + (" afterwards" if waited else "" if is_same else " on another worker")
        told[end["reason"] or success] += 1
        assert len(service.story(asked)) == 2
        assert end["status"] == "success" or (end["status"] == "failed" and "Too many open files" in end["reason"])
        if state == "used" and is_same:
            wait_for(lambda worker=worker, before=before: worker.num_fds() == before, what="its descriptors of before")
    assert told["success"] > 0
    assert told["success"] < room
    for event in service.events("worker_exited"):
        # It had done nothing yet, and another has started what it was given; or all of it: it was killed before it had
        # told the service of the end that is on record.
        told_of = service.events(run_id=event["run_id"]) if event["run_id"] else []
        starts = [each for each in told_of if each["event"] == "run_started" and each["pid"] == event["worker_pid"]]
        ends = [each for each in told_of if each["event"] == "run_finished" and each["seq"] < event["seq"]]
        assert not starts or ends
    figure(f"{kind}, {state} worker, room for 0 to {room - 1} more files: {dict(told)}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_without_descriptors_stays_and_works_again_afterwards(
    service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    service.schedule("s", "@every 1s", service.dag("d", "true"), catchup="all", overlap="allow")
    supervisor = service.start(SCHED_MAX_PARALLEL="2", SCHED_TICK_MS="50")
    wait_for(lambda: service.is_ready() and len(service.workers(supervisor)) == 2)
    wait_for(lambda: service.events("run_finished"))
    process = psutil.Process(supervisor.pid)
    before, rooms, asked, again_s = process.num_fds(), count(6, 40), [], []
    for spare in range(rooms):
        with _limited(supervisor.pid, resource.RLIMIT_NOFILE, _limit_for(supervisor.pid, spare)):
            # What needs descriptors: a worker to replace, a run to hand out, a changed configuration.
            old = service.workers(supervisor)[0]
            kill9(old)
            asked.append(_ask(service, supervisor.pid, "dags/d.yaml"))
            service.schedule("t", "@every 1s", "dags/d.yaml", params={}, retries=spare % 5)
            os.kill(supervisor.pid, signal.SIGHUP)
            wait_for(
                lambda old=old: old.pid in {event["worker_pid"] for event in service.events("worker_exited")},
                what="news of the worker",
                timeout=40,
            )
        began = time.monotonic()
        wait_for(lambda: len([each for each in service.workers(supervisor) if is_running(each.pid)]) == 2, timeout=40)
        wait_for(lambda: service.has_ended(*asked), timeout=40)
        again_s.append(time.monotonic() - began)
        assert supervisor.poll() is None
    wait_for(lambda: process.num_fds() <= before + 1, what=f"{before} descriptors again")
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert {service.story(run_id)[-1] for run_id in asked} == {"run_finished 1 success"}
    assert set(service.starts().values()) == {1}
    assert "Traceback" not in service.err()
    figure(f"room for 0 to {rooms - 1} more files: the service stayed, whole again {max(again_s):.2f} s after at worst")


# -- no more processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(service: Service) -> Service:
    """A directory of another user, whom the limit of processes counts and holds; root is exempt from it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user of whom nothing else runs")
    # A number that nobody has, so that nothing else of this system is counted.
    uid = 1_000_000_000 + os.getpid()
    for path in (service.root, service.root / "dags", service.root / "schedules"):
        os.chown(path, uid, uid)
    words = _words_of(service)
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("setpriv cannot become another user here")
    start = service.launch
    python = [sys.executable, "-m", "scheduler", "--dir", "schedules", "--serve"]
    line = f"import os, sys; os.execvp({words[0]!r}, {[*words, *python]!r})"
    service.start = lambda *_, **environ: start("-c", line, **environ)  # type: ignore[method-assign]
    return service


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_processes_runs_fail_with_the_reason_and_the_service_stays(
    stranger: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    service = stranger
    (service.root / "hello.py").write_text("def main():\n    return 1\n", "ascii")
    tasks = {"run": {"run": "echo hello"}, "call": {"call": "hello:main"}}
    dags = [service.tasks(name, {"id": "t", **task}) for name, task in tasks.items()]
    supervisor = service.start(SCHED_MAX_PARALLEL="1", SCHED_TICK_MS="50")
    wait_for(lambda: service.is_ready() and service.workers(supervisor))
    rounds, again_s, reasons = count(3, 20), [], Counter[str]()
    for _ in range(rounds):
        worker = _the_worker(service, supervisor, wait_for)
        with _without_processes(service, worker.pid):
            asked = [_ask(service, supervisor.pid, dag) for dag in dags]
            wait_for(lambda asked=asked: service.has_ended(*asked))
        for run_id in asked:
            end = service.events("run_finished", run_id)[-1]
            assert (end["status"], "Resource temporarily unavailable" in end["reason"]) == ("failed", True)
            reasons[end["reason"]] += 1
        # Now nobody of the service gets a process: not the worker, nor what would start another.
        server = service.forkserver(supervisor)
        with _without_processes(service, supervisor.pid):
            kill9(server)
            kill9(worker)
            waiting = _ask(service, supervisor.pid, dags[0])
            wait_for(lambda: service.err().count("cannot start a worker") > len(again_s))
            assert service.events("run_started", waiting) == []
        began = time.monotonic()
        wait_for(lambda waiting=waiting: service.has_ended(waiting), timeout=40)
        again_s.append(time.monotonic() - began)
        # A fork server that gets no process ends of it, and another takes its place.
        worker = _the_worker(service, supervisor, wait_for)
        with _without_processes(service, service.forkserver(supervisor).pid):
            kill9(worker)
            other = _ask(service, supervisor.pid, dags[1])
            wait_for(lambda other=other: service.has_ended(other))
        for run_id in (waiting, other):
            assert service.story(run_id) == ["run_started 1", "run_finished 1 success"]
        assert supervisor.poll() is None
    assert "the fork server ended while it was asked for a worker" in service.err()
    assert set(service.starts().values()) == {1}
    figure(f"{rounds} times: {dict(reasons)}; a run that waited was done {max(again_s):.2f} s after at worst")


# -- names that are used again ---------------------------------------------------------------------------------------

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@contextmanager
def _namesake(pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that has the number of one that is gone."""
    for _ in range(1000):
        try:
            LAST_PID.write_text(str(pid - 1), "ascii")
        except OSError:
            pytest.skip("this user may not choose the number of the next process")
        process = subprocess.Popen(["sleep", "300"], start_new_session=True)
        try:
            if process.pid == pid:
                yield process
                return
        finally:
            process.kill()
            process.wait()
    pytest.skip(f"other processes are quicker: nobody got the number {pid}")


def test_a_process_with_the_number_of_another_is_not_taken_for_it(
    count: Count, wait_for: WaitFor, figure: Figure
) -> None:
    rounds, same_tick = count(20, 500), 0
    for _ in range(rounds):
        first = subprocess.Popen(["sleep", "300"])
        known = identity(first.pid)
        assert is_alive(known)
        first.kill()
        first.wait()
        # Two processes of one number are told apart once a tick (1/100 s) is between their starts.
        wait_for(lambda known=known: _ticks_now() > known.starttime)
        with _namesake(known.pid) as other:
            assert other.pid == known.pid
            same_tick += identity(other.pid) == known
            assert not is_alive(known)
            assert is_alive(identity(other.pid))
    assert same_tick == 0
    figure(f"{rounds} numbers used again: none taken for the process that had it before")


def _ticks_now() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def test_namesakes_of_a_worker_and_of_a_task_keep_no_run_open_and_are_left_alone(
    service: Service, wait_for: WaitFor, figure: Figure
) -> None:
    dag = service.dag("d", f"echo $$ > pid; {WAIT}")
    first = service.start(SCHED_MAX_PARALLEL="1")
    wait_for(service.is_ready)
    asked = _ask(service, first.pid, dag)
    wait_for(lambda: (service.root / "pid").exists() and (service.root / "pid").read_text("ascii").endswith("\n"))
    task, started = int((service.root / "pid").read_text("ascii")), service.events("run_started", asked)[0]
    kill9(first)
    kill9(psutil.Process(started["pid"]))
    os.kill(task, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(started["pid"]) and not psutil.pid_exists(task), what="free numbers")
    with _namesake(started["pid"]) as of_worker, _namesake(task) as of_task:
        assert (of_worker.pid, of_task.pid) == (started["pid"], task)
        service.start(SCHED_MAX_PARALLEL="1")
        wait_for(lambda: service.has_ended(asked), what="the end of the run whose number lives on")
        assert service.story(asked) == ["run_started 1", "run_finished 1 crashed"]
        (service.root / "go").touch()
        later = service.ask(dag)
        wait_for(lambda: service.has_ended(later))
        assert of_worker.poll() is None
        assert of_task.poll() is None
    figure("a worker and a task whose numbers others had: the run was closed, the others were not touched")


def _shift_boot(pid: int, fake: Path, step_s: int) -> None:
    """Show the processes of a mount namespace the boot time that /proc/stat has after a step of the wall clock."""
    enter = ["nsenter", f"--target={pid}", "--mount"]
    stat = Path("/proc/stat").read_text("ascii")
    btime = stat.split("btime ", 1)[1].split("\n", 1)[0]
    fake.write_text(stat.replace(f"btime {btime}", f"btime {int(btime) + step_s}"), "ascii")
    # It goes with the last process that sees it.
    subprocess.run([*enter, "mount", "--bind", str(fake), "/proc/stat"], check=True)


@pytest.mark.parametrize("step_s", [3600, -3600, 86400 * 365])
def test_a_clock_that_was_set_makes_no_live_run_a_dead_one(
    service: Service, wait_for: WaitFor, figure: Figure, step_s: int
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not have mounts of its own")
    dag = service.dag("d", f"touch up; {WAIT}")
    python = [sys.executable, "-m", "scheduler", "--dir", "schedules", "--serve"]

    def serve(*words: str) -> subprocess.Popen[bytes]:
        # Whoever enters other mounts loses the directory it is in.
        line = [*words, "--", "sh", "-c", 'cd "$0" && exec "$@"', str(service.root), *python]
        return service.launch("-c", f"import os; os.execvp({line[0]!r}, {line!r})")

    first = serve("unshare", "--mount")
    wait_for(service.is_ready)
    asked = _ask(service, first.pid, dag)
    wait_for((service.root / "up").exists)
    worker = service.events("run_started", asked)[0]["pid"]
    known = Identity(*(service.events("run_started", asked)[0][key] for key in ("boot_id", "pid", "starttime")))
    ask_psutil = ["nsenter", f"--target={worker}", "--mount", sys.executable, "-c"]
    ask_psutil += [f"import psutil; print(psutil.Process({worker}).create_time())"]
    before_s = float(subprocess.check_output(ask_psutil))
    kill9(first)
    _shift_boot(worker, service.root / "stat", step_s)
    # What a step of the clock does to the creation time that psutil reckons from the boot time.
    moved_s = float(subprocess.check_output(ask_psutil)) - before_s
    assert moved_s == pytest.approx(step_s, abs=1)
    second = serve("nsenter", f"--target={worker}", "--mount")
    wait_for(service.is_ready)
    quick = _ask(service, second.pid, service.dag("quick", "true"))
    wait_for(lambda: service.has_ended(quick))
    assert service.story(asked) == ["run_started 1"]
    assert is_alive(known)
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(asked))
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    figure(f"creation time moved by {moved_s:+.0f} s: the live run was adopted and ended well")
