"""The watch over files: a file counts once it has rested, and each file once."""

from __future__ import annotations

import os
from pathlib import Path

from scheduler.file_watch import FileWatch, WatchedFile, file_at


def found(watch: FileWatch, at: float) -> list[str]:
    return [name for name, _ in watch.look(at)]


def test_a_file_counts_once_it_has_not_changed_for_its_time(tmp_path: Path) -> None:
    place = tmp_path / "in.csv"
    watch = FileWatch([WatchedFile("load", str(place), 5.0)])
    assert found(watch, 0.0) == []
    place.write_text("a")
    assert found(watch, 1.0) == []
    place.write_text("ab")
    assert found(watch, 5.5) == []
    assert found(watch, 10.4) == []
    assert found(watch, 10.5) == ["load"]


def test_a_file_that_goes_and_comes_again_rests_anew(tmp_path: Path) -> None:
    place = tmp_path / "in.csv"
    watch = FileWatch([WatchedFile("load", str(place), 2.0)])
    place.write_text("a")
    assert found(watch, 0.0) == []
    place.unlink()
    assert found(watch, 2.0) == []
    place.write_text("a")
    assert found(watch, 3.0) == []
    assert found(watch, 5.0) == ["load"]


def test_a_file_without_a_time_to_rest_counts_at_once(tmp_path: Path) -> None:
    place = tmp_path / "in.csv"
    place.write_text("a")
    assert found(FileWatch([WatchedFile("load", str(place), 0.0)]), 0.0) == ["load"]


def test_other_files_are_told_apart_even_where_size_and_time_are_the_same(tmp_path: Path) -> None:
    place, other = tmp_path / "in.csv", tmp_path / "other.csv"
    place.write_text("a")
    other.write_text("b")
    os.utime(other, ns=(place.stat().st_atime_ns, place.stat().st_mtime_ns))
    before = file_at(str(place))
    other.rename(place)
    assert before != file_at(str(place))
    assert before is not None
    assert before["mtime"].endswith("Z")


def test_what_is_no_regular_file_does_not_count(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("", "fifo", "dangling", "nothing", "in\0.csv"):
        assert file_at(f"{tmp_path}/{name}") is None


def test_other_schedules_that_wait_for_the_same_file_do_not_make_it_rest_again(tmp_path: Path) -> None:
    place = tmp_path / "in.csv"
    place.write_text("a")
    watch = FileWatch([WatchedFile("load", str(place), 2.0)])
    assert found(watch, 0.0) == []
    watch.replace([WatchedFile("load", str(place), 2.0), WatchedFile("copy", str(place), 1.0)])
    assert found(watch, 1.0) == ["copy"]
    assert found(watch, 2.0) == ["load", "copy"]
