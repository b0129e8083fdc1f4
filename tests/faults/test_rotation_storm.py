"""Four writers, and rotations all the while by processes that are killed within them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import log_attackers
import log_processes
import pytest

from workers.segments import LogReader, list_segments, read_backward

Count = Callable[[int, int], int]
Figure = Callable[[str], None]
WRITERS = 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_writers_readers_and_killed_rotations_lose_and_double_no_line(
    tmp_path: Path, count: Count, figure: Figure
) -> None:
    path, flag, seed = tmp_path / "log.jsonl", tmp_path / "over", random.randrange(1 << 32)
    lines = count(10_000, 100_000)
    followers = [log_attackers.start(log_attackers.follow_until, str(path), str(flag)) for _ in range(2)]
    rotator = log_attackers.start(log_attackers.rotate_and_be_killed, str(path), str(flag), seed)
    writers = [
        log_attackers.start(log_processes.append_many, str(path), f"w{number}", lines // WRITERS)
        for number in range(WRITERS)
    ]
    try:
        for writer in writers:
            log_attackers.finish(writer)
        flag.touch()
        kills = int(log_attackers.finish(rotator))
        followed = [log_attackers.finish(follower).split() for follower in followers]
    finally:
        log_attackers.end(*writers, rotator, *followers)
    events = LogReader(path, from_start=True).read()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    for number in range(WRITERS):
        mine = [event["number"] for event in events if event.get("by") == f"w{number}"]
        assert mine == list(range(lines // WRITERS))
    assert events[::-1] == list(read_backward(path))
    for seen, by_writers, reads in followed:
        # A rotation may still have been made after the last read.
        assert len(events) - 4 <= int(seen) <= len(events)
        assert int(by_writers) == lines
        assert int(reads) > 10
    segments = len(list_segments(path))
    assert segments > 1
    assert kills > 1
    assert not Path(f"{path}.torn").exists()
    figure(
        f"{lines} lines by {WRITERS} writers through {segments} segments, {kills} rotating processes killed "
        f"(seed {seed}): 0 lost, 0 doubled, seq without a gap; 2 readers that followed saw each line once"
    )
