"""Reading a log without locking it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import log_processes
import pytest

from workers import segments
from workers.event_log import EventLog
from workers.events import Event, encode_line
from workers.segments import LogReader, LogUnreadable, Position, final_seq, list_segments, read_backward, rotated_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture
def log(path: Path) -> EventLog:
    return EventLog(path, fsync="off")


def append(log: EventLog, count: int) -> None:
    for _ in range(count):
        log.append({"event": "tested"})


def rotate(log: EventLog) -> None:
    assert log.rotate(0, lambda _new: [])


def seqs(events: list[Event]) -> list[int]:
    return [event["seq"] for event in events]


def backward(path: Path) -> list[int | None]:
    return [event and event["seq"] for event in read_backward(path)]


def test_an_absent_log_has_no_segments_and_no_events(path: Path) -> None:
    assert list_segments(path) == []
    assert list_segments(path / "below" / "nothing") == []
    assert list(read_backward(path)) == []
    assert LogReader(path).read() == []
    assert LogReader(path).position == Position(1, 0)


def test_an_empty_log_has_no_events(path: Path) -> None:
    path.touch()
    assert [segment.first_seq for segment in list_segments(path)] == [1]
    assert list(read_backward(path)) == []
    assert LogReader(path).read() == []


def test_segments_are_listed_by_their_first_seq_and_the_active_one_is_last(log: EventLog, path: Path) -> None:
    append(log, 2)
    rotate(log)
    append(log, 1)
    rotate(log)
    (path.parent / f"{path.name}.torn").touch()
    (path.parent / f"{path.name}.000000000001.gz").touch()
    found = [(segment.first_seq, segment.path) for segment in list_segments(path)]
    assert found == [(1, rotated_path(path, 1)), (3, rotated_path(path, 3)), (5, path)]


def test_a_log_is_read_backward_across_all_its_segments(log: EventLog, path: Path) -> None:
    append(log, 2)
    rotate(log)
    append(log, 2)
    rotate(log)
    assert backward(path) == [6, 5, 4, 3, 2, 1]


def test_reading_backward_skips_the_torn_tail_and_marks_what_is_no_event(log: EventLog, path: Path) -> None:
    append(log, 2)
    with path.open("ab") as file:
        file.write(b"broken\n\n" + encode_line({"event": "x", "seq": 4}) + b'{"torn":' + b"x" * 200_000)
    assert backward(path) == [4, None, 2, 1]


def test_reading_backward_goes_on_while_the_log_is_rotated(log: EventLog, path: Path) -> None:
    append(log, 3)
    events = read_backward(path)
    first = next(events)
    rotate(log)
    append(log, 1)
    rotate(log)
    assert [event and event["seq"] for event in [first, *events]] == [3, 2, 1]


class Moment:
    """Lets something happen at the moment the reading code makes a system call, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, happens: Callable[[], object]) -> None:
        self._happens, self._original = happens, getattr(os, call)
        self.has_come = False
        monkeypatch.setattr(os, call, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.has_come:
            self.has_come = True
            self._happens()
        return self._original(*args, **kwargs)


def test_a_rotation_while_the_segments_are_listed_hides_none(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, 2)
    moment = Moment(monkeypatch, "scandir", lambda: rotate(log))
    assert [(segment.first_seq, segment.path) for segment in list_segments(path)] == [
        (1, rotated_path(path, 1)),
        (3, path),
    ]
    assert moment.has_come


def test_a_rotation_between_listing_and_opening_does_not_pass_one_segment_off_as_another(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, 2)
    listed = segments.list_segments

    def list_then_rotate(place: Path) -> list[segments.Segment]:
        found = listed(place)
        if len(found) == 1:
            rotate(log)
        return found

    monkeypatch.setattr(segments, "list_segments", list_then_rotate)
    reader = LogReader(path, from_start=True)
    assert seqs(reader.read()) == [1, 2, 3]
    assert reader.position.segment == 3


def test_what_is_written_between_a_read_and_a_rotation_is_read(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, 1)
    reader = LogReader(path)
    assert seqs(reader.read()) == [1]
    with monkeypatch.context() as patch:
        # The look whether the path still leads here comes after everything was read.
        moment = Moment(patch, "stat", lambda: (append(log, 2), rotate(log)))
        assert seqs(reader.read()) == [2, 3, 4]
        assert moment.has_come


def test_a_damaged_segment_with_both_names_is_read_once(log: EventLog, path: Path) -> None:
    path.write_bytes(b"broken\n")
    os.link(path, rotated_path(path, 1))
    assert list(read_backward(path)) == [None]
    assert [segment.path for segment in list_segments(path)] == [path]


def test_a_removed_active_file_leaves_the_rotated_ones_readable(log: EventLog, path: Path) -> None:
    append(log, 2)
    rotate(log)
    path.unlink()
    assert backward(path) == [2, 1]
    assert seqs(LogReader(path, from_start=True).read()) == [1, 2]


@pytest.mark.parametrize("content", [b"", b"broken\n\0\0\n"])
def test_an_active_file_that_tells_no_seq_comes_after_the_rotated_ones(
    log: EventLog, path: Path, content: bytes
) -> None:
    append(log, 3)
    rotate(log)
    path.write_bytes(content)
    assert [segment.first_seq for segment in list_segments(path)] == [1, 4]
    assert [seq for seq in backward(path) if seq] == [3, 2, 1]


def test_a_rotation_cut_off_between_its_two_names_shows_the_segment_once(log: EventLog, path: Path) -> None:
    append(log, 3)
    os.link(path, rotated_path(path, 1))
    assert [segment.path for segment in list_segments(path)] == [path]
    assert backward(path) == [3, 2, 1]
    assert seqs(LogReader(path, from_start=True).read()) == [1, 2, 3]


def test_the_final_seq_of_a_damaged_segment_is_counted_from_its_name(log: EventLog, path: Path) -> None:
    append(log, 3)
    rotate(log)
    rotated_path(path, 1).write_bytes(b"broken\n" * 3)
    assert final_seq(list_segments(path)[0]) == 3


def test_a_reader_begins_at_the_newest_segment_or_at_the_oldest(log: EventLog, path: Path) -> None:
    append(log, 2)
    rotate(log)
    append(log, 1)
    assert seqs(LogReader(path).read()) == [3, 4]
    assert seqs(LogReader(path, from_start=True).read()) == [1, 2, 3, 4]


def test_a_reader_follows_the_log_through_rotations(log: EventLog, path: Path) -> None:
    reader = LogReader(path)
    found: list[int] = []
    for _ in range(4):
        append(log, 3)
        found += seqs(reader.read())
        append(log, 2)  # read only after the rotation
        rotate(log)
    rotate(log)
    found += seqs(reader.read())
    assert found == list(range(1, 26))
    assert reader.read() == []


def test_half_a_line_is_left_for_the_next_read(path: Path) -> None:
    line = encode_line({"event": "x", "seq": 1})
    path.write_bytes(line[:10])
    reader = LogReader(path)
    assert reader.read() == []
    path.write_bytes(line)
    assert seqs(reader.read()) == [1]
    assert reader.corrupt == 0


def test_a_position_means_the_same_in_another_process(log: EventLog, path: Path) -> None:
    reader = LogReader(path)
    append(log, 3)
    reader.read()
    position = reader.position
    append(log, 2)
    rotate(log)
    append(log, 1)
    process = log_processes.start(log_processes.follow_from, str(path), *position)
    assert log_processes.finish(process) == ["4 5 6 7\n"]


def test_a_position_in_a_pruned_segment_goes_on_with_the_oldest_kept(log: EventLog, path: Path) -> None:
    append(log, 3)
    reader = LogReader(path)
    reader.read()
    reader.close()
    append(log, 1)
    rotate(log)
    rotate(log)
    assert log.prune(1, 1e9, 0.0) == [rotated_path(path, 1)]
    assert seqs(reader.read()) == [5, 6]


def test_seek_goes_back_within_a_segment_and_to_another(log: EventLog, path: Path) -> None:
    append(log, 2)
    reader = LogReader(path)
    start = Position(1, 0)
    assert seqs(reader.read()) == [1, 2]
    reader.seek(start)
    assert seqs(reader.read()) == [1, 2]
    rotate(log)
    assert seqs(reader.read()) == [3]
    reader.seek(start)
    assert seqs(reader.read()) == [1, 2, 3]
    reader.seek(None)
    assert seqs(reader.read()) == [3]


def test_a_reader_of_a_deleted_log_goes_on_with_the_one_begun_anew(log: EventLog, path: Path) -> None:
    append(log, 3)
    reader = LogReader(path, from_start=True)
    reader.read()
    path.unlink()
    assert reader.read() == []
    append(log, 1)
    assert seqs(reader.read()) == [1]


def test_a_reader_of_a_deleted_active_segment_does_not_read_the_rotated_ones_again(log: EventLog, path: Path) -> None:
    append(log, 2)
    rotate(log)
    append(log, 1)
    reader = LogReader(path, from_start=True)
    assert seqs(reader.read()) == [1, 2, 3, 4]
    path.unlink()
    append(log, 1)
    assert seqs(reader.read()) == [3]


@pytest.mark.parametrize("lines", [0, 2, 50])
def test_a_reader_of_a_log_cut_short_in_place_begins_anew(log: EventLog, path: Path, lines: int) -> None:
    append(log, 5)
    reader = LogReader(path)
    reader.read()
    anew = [encode_line({"event": "anew", "seq": seq, "pad": "x"}) for seq in range(1, lines + 1)]
    path.write_bytes(b"".join(anew))
    assert seqs(reader.read()) == list(range(1, lines + 1))
    assert reader.corrupt == 0


def test_lines_that_are_no_event_cost_no_other(path: Path) -> None:
    good = [encode_line({"event": "x", "seq": seq}) for seq in (1, 4, 5)]
    long_line = b'{"x":"' + b"y" * 10_000_000 + b'"}\n'
    path.write_bytes(good[0] + b"\0" * 4096 + b"\n" + b'{"x":"\\ud800"}\n' + good[1] + long_line + good[2])
    reader = LogReader(path)
    assert seqs(reader.read()) == [1, 4, 5]
    assert reader.corrupt == 3
    assert backward(path) == [5, None, 4, None, None, 1]


def test_a_very_long_torn_tail_is_left_alone(path: Path) -> None:
    path.write_bytes(encode_line({"event": "x", "seq": 1}) + b"x" * 10_000_000)
    reader = LogReader(path)
    assert seqs(reader.read()) == [1]
    assert (reader.read(), reader.corrupt) == ([], 0)
    assert backward(path) == [1]


def test_a_log_larger_than_a_chunk_comes_in_batches(path: Path) -> None:
    lines = [encode_line({"event": "x", "seq": seq, "text": "y" * 1000}) for seq in range(1, 3001)]
    path.write_bytes(b"".join(lines))
    batches = list(LogReader(path).batches())
    assert len(batches) > 2
    assert seqs([event for batch in batches for event in batch]) == list(range(1, 3001))


def test_a_log_that_is_a_directory_is_unreadable_by_name(path: Path) -> None:
    path.mkdir()
    for read in (lambda: LogReader(path).read(), lambda: list(read_backward(path))):
        with pytest.raises(LogUnreadable, match=r"log\.jsonl: cannot be read: not a regular file"):
            read()


def test_a_log_that_is_a_pipe_does_not_keep_its_reader_waiting(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(LogUnreadable):
        LogReader(path).read()


def test_a_disk_that_cannot_be_read_is_told_in_one_line(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # a regular file whose first page gives EIO
    with pytest.raises(LogUnreadable, match="cannot be read: Input/output error"):
        LogReader(path).read()


def test_a_read_that_fails_half_way_gives_everything_to_the_next(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, 2)
    rotate(log)
    append(log, 1)
    reader = LogReader(path, from_start=True)
    reads, pread = 0, os.pread

    def fail_later(fd: int, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads > 6:
            raise OSError(5, os.strerror(5))
        return pread(fd, size, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail_later)
        with pytest.raises(LogUnreadable):
            reader.read()
    assert seqs(reader.read()) == [1, 2, 3, 4]


def test_a_reader_keeps_its_file_when_the_directory_changes(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, 1)
    monkeypatch.chdir(path.parent)
    reader = LogReader(path.name)
    monkeypatch.chdir("/")
    assert seqs(reader.read()) == [1]
