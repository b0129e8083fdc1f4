"""The event log: what is appended is there, once, in order, whatever dies, fills up or disappears."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import log_processes
import pytest
from service import WaitFor

from workers.event_log import EventLog, Fsync, LogNotFlushed, LogUnwritable
from workers.events import Event, InvalidEvent, decode_line, encode_line
from workers.lock import Lock, LockTimeout
from workers.segments import LogReader, list_segments, read_backward, rotated_path

EVENT = {"event": "tested"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "log.jsonl"


@pytest.fixture
def log(path: Path) -> EventLog:
    return EventLog(path, fsync="off", lock_timeout_s=5)


def read_all(path: Path) -> list[Event]:
    return LogReader(path, from_start=True).read()


def seqs(path: Path) -> list[int]:
    return [event["seq"] for event in read_all(path)]


def by_hand(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


# -- append ----------------------------------------------------------------------------------------------------------


def test_an_append_makes_the_directories_and_returns_what_is_in_the_log(log: EventLog, path: Path) -> None:
    recorded = log.append({"event": "a", "run_id": "r.1"}, {"event": "b"})
    assert [event["seq"] for event in recorded] == [1, 2]
    assert recorded == [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_an_event_that_is_no_json_is_refused_and_none_of_its_companions_is_recorded(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    with pytest.raises(InvalidEvent):
        log.append(EVENT, {"event": "bad", "value": object()})
    log.append(EVENT)
    assert seqs(path) == [1, 2]


def test_appending_nothing_changes_nothing(log: EventLog, path: Path) -> None:
    assert log.append() == []
    assert path.read_bytes() == b""


def test_two_logs_on_one_path_in_one_process_share_it(log: EventLog, path: Path) -> None:
    other = EventLog(path.parent / ".." / "logs" / "log.jsonl", fsync="off")
    for _ in range(3):
        log.append(EVENT)
        other.append(EVENT)
    assert seqs(path) == [1, 2, 3, 4, 5, 6]


def test_a_log_and_a_link_to_it_are_one_log_with_one_lock(log: EventLog, path: Path, tmp_path: Path) -> None:
    log.append(EVENT)
    (tmp_path / "link.jsonl").symlink_to(path)
    linked = EventLog(tmp_path / "link.jsonl", fsync="off")
    linked.append(EVENT)
    assert linked.rotate(0, lambda _new: [])
    log.append(EVENT)
    assert seqs(path) == [1, 2, 3, 4]
    assert sorted(os.listdir(tmp_path)) == ["link.jsonl", "logs"]


def test_threads_of_one_process_append_without_a_gap(log: EventLog, path: Path) -> None:
    def append() -> None:
        for _ in range(200):
            log.append(EVENT)

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seqs(path) == list(range(1, 801))


def test_a_relative_log_stays_the_same_file_when_the_directory_changes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = EventLog("logs/log.jsonl", fsync="off")
    log.append(EVENT)
    monkeypatch.chdir("/")
    log.append(EVENT)
    log.close()
    log.append(EVENT)
    assert log.rotate(0, lambda _new: [])
    assert seqs(path) == [1, 2, 3, 4]


def test_a_forked_child_appends_to_the_same_log_under_its_own_pid(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    child = os.fork()
    if child == 0:
        log.append(EVENT)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    log.append(EVENT)
    assert [event["pid"] for event in read_all(path)] == [os.getpid(), child, os.getpid()]
    assert seqs(path) == [1, 2, 3]


def test_a_child_forked_while_a_thread_appends_is_not_stuck(log: EventLog, path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def decide(_new: list[Event]) -> list[Event]:
        inside.set()
        leave.wait(10)
        return [EVENT]

    thread = threading.Thread(target=log.transact, args=(decide,))
    thread.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        log.append(EVENT)
        os._exit(0)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert seqs(path) == [1, 2]


def test_an_append_within_an_append_is_a_timeout_and_not_a_deadlock(path: Path) -> None:
    log = EventLog(path, fsync="off", lock_timeout_s=0.05)
    with pytest.raises(LockTimeout, match=f"process {os.getpid()} holds it"):
        log.transact(lambda _new: log.append(EVENT))
    with pytest.raises(LockTimeout, match=f"process {os.getpid()} holds it"):
        log.transact(lambda _new: EventLog(path, lock_timeout_s=0.05).append(EVENT))
    log.append(EVENT)
    assert seqs(path) == [1]


def test_a_stopped_holder_is_named_by_the_append_that_waits_for_it(path: Path) -> None:
    path.parent.mkdir()
    process = log_processes.start(log_processes.hold, f"{path}.lock")
    try:
        assert log_processes.first_line(process) == "held"
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(LockTimeout, match=f"process {process.pid} holds it"):
            EventLog(path, lock_timeout_s=0.05).append(EVENT)
    finally:
        log_processes.end(process)
    EventLog(path).append(EVENT)


# -- transact --------------------------------------------------------------------------------------------------------


def test_a_condition_sees_what_came_since_the_last_read_and_decides(log: EventLog, path: Path) -> None:
    reader = LogReader(path)
    EventLog(path).append({"event": "other"})
    seen: list[Event] = []
    assert log.append_if(lambda new: not seen.extend(new), [EVENT], reader)  # type: ignore[func-returns-value]
    assert [event["event"] for event in seen] == ["other"]
    assert log.append_if(lambda new: bool(new), [EVENT], reader) == []
    assert reader.read() == []
    assert seqs(path) == [1, 2]


def test_what_the_decision_raises_passes_through_and_frees_the_lock(log: EventLog, path: Path) -> None:
    def decide(_new: list[Event]) -> list[Event]:
        raise OSError(errno.EIO, "of the caller")

    with pytest.raises(OSError, match="of the caller"):
        log.transact(decide)
    log.append(EVENT)
    assert seqs(path) == [1]


def test_four_processes_racing_for_five_hundred_keys_get_each_once(path: Path) -> None:
    processes = [log_processes.start(log_processes.claim_keys, str(path), f"p{number}", 500) for number in range(4)]
    had = [int(said) for said in log_processes.finish(*processes)]
    assert sum(had) == 500
    assert sorted(event["key"] for event in read_all(path)) == list(range(500))
    assert seqs(path) == list(range(1, 501))


# -- many processes --------------------------------------------------------------------------------------------------


def test_nothing_is_lost_or_doubled_while_four_processes_append_and_another_rotates(path: Path, tmp_path: Path) -> None:
    flag, count = tmp_path / "done", 3000
    follower = LogReader(path, from_start=True)
    rotator = log_processes.start(log_processes.rotate_until, str(path), str(flag))
    writers = [log_processes.start(log_processes.append_many, str(path), f"w{n}", count) for n in range(4)]
    followed: list[Event] = []
    while any(writer.poll() is None for writer in writers):
        followed += follower.read()
    log_processes.finish(*writers)
    flag.touch()
    (rotations,) = log_processes.finish(rotator)
    followed += follower.read()
    assert int(rotations) > 5
    assert [event["seq"] for event in followed] == list(range(1, 4 * count + 2 * int(rotations) + 1))
    assert followed == read_all(path)
    assert followed[::-1] == list(read_backward(path))
    for name in ("w0", "w1", "w2", "w3"):
        assert [event["number"] for event in followed if event.get("by") == name] == list(range(count))


# -- torn tails ------------------------------------------------------------------------------------------------------


def test_a_log_cut_at_any_byte_of_its_last_record_loses_no_other(path: Path) -> None:
    path.parent.mkdir()
    whole = encode_line({"event": "first", "seq": 1})
    last = encode_line({"event": "last", "seq": 2})
    torn = path.with_name("log.jsonl.torn")
    for kept in range(len(last)):
        path.write_bytes(whole + last[:kept])
        torn.unlink(missing_ok=True)
        log = EventLog(path, fsync="off")
        log.append({"event": "next"})
        log.close()
        names = [event["event"] for event in read_all(path)]
        assert names == (["first", "log_repaired", "next"] if kept else ["first", "next"])
        assert seqs(path) == list(range(1, len(names) + 1))
        assert (torn.read_bytes() if kept else b"\n") == last[:kept] + b"\n"


def test_a_cut_that_takes_only_the_newline_does_not_bring_the_record_back(log: EventLog, path: Path) -> None:
    log.append({"event": "unacknowledged"})
    os.truncate(path, path.stat().st_size - 1)
    log.append(EVENT)
    assert [event["event"] for event in read_all(path)] == ["log_repaired", "tested"]


def test_the_tail_is_mended_before_the_condition_is_asked(log: EventLog, path: Path) -> None:
    reader = LogReader(path)
    log.append(EVENT)
    by_hand(path, b'{"torn')
    seen: list[str] = []
    log.append_if(lambda new: seen.extend(event["event"] for event in new) or False, [EVENT], reader)  # type: ignore[func-returns-value]
    assert seen == ["tested", "log_repaired"]
    assert read_all(path)[-1]["bytes"] == 6


def test_a_tail_of_zeros_after_a_power_cut_is_mended(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    by_hand(path, b"\0" * 4096)
    log.append(EVENT)
    assert [event["event"] for event in read_all(path)] == ["tested", "log_repaired", "tested"]


def test_a_torn_tail_of_ten_megabytes_is_mended(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    by_hand(path, b"x" * 10_000_000)
    log.append(EVENT)
    assert seqs(path) == [1, 2, 3]
    assert path.with_name("log.jsonl.torn").stat().st_size == 10_000_001


# -- seq -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"broken\n",
        b'{"event":"by hand"}\n',
        b'{"event":"by hand","seq":"7"}\n',
        b'{"event":"by hand","seq":18446744073709551616}\n',
        b'{"event":"by hand","seq":true}\n',
        b"x" * 300_000 + b"\n",
        b"\0" * 100 + b"\n",
    ],
)
def test_a_line_without_a_seq_uses_one_up(log: EventLog, path: Path, line: bytes) -> None:
    log.append(EVENT)
    by_hand(path, line)
    assert log.append(EVENT)[0]["seq"] == 3
    assert log.append(EVENT)[0]["seq"] == 4


def test_blank_lines_use_no_seq_up(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    by_hand(path, b"\n \n")
    assert log.append(EVENT)[0]["seq"] == 2


@pytest.mark.parametrize("damage", ["removed", "emptied", "overwritten"])
def test_seq_goes_on_behind_the_rotated_segments_when_the_active_one_is_lost(
    log: EventLog, path: Path, damage: str
) -> None:
    log.append(EVENT, EVENT)
    log.rotate(0, lambda _new: [])
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "emptied" else b"broken\n")
    assert log.append(EVENT)[0]["seq"] == (4 if damage == "overwritten" else 3)


def test_a_rotated_segment_that_cannot_be_read_is_told_when_its_seq_is_needed(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    path.unlink()
    rotated_path(path, 1).mkdir()
    with pytest.raises(LogUnwritable, match=r"log\.jsonl\.000000000001: cannot be read: not a regular file"):
        log.append(EVENT)


# -- behind our back -------------------------------------------------------------------------------------------------


def test_a_deleted_log_is_begun_anew(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    path.unlink()
    log.append(EVENT)
    assert seqs(path) == [1]


def test_a_log_moved_away_is_begun_anew_and_the_moved_one_left_alone(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    path.rename(path.with_name("old"))
    log.append(EVENT)
    assert (len(path.read_bytes().splitlines()), len(path.with_name("old").read_bytes().splitlines())) == (1, 1)


def test_a_log_replaced_by_another_is_continued(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    path.with_name("copy").write_bytes(encode_line({"event": "x", "seq": 41}))
    path.with_name("copy").rename(path)
    assert log.append(EVENT)[0]["seq"] == 42


def test_a_log_cut_short_in_place_is_continued_where_it_ends(log: EventLog, path: Path) -> None:
    log.append(EVENT, EVENT, EVENT)
    os.truncate(path, path.stat().st_size // 3)
    assert log.append(EVENT)[0]["seq"] == 2


def test_the_whole_directory_may_go_and_its_lock_with_it(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    path.parent.rename(path.parent.with_name("moved"))
    log.append(EVENT)
    assert seqs(path) == [1]
    holder = Lock(Path(f"{path}.lock"))
    assert holder.try_acquire()
    log.lock_timeout_s = 0.02
    with pytest.raises(LockTimeout):
        log.append(EVENT)


def test_a_lock_file_deleted_while_another_decides_keeps_us_waiting_for_it(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    os.unlink(f"{path}.lock")
    other = EventLog(path, fsync="off")
    log.lock_timeout_s = 0.02

    def decide(_new: list[Event]) -> list[Event]:
        with pytest.raises(LockTimeout):
            log.append({"event": "between"})
        return [EVENT]

    other.transact(decide)
    assert [event["event"] for event in read_all(path)] == ["tested", "tested"]


# -- disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_loses_nothing_that_was_acknowledged_and_takes_over_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "log.jsonl"
    (small_disk / "ballast").write_bytes(b"x" * 20_000)
    log = EventLog(path, fsync="off")
    acknowledged = fill(log)
    assert seqs(path) == list(range(1, acknowledged + 1))
    assert path.read_bytes().endswith(b"\n")
    with pytest.raises(LogUnwritable):
        log.append({"event": "tested", "text": "x" * 300})
    with pytest.raises(LogUnwritable, match="No space left"):
        log.rotate(0, lambda _new: [{"event": "checkpoint", "text": "x" * 5000}])
    assert not path.with_name("log.jsonl.next").exists()
    (small_disk / "ballast").unlink()
    assert log.append(EVENT)[0]["seq"] == acknowledged + 1
    assert log.rotate(0, lambda _new: [])
    assert seqs(path) == list(range(1, acknowledged + 3))


def fill(log: EventLog) -> int:
    """Append until the disk is full; return how many appends were acknowledged."""
    for acknowledged in range(10_000):
        try:
            log.append({"event": "tested", "text": "x" * 300})
        except LogUnwritable as error:
            assert str(error) == f"{log.path}: cannot be written: {os.strerror(errno.ENOSPC)}" + (  # noqa: PT017
                ", or over a limit of file size" if "limit" in str(error) else ""
            )
            return acknowledged
    pytest.fail("the disk never became full")


def test_a_torn_tail_stays_until_a_full_disk_has_room_to_save_it(small_disk: Path) -> None:
    path = small_disk / "log.jsonl"
    log = EventLog(path, fsync="off")
    log.append(EVENT)
    by_hand(path, b'{"torn":')
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(b"x" * 100_000)
    with pytest.raises(LogUnwritable, match="No space left"):
        log.append(EVENT)
    assert path.read_bytes().endswith(b'{"torn":')
    (small_disk / "ballast").unlink()
    log.append(EVENT)
    assert path.with_name("log.jsonl.torn").read_bytes() == b'{"torn":\n'
    assert seqs(path) == [1, 2, 3]


def test_a_write_that_is_cut_short_is_taken_back(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    before = path.read_bytes()
    process = log_processes.start(log_processes.meet_a_size_limit, str(path), len(before) + 100)
    assert "cannot be written: No space left on device, or over a limit" in log_processes.finish(process)[0]
    assert path.read_bytes() == before


@pytest.mark.parametrize("make", ["directory", "fifo", "parent is a file", "/dev/full", "/dev/null"])
def test_a_path_that_cannot_be_a_log_is_refused_in_one_line(path: Path, make: str) -> None:
    if make == "parent is a file":
        path.parent.touch()
    else:
        path.parent.mkdir()
    if make == "directory":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    elif make.startswith("/dev/"):
        path.symlink_to(make)
    log = EventLog(path, lock_timeout_s=1)
    for _ in range(2):
        with pytest.raises(LogUnwritable) as caught:
            log.append(EVENT)
    assert str(log.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if make == "fifo" or make.startswith("/dev/"):
        assert str(caught.value).endswith(": cannot be written: not a regular file")
    if make.startswith("/dev/"):
        Path(f"{make}.lock").unlink(missing_ok=True)


def test_a_directory_that_may_not_be_written_is_refused_by_name(path: Path) -> None:
    if os.geteuid() == 0:
        path = Path("/proc/log.jsonl")  # where root may not either
    else:
        path.parent.mkdir(mode=0o555)
    with pytest.raises(LogUnwritable, match=r"log\.jsonl: cannot be written: .*log\.jsonl\.lock"):
        EventLog(path).append(EVENT)


# -- rotation --------------------------------------------------------------------------------------------------------


def test_a_new_segment_begins_with_the_checkpoint_and_seq_goes_on(log: EventLog, path: Path) -> None:
    reader = LogReader(path)
    log.append(EVENT, EVENT)
    news: list[Event] = []

    def checkpoint(new: list[Event]) -> list[Event]:
        news.extend(new)
        return [{"event": "checkpoint"}]

    assert log.rotate(1, checkpoint, reader)
    assert [event["seq"] for event in news] == [1, 2]
    log.append(EVENT)
    opening = [(event["seq"], event["event"]) for event in reader.read()]
    assert opening == [(3, "segment_started"), (4, "checkpoint"), (5, "tested")]
    assert [segment.path for segment in list_segments(path)] == [rotated_path(path, 1), path]


def test_a_log_that_is_small_empty_or_absent_is_not_rotated(log: EventLog, path: Path) -> None:
    assert not log.rotate(0, lambda _new: [])
    log.append()
    assert not log.rotate(0, lambda _new: [])
    by_hand(path, b"\n\n")
    assert not log.rotate(0, lambda _new: [])
    log.append(EVENT)
    assert not log.rotate(10_000, lambda _new: [])
    assert [segment.path for segment in list_segments(path)] == [path]


def test_a_checkpoint_that_cannot_be_written_leaves_the_log_as_it_is(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    with pytest.raises(InvalidEvent):
        log.rotate(0, lambda _new: [{"event": "checkpoint", "text": "x" * 100_000}])
    log.append(EVENT)
    assert seqs(path) == [1, 2]
    assert sorted(os.listdir(path.parent)) == ["log.jsonl", "log.jsonl.lock"]


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "link", "rename"])
def test_a_kill_at_any_step_of_a_rotation_loses_and_doubles_nothing(log: EventLog, path: Path, call: str) -> None:
    log.append(EVENT)
    process = log_processes.start(log_processes.die_in_rotation, str(path), call)
    assert process.wait(30) == -signal.SIGKILL
    log_processes.end(process)
    reader = LogReader(path, from_start=True)
    assert [event["seq"] for event in reader.read()] == [1, 2]
    log.append(EVENT)
    assert log.rotate(0, lambda _new: [])
    log.append(EVENT)
    assert [event["seq"] for event in reader.read()] == [3, 4, 5]
    assert seqs(path) == [1, 2, 3, 4, 5]
    assert [event["seq"] for event in read_backward(path) if event] == [5, 4, 3, 2, 1]
    assert [segment.path for segment in list_segments(path)] == [rotated_path(path, 1), path]


def test_a_rotation_never_overwrites_a_segment(log: EventLog, path: Path) -> None:
    log.append(EVENT)
    log.rotate(0, lambda _new: [])
    path.write_bytes(rotated_path(path, 1).read_bytes())  # an old copy put back
    log.append({"event": "precious"})
    with pytest.raises(LogUnwritable, match=r"File exists \(.*log\.jsonl\.000000000001\)"):
        log.rotate(0, lambda _new: [])
    assert read_all(path)[-1]["event"] == "precious"
    assert len(rotated_path(path, 1).read_bytes().splitlines()) == 1


def test_pruning_keeps_the_newest_segments(log: EventLog, path: Path) -> None:
    for _ in range(4):
        log.append(EVENT)
        log.rotate(0, lambda _new: [])
    assert log.prune(2, 1e9, 0.0) == [rotated_path(path, 1), rotated_path(path, 2)]
    assert seqs(path) == [4, 5, 6, 7, 8]


def test_pruning_by_age_leaves_no_hole(log: EventLog, path: Path) -> None:
    for _ in range(4):
        log.append(EVENT)
        log.rotate(0, lambda _new: [])
    for first, written in ((1, 100), (2, 900), (4, 100), (6, 950)):
        os.utime(rotated_path(path, first), (written, written))
    assert log.prune(64, 500.0, 1000.0) == [rotated_path(path, 1)]
    assert log.prune(64, 0.0, 1e12) == [rotated_path(path, first) for first in (2, 4, 6)]
    assert path.exists()


# -- flushing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were flushed."""
    sizes: list[int] = []
    flush = os.fdatasync

    def fdatasync(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        flush(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return sizes


@pytest.mark.parametrize(("fsync", "expected"), [("off", 0), ("interval", 0), ("always", 3)])
def test_an_append_flushes_as_the_setting_says(path: Path, flushes: list[int], fsync: Fsync, expected: int) -> None:
    log = EventLog(path, fsync=fsync)
    for _ in range(3):
        log.append(EVENT)
    assert len(flushes) == expected
    if expected:
        assert flushes[-1] == path.stat().st_size


def test_interval_flushes_with_the_first_append_after_a_second(
    path: Path, flushes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(path)
    log.append(EVENT)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    log.append(EVENT)
    log.append(EVENT)
    assert len(flushes) == 1


def test_sync_flushes_what_others_wrote_and_only_once(path: Path, flushes: list[int]) -> None:
    log = EventLog(path)
    log.append(EVENT)
    log.sync()
    EventLog(path, fsync="off").append(EVENT)
    log.sync()
    log.sync()
    assert flushes == [path.stat().st_size // 2, path.stat().st_size]


def test_sync_of_an_absent_log_creates_nothing(path: Path) -> None:
    EventLog(path).sync()
    assert not path.parent.exists()


def test_always_flushes_after_a_rotation_and_after_the_log_was_cut_short(path: Path, flushes: list[int]) -> None:
    log, other = EventLog(path, fsync="always"), EventLog(path, fsync="off")
    log.append(*[EVENT] * 50)
    other.rotate(0, lambda _new: [])
    del flushes[:]
    log.append(EVENT)
    assert flushes == [path.stat().st_size]
    path.write_bytes(b"")
    log.append(EVENT)
    assert flushes[1:] == [path.stat().st_size]


def test_threads_that_append_together_share_flushes(
    path: Path, flushes: list[int], monkeypatch: pytest.MonkeyPatch, wait_for: WaitFor
) -> None:
    log, gate = EventLog(path, fsync="always"), threading.Event()
    counted = os.fdatasync

    def wait_and_flush(fd: int) -> None:
        gate.wait(10)
        counted(fd)

    monkeypatch.setattr(os, "fdatasync", wait_and_flush)
    threads = [threading.Thread(target=log.append, args=(EVENT,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: path.exists() and len(seqs(path)) == 8, what="all eight lines")
    gate.set()
    for thread in threads:
        thread.join()
    assert len(flushes) <= 2
    assert flushes[-1] == path.stat().st_size


def fail(_fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_flush_that_fails_says_that_the_events_are_in_the_log_and_leaves_them_to_the_reader(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reader = EventLog(path, fsync="always"), LogReader(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(LogNotFlushed, match="written, but not flushed to the disk: Input/output error"):
            log.transact(lambda _new: [EVENT], reader)
        with pytest.raises(LogNotFlushed):
            log.sync()
    assert [event["event"] for event in reader.read()] == ["tested"]
    log.append(EVENT)
    assert seqs(path) == [1, 2]


def test_a_flush_that_fails_in_interval_mode_is_logged_and_the_append_stands(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(path)
    log.append(EVENT)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    monkeypatch.setattr(os, "fdatasync", fail)
    with caplog.at_level(logging.ERROR):
        assert log.append(EVENT)[0]["seq"] == 2
    assert "not flushed to the disk: Input/output error" in caplog.text


def test_a_disk_that_fails_any_one_call_leaves_a_log_that_can_be_read_and_continued(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = ("open", "write", "fstat", "stat", "pread", "ftruncate", "fsync", "fdatasync", "link", "rename")
    for name in calls:
        for nth in range(1, 12):
            for file in path.parent.glob("*") if path.parent.exists() else ():
                file.unlink()
            setup = EventLog(path, fsync="off")
            setup.append(EVENT)
            setup.close()
            by_hand(path, b'{"torn"')
            with monkeypatch.context() as patch:
                patch.setattr(os, name, failing(getattr(os, name), nth))
                walk(path)
            EventLog(path, fsync="off").append({"event": "after"})
            found = read_all(path)
            assert found[0]["event"] == "tested"
            assert found[-1]["event"] == "after"
            assert [event["seq"] for event in found] == list(range(1, len(found) + 1)), (name, nth)


def failing(call: Callable[..., Any], nth: int) -> Callable[..., Any]:
    """Return `call`, of which the `nth` call fails as a broken disk does."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(*args, **kwargs)

    return wrapped


def walk(path: Path) -> None:
    """Mend, append, flush, rotate and append; every refusal is one of the log's own."""
    log = EventLog(path, fsync="always", lock_timeout_s=1)
    reader = LogReader(path)
    for step in (
        lambda: log.transact(lambda _new: [EVENT], reader),
        lambda: log.rotate(0, lambda _new: [{"event": "checkpoint"}], reader),
        lambda: log.append(EVENT),
    ):
        try:
            step()
        except LogUnwritable as error:
            assert "Input/output error" in str(error)  # noqa: PT017
    log.close()
    reader.close()


def test_a_line_read_back_by_hand_is_the_event(log: EventLog, path: Path) -> None:
    (event,) = log.append({"event": "tested", "who": "Zoë 🚀", "n": [1, 2.5, None, {"a": True}]})
    assert path.read_bytes().isascii()
    assert decode_line(path.read_bytes()) == event
