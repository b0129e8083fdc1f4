"""Flushing: which writes are on the disk, and who shares a flush."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from service import WaitFor

from workers.flush import Flush


class Disk:
    """A file whose flushes are counted, and held up while `gate` is closed."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.path.touch()
        self.flushes = 0
        self.waiting = 0
        self.gate = threading.Event()
        self.gate.set()
        self._fdatasync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._flush)

    def _flush(self, fd: int) -> None:
        self.waiting += 1
        self.gate.wait(10)
        self.waiting -= 1
        self.flushes += 1
        self._fdatasync(fd)

    def open(self) -> int | None:
        return os.open(self.path, os.O_RDONLY) if self.path.exists() else None


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "file", monkeypatch)


def test_a_flush_covers_every_write_before_it(disk: Disk) -> None:
    flush = Flush(disk.open)
    flush.writes = 3
    flush.cover(2)
    flush.cover(3)
    assert disk.flushes == 1
    flush.writes = 4
    flush.cover(4)
    assert disk.flushes == 2


def test_writers_that_wait_together_share_one_flush(disk: Disk, wait_for: WaitFor) -> None:
    flush = Flush(disk.open)
    disk.gate.clear()
    flush.writes = 1
    threads = [threading.Thread(target=flush.cover, args=(1,))]
    threads[0].start()
    wait_for(lambda: disk.waiting == 1)
    for write in range(2, 10):
        flush.writes = write
        threads.append(threading.Thread(target=flush.cover, args=(write,)))
        threads[-1].start()
    disk.gate.set()
    for thread in threads:
        thread.join()
    assert disk.flushes == 2  # the one under way, and one for the eight that came meanwhile


def test_a_file_that_nobody_wrote_is_not_flushed_again(disk: Disk) -> None:
    flush = Flush(disk.open)
    flush.run()
    flush.run()
    assert disk.flushes == 1
    disk.path.write_bytes(b"by another process\n")
    flush.run()
    assert disk.flushes == 2


def test_an_absent_file_needs_no_flush(disk: Disk) -> None:
    disk.path.unlink()
    Flush(disk.open).run()
    assert disk.flushes == 0


def test_a_failed_flush_covers_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = Flush(disk.open)
    flush.writes = 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail)
        with pytest.raises(OSError, match="Input/output error"):
            flush.cover(1)
    flush.cover(1)
    assert disk.flushes == 1


def _fail(_fd: int) -> None:
    raise OSError(5, os.strerror(5))


def test_a_flush_is_due_once_a_second_and_for_one_asker(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    flush = Flush(disk.open)
    assert not flush.is_due()
    now[0] += 1.0
    assert [flush.is_due(), flush.is_due()] == [True, False]
    now[0] += 0.9
    flush.run()
    now[0] += 0.9
    assert not flush.is_due()
