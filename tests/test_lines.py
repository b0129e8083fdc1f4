"""The lines of one file, forward, backward, and its two ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.lines import LONGEST, final_line, first_seq, last_seq, line_start, lines_backward, lines_forward

Opened = Callable[[bytes], int]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Return a function that opens a file with the given bytes for reading."""
    fds = []

    def opened(data: bytes) -> int:
        path = tmp_path / "file"
        path.write_bytes(data)
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1]

    yield opened
    for fd in fds:
        os.close(fd)


_lines = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")) | st.just(b"x" * 1500), max_size=60)


@settings(max_examples=60)
@given(_lines)
def test_forward_and_backward_see_the_same_lines(opened: Opened, lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    fd = opened(data)
    expected = [line for line in lines if line.strip()]
    assert list(lines_forward(fd)) == expected
    assert list(lines_backward(fd, len(data))) == expected[::-1]


@pytest.mark.parametrize("length", [1023, 1024, 1025, 65535, 65536, 66560, 66561, 200_000])
def test_a_line_that_ends_at_the_edge_of_a_block_is_whole(opened: Opened, length: int) -> None:
    data = b"a\n" + b"x" * length + b"\n" + b"b\n"
    fd = opened(data)
    assert list(lines_forward(fd)) == [b"a", b"x" * length, b"b"]
    assert list(lines_backward(fd, len(data))) == [b"b", b"x" * length, b"a"]


def test_what_has_no_newline_yet_is_no_line(opened: Opened) -> None:
    assert list(lines_forward(opened(b'{"a":1}\n{"b"'))) == [b'{"a":1}']


def test_an_endless_line_comes_shortened_and_costs_no_other(opened: Opened) -> None:
    data = b'{"seq":1}\n{"x":"' + b"y" * 10_000_000 + b'"}\n{"seq":3}\n'
    fd = opened(data)
    for lines in (list(lines_forward(fd)), list(lines_backward(fd, len(data)))[::-1]):
        assert (lines[0], lines[2]) == (b'{"seq":1}', b'{"seq":3}')
        assert len(lines[1]) < LONGEST
        assert b"\0" in lines[1]


@pytest.mark.parametrize(
    ("data", "seq"),
    [
        (b"", None),
        (b"\n \n", None),
        (b"broken\n", None),
        (b'{"seq":5}\n', 5),
        (b'broken\n{"by":"hand"}\n\n{"seq":7}\n{"seq":8}\n', 5),
        (b'broken\n{"seq":1}\n', 1),
        (b"x" * 300_000 + b'\n{"seq":9}\n', 8),
    ],
)
def test_the_first_seq_is_told_by_the_first_line_that_carries_one(opened: Opened, data: bytes, seq: int | None) -> None:
    assert first_seq(opened(data)) == seq


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (None, 0)),
        (b"broken\nbroken\n", (None, 2)),
        (b'{"seq":5}\n', (5, 0)),
        (b'{"seq":5}\n\n\n', (5, 0)),
        (b'{"seq":5}\nbroken\n{"by":"hand"}\n{"seq":true}\n', (5, 3)),
        (b'{"seq":5}\n' + b"x" * 300_000 + b"\n", (5, 1)),
    ],
)
def test_the_last_seq_is_told_with_the_lines_behind_it(opened: Opened, data: bytes, expected: object) -> None:
    assert last_seq(opened(data), len(data)) == expected


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"a":1}\n{"b":2}\n', b'{"b":2}\n'),
        (b'{"a":1}\n{"b":', None),
        (b'{"a":1}\n\0\0\0\0', None),
        (b"\n" + b"x" * 5000 + b"\n", b""),
    ],
)
def test_a_glance_tells_the_final_line_or_that_it_is_torn(opened: Opened, data: bytes, line: bytes | None) -> None:
    assert final_line(opened(data), len(data)) == line


@pytest.mark.parametrize(("data", "start"), [(b"a\nbc", 2), (b"abc", 0), (b"a\n", 2), (b"a\n" + b"x" * 200_000, 2)])
def test_a_line_starts_behind_the_newline_before_it(opened: Opened, data: bytes, start: int) -> None:
    assert line_start(opened(data), len(data)) == start
