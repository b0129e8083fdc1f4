"""The power goes at any moment: with STATE_FSYNC=always no append that had returned is missing afterwards."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from power import Disk, Found, Trace, append_after, append_and_rotate, record

from workers.event_log import EventLog
from workers.segments import LogReader, read_backward

Count = Callable[[int, int], int]
Figure = Callable[[str], None]


def _trace(path: Path) -> Trace:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def _lay_out(found: Found, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    inodes: dict[bytes, Path] = {}
    for name, content in sorted(found.items()):
        if content is None:
            (root / name).mkdir()
        elif name.endswith(".jsonl") or content not in inodes or not content:
            (root / name).write_bytes(content)
            inodes[content] = root / name
        else:  # both names of one segment, while it is rotated
            (root / name).hardlink_to(inodes[content])


def _check(found: Found, acknowledged: list[str], root: Path, where: str) -> None:
    """A fresh reader and a fresh writer find all that was acknowledged, once."""
    _lay_out(found, root)
    log = root / "logs" / "log.jsonl"
    for step in ("read", "append"):
        if step == "append":
            EventLog(log, fsync="off").append({"event": "later"})
        events = LogReader(log, from_start=True).read()
        keys = Counter(event["key"] for event in events if "key" in event)
        lost = [key for key in acknowledged if keys[key] != 1]
        assert not lost, f"{where}: {lost} of {acknowledged}; found {list(found)}"
        seqs = [event["seq"] for event in events]
        assert seqs == sorted(set(seqs)), where
        assert [event for event in read_backward(log) if event] == events[::-1], where


def _lose_power(trace: Trace, root: Path, start: int = 0, where: str = "") -> int:
    """Let the power go after each call from `start` on; return how many states of the disk were looked at."""
    disk, states = Disk(), 0
    for number, (call, *args) in enumerate(trace, 1):
        disk.do(call, *args)
        if number > start and call != "write":
            for found in disk.after_power_loss():
                _check(found, disk.acknowledged, root, f"{where} call {number}, {call} {args}")
                states += 1
        elif number > start:
            before = disk.acknowledged
            for found in disk.after_power_loss():
                _check(found, before, root, f"{where} call {number}, {call}")
                states += 1
    return states


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_the_loss_of_power_at_any_call(tmp_path: Path, figure: Figure) -> None:
    place, trace = tmp_path / "disk", tmp_path / "trace"
    place.mkdir()
    record(str(place), str(trace), append_and_rotate)
    calls = _trace(trace)
    assert {"link", "rename", "flush", "flush names", "mkdir", "ack"} <= {call for call, *_ in calls}
    states = _lose_power(calls, tmp_path / "found")
    acknowledged = sum(call == "ack" for call, *_ in calls)
    figure(f"power lost after each of {len(calls)} calls, {states} states of the disk: "
           f"0 of {acknowledged} acknowledged events missing")  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_appended_behind_a_killed_process_survives_the_loss_of_power(
    tmp_path: Path, count: Count, figure: Figure
) -> None:
    place, trace = tmp_path / "disk", tmp_path / "trace"
    place.mkdir()
    record(str(place), str(trace), append_and_rotate)
    whole, states, kills = len(_trace(trace)), 0, 0
    for dies_after in range(1, whole + 1, count(3, 1)):
        shutil.rmtree(place)
        place.mkdir()
        trace.unlink()
        record(str(place), str(trace), append_and_rotate, dies_after)
        before = len(_trace(trace))
        record(str(place), str(trace), append_after)
        states += _lose_power(_trace(trace), tmp_path / "found", before, f"killed after call {before};")
        kills += 1
    figure(f"{kills} kills, then power lost after each call of the next process, {states} states of the disk: "
           "0 acknowledged events missing")  # fmt: skip
