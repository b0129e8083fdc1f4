"""The disk under the logs gets full in the midst of work: nothing is torn, lost or doubled; space mends all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from service import Service

from scheduler.audit import audit
from workers.event_log import EventLog, LogUnwritable
from workers.lock import LockTimeout
from workers.segments import LogReader, list_segments, read_backward

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]
Mount = Callable[[str], Path]

_WORK = 'echo "$RUN_ID $ATTEMPT" >> effects; i=0; while [ $i -lt 20 ]; do echo "line $i"; i=$((i+1)); sleep 0.02; done'


@pytest.fixture
def mount(service: Service) -> Iterator[Mount]:
    """Lay a file system with these options under all logs of the service."""
    place = service.root / "disk"
    place.mkdir()
    mounted: list[Path] = []

    def lay(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "tickpool-test", str(place)]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        mounted.append(place)
        service.log = place / "state.jsonl"
        service.environ["STATE_STORE_PATH"] = str(service.log)
        service.environ["ORCH_EVENTS_PATH"] = str(place / "events.jsonl")
        service.environ["RUN_LOGS_DIR"] = str(place / "runs")
        return place

    yield lay
    service.end()
    for each in mounted:
        subprocess.run(["umount", "--lazy", str(each)], check=True)


def _fill(place: Path, leave: int = 0) -> Path:
    """Take all the space that is left but `leave` bytes; return the file to remove."""
    filler = place / "filler"
    filler.unlink(missing_ok=True)
    with open(filler, "ab", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
        file.truncate(max(0, file.tell() - leave))
    return filler


def _take_all_names(place: Path) -> list[Path]:
    """Make files until the file system has no inode left; return them."""
    made: list[Path] = []
    while True:
        path = place / f"name.{len(made)}"
        try:
            path.touch()
        except OSError:
            return made
        made.append(path)


def _busy_service(service: Service, **environ: str) -> subprocess.Popen[bytes]:
    for number in range(2):
        dag = service.dag(f"d{number}", _WORK)
        service.schedule(f"s{number}", "@every 1s", dag, catchup="all", overlap="allow")
    return service.start(SCHED_MAX_PARALLEL="4", **environ)


def _has_complained(service: Service, since: int) -> bool:
    said = service.err()[since:]
    return "the service cannot tick" in said or "its end is not on record yet" in said or "event(s) wait" in said


def _is_stopped_and_log_padded(service: Service, supervisor: subprocess.Popen[bytes]) -> bool:
    """Stop the service and make its log long; False, and it goes on, when it was stopped with the lock in hand."""
    supervisor.send_signal(signal.SIGSTOP)
    log = EventLog(service.log, fsync="off", lock_timeout_s=0.5)
    try:
        # More events than there are open runs: a log that would be all checkpoint is not rotated.
        log.append(*({"event": "padding", "text": "x" * 300} for _ in range(300)))
    except LockTimeout:
        supervisor.send_signal(signal.SIGCONT)
        return False
    finally:
        log.close()
    return True


def _ends(service: Service) -> int:
    return len(service.events("run_finished"))


def _stop_and_judge(service: Service, supervisor: subprocess.Popen[bytes]) -> int:
    """End the service in order; its log must prove all that was promised. Return the number of runs."""
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    assert "Traceback" not in service.err()
    report = audit(service.log, datetime.now(UTC), effects=service.root / "effects")
    assert not report.violations
    events = service.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert list(read_backward(service.log)) == events[::-1]
    assert not Path(f"{service.log}.torn").exists()
    starts = service.starts()
    assert set(starts.values()) == {1}
    assert service.has_ended(*(run_id for run_id, _ in starts))
    # Once a second each, and none of them forgotten.
    for schedule in ("s0", "s1"):
        minutes = [
            datetime.fromisoformat(event["minute"])
            for event in service.events("schedule_enqueued")
            if event["schedule_id"] == schedule
        ]
        assert (minutes[-1] - minutes[0]).total_seconds() == len(minutes) - 1
        assert len(set(minutes)) == len(minutes)
    return len(starts)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_gets_full_again_and_again_while_runs_start_and_end_costs_nothing(
    service: Service, wait_for: WaitFor, mount: Mount, count: Count, figure: Figure
) -> None:
    place = mount("size=4m")
    supervisor = _busy_service(service)
    wait_for(lambda: _ends(service) >= 2, 30)
    fills = count(2, 12)
    for number in range(fills):
        before, said = _ends(service), len(service.err())
        filler = _fill(place, leave=(0, 4096)[number % 2])
        wait_for(lambda b=said: _has_complained(service, b), 30, "the complaint")  # type: ignore[misc]
        # A reader sees whole lines and no other.
        reader = LogReader(service.log, from_start=True)
        seqs = [event["seq"] for event in reader.read()]
        assert seqs == list(range(1, len(seqs) + 1))
        assert reader.corrupt == 0
        reader.close()
        assert supervisor.poll() is None
        filler.unlink()
        wait_for(lambda b=before: _ends(service) >= b + 6, 30, "the work that went on")  # type: ignore[misc]
    runs = _stop_and_judge(service, supervisor)
    assert {event["status"] for event in service.events("run_finished")} == {"success"}
    lost = service.err().count("output is lost from here")
    figure(f"{fills} times full: {runs} runs, 0 lost, 0 doubled, 0 torn lines; the output of {lost} tasks was cut")


@pytest.mark.slow
def test_output_that_a_full_disk_refuses_is_lost_from_there_and_the_task_is_not(
    service: Service, wait_for: WaitFor, mount: Mount, figure: Figure
) -> None:
    place = mount("size=2m")
    talker = service.dag(
        "talker", 'echo first; while [ ! -e go ]; do sleep 0.02; done; head -c 300000 /dev/zero | tr "\\0" x; '
        'echo "$RUN_ID $ATTEMPT" >> effects'
    )  # fmt: skip
    supervisor = service.start()
    wait_for(service.is_ready, 30)
    asked = service.ask(talker)
    log = place / "runs" / asked / "1" / "t.1.log"
    wait_for(lambda: log.exists() and log.read_bytes() == b"first\n", 30)
    filler = _fill(place)
    (service.root / "go").touch()
    wait_for(lambda: "output is lost from here: " in service.err(), 30)
    wait_for(lambda: (service.root / "effects").exists(), 30)
    wait_for(lambda: "its end is not on record yet" in service.err() or service.has_ended(asked), 30)
    is_owed = not service.has_ended(asked)
    filler.unlink()
    wait_for(lambda: service.has_ended(asked), 30)
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    kept = log.read_bytes()
    assert kept.startswith(b"first\n")
    assert len(kept) < 300_000
    task_events = LogReader(place / "events.jsonl", from_start=True)
    names = [event["event"] for event in task_events.read()]
    lost = service.err().count("task event lost")
    assert task_events.corrupt == 0
    assert len([name for name in names if name.startswith("task_")]) + lost == 2
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    report = audit(service.log, datetime.now(UTC), effects=service.root / "effects", final=True)
    assert not report.violations
    figure(f"{len(kept)} bytes of 300,006 kept, {lost} task event(s) lost, end owed: {is_owed}; the run is a success")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_disk_without_inodes_fails_the_runs_that_need_a_directory_and_nothing_else(
    service: Service, wait_for: WaitFor, mount: Mount, count: Count, figure: Figure
) -> None:
    place = mount("size=8m,nr_inodes=600")
    supervisor = _busy_service(service, STATE_SEGMENT_SIZE="65536")
    wait_for(lambda: _ends(service) >= 2, 30)
    times = count(1, 5)
    for _ in range(times):
        before = _ends(service)
        names = _take_all_names(place)
        # The log is there already and takes its lines: each run is begun and ended.
        wait_for(lambda b=before: _ends(service) >= b + 6, 30, "the runs that went on")  # type: ignore[misc]
        assert supervisor.poll() is None
        for path in names:
            path.unlink()
        wait_for(lambda b=before: _ends(service) >= b + 10, 30)  # type: ignore[misc]
    runs = _stop_and_judge(service, supervisor)
    failed = [event for event in service.events("run_finished") if event["status"] != "success"]
    tasks = LogReader(service.root / "disk" / "events.jsonl", from_start=True)
    reasons = {event["reason"] for event in tasks.read() if event.get("status") == "failed"}
    tasks.close()
    assert failed
    assert {event["status"] for event in failed} == {"failed"}
    assert all(os.strerror(errno.ENOSPC) in reason for reason in reasons), reasons
    done = {line.split()[0] for line in (service.root / "effects").read_text("ascii").splitlines()}
    assert done.isdisjoint(event["run_id"] for event in failed)
    figure(f"{times} times without an inode: {runs} runs, 0 lost, 0 doubled; {len(failed)} failed with the reason")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_gets_full_at_any_point_of_a_rotation_costs_nothing(
    service: Service, mount: Mount, count: Count, figure: Figure
) -> None:
    place = mount("size=8m")
    page = os.sysconf("SC_PAGE_SIZE")
    log, number, rotated = EventLog(service.log, fsync="always"), 0, 0
    refusals: list[str] = []
    # The new segment takes so many pages; there is room for all of them, for some, or for none.
    checkpoint = [{"event": "checkpoint", "text": "x" * 6000}] * 3
    for round_ in range(count(12, 120)):
        for _ in range(3):
            log.append({"event": "tested", "number": number})
            number += 1
        filler = _fill(place, leave=(round_ % 8) * page)
        try:
            rotated += log.rotate(1, lambda _new: checkpoint)
        except LogUnwritable as error:
            refusals.append(str(error))
        assert not place.joinpath("state.jsonl.next").exists()
        filler.unlink()
        log.append({"event": "tested", "number": number})
        number += 1
    assert refusals
    assert all(os.strerror(errno.ENOSPC) in each for each in refusals)
    assert rotated
    log.close()
    reader = LogReader(service.log, from_start=True)
    events = reader.read()
    assert reader.corrupt == 0
    seqs = [event["seq"] for event in events]
    assert seqs == list(range(1, len(seqs) + 1))
    assert [event["number"] for event in events if "number" in event] == list(range(number))
    assert len(list_segments(service.log)) == 1 + rotated
    assert not audit(service.log, datetime.now(UTC)).violations
    figure(f"{len(refusals)} rotations refused, {rotated} done, {number} events, 0 lost, 0 doubled, seq without a gap")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_service_that_rotates_on_a_full_disk_goes_on_and_rotates_later(
    service: Service, wait_for: WaitFor, mount: Mount, count: Count, figure: Figure
) -> None:
    place = mount("size=4m")
    supervisor = _busy_service(service, STATE_SEGMENT_SIZE="64KiB")
    wait_for(lambda: _ends(service) >= 2, 30)
    fills = count(1, 6)
    for _ in range(fills):
        said = len(service.err())
        # The service finds a log that is due for rotation, and no page for the new segment.
        wait_for(lambda: _is_stopped_and_log_padded(service, supervisor), 30)
        filler = _fill(place)
        supervisor.send_signal(signal.SIGCONT)
        wait_for(lambda b=said: "the service cannot tend" in service.err()[b:], 30, "the complaint")  # type: ignore[misc]
        before = len(list_segments(service.log))
        filler.unlink()
        wait_for(lambda b=before: len(list_segments(service.log)) > b, 30, "the rotation")  # type: ignore[misc]
    runs = _stop_and_judge(service, supervisor)
    segments = len(list_segments(service.log))
    figure(f"{fills} times full in a rotation: {runs} runs in {segments} segments, 0 lost, 0 doubled")
