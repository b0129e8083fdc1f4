"""What is done to the files of a log, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.log_files import LogUnwritable, begin_segment, move_tail, reason, write_whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_a_full_device_takes_nothing_and_says_so() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        write_whole(fd, b"x", 0)
    os.close(fd)


def test_a_tail_is_moved_behind_what_is_saved_already(path: Path) -> None:
    saved = path.with_name("saved")
    for fragment in (b'{"half":', b"x" * 3_000_000):
        path.write_bytes(b'{"a":1}\n' + fragment)
        fd = os.open(path, os.O_RDWR)
        move_tail(fd, 8, 8 + len(fragment), saved)
        os.close(fd)
        assert path.read_bytes() == b'{"a":1}\n'
    assert saved.read_bytes() == b'{"half":\n' + b"x" * 3_000_000 + b"\n"


def test_a_tail_that_cannot_be_saved_stays(path: Path) -> None:
    path.write_bytes(b'{"a":1}\n{"half":')
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(OSError, match="No space left"):
        move_tail(fd, 8, 16, Path("/dev/full"))
    os.close(fd)
    assert path.read_bytes() == b'{"a":1}\n{"half":'


def test_the_new_segment_has_the_mode_of_the_old_one(path: Path) -> None:
    path.write_text("old\n", "ascii")
    path.chmod(0o640)
    begin_segment(path, b"new\n", path.with_name("old"))
    assert (path.read_bytes(), path.with_name("old").read_bytes()) == (b"new\n", b"old\n")
    assert path.stat().st_mode & 0o777 == 0o640


def test_another_file_with_the_old_segments_name_is_never_overwritten(path: Path) -> None:
    path.write_text("old\n", "ascii")
    path.with_name("taken").write_text("precious\n", "ascii")
    with pytest.raises(FileExistsError):
        begin_segment(path, b"new\n", path.with_name("taken"))
    assert path.read_bytes() == b"old\n"
    assert path.with_name("taken").read_bytes() == b"precious\n"
    assert sorted(os.listdir(path.parent)) == ["log.jsonl", "taken"]


def test_the_reason_names_the_file_the_system_named() -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        os.rename("/nowhere/a", "/nowhere/b")
    assert reason(caught.value) == "No such file or directory (/nowhere/b)"
    assert str(LogUnwritable("x.jsonl", reason(OSError("odd")))) == "x.jsonl: cannot be written: odd"
