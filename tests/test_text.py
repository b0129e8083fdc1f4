"""Rows, lengths of time, moments and trends, as a terminal shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.text import BLOCKS, age, ago, bar, columns, local, size, span, sparkline, table

NOW = datetime(2026, 11, 23, 15, 5, tzinfo=UTC)


def test_a_table_is_as_wide_as_its_cells_and_numbers_stand_at_the_right() -> None:
    rows = [("a", 1, "x"), ("bbb", 100, "yy")]
    assert table(("N", "COUNT", "T"), rows, right=(1,)) == "N    COUNT  T\na        1  x\nbbb    100  yy"


def test_a_table_that_is_too_wide_has_its_texts_cut_and_then_columns_left_out() -> None:
    head, rows = ("RUN", "AT", "REASON"), [("r" * 20, "12:00", "because " * 10)]
    lines = table(head, rows, width=60, cut=(2,), drop=(1,)).split("\n")
    assert max(map(len, lines)) == 60
    assert lines[1] == f"{'r' * 20}  12:00  {('because ' * 10)[:29]}.."
    narrow = table(head, rows, width=30, cut=(2,), drop=(1,)).split("\n")
    assert narrow == ["RUN                   REASON", f"{'r' * 20}  becaus.."]
    # A name is there to be copied.
    assert table(head, rows, width=5, cut=(2,), drop=(1,)) == "\n".join(narrow)


@given(
    st.lists(st.tuples(st.text(max_size=12), st.text(max_size=60), st.integers()), min_size=1, max_size=5),
    st.integers(60, 120),
)
def test_no_line_of_a_table_is_wider_than_the_terminal(rows: list[tuple[str, str, int]], width: int) -> None:
    head = ("A", "B", "C")
    for line in table(head, rows, width=width, cut=(1,), drop=(2,)).split("\n"):
        assert columns(line) <= width


def test_a_wide_character_takes_two_columns_and_a_mark_on_another_none() -> None:
    assert [columns(text) for text in ("abc", "日本", "e\u0301", "é", "")] == [3, 4, 1, 1, 0]
    lines = table(("A", "B"), [("日本", "x"), ("abcd", "y")]).split("\n")
    assert lines[1:] == ["日本  x", "abcd  y"]


@pytest.mark.parametrize(
    ("delta", "shown", "words"),
    [
        (timedelta(seconds=3), "3s", "3s ago"),
        (timedelta(minutes=59, seconds=59), "59m", "59m ago"),
        (timedelta(hours=47), "1d", "1d ago"),
        (timedelta(hours=-2), "-2h", "in 2h"),
    ],
)
def test_an_age_is_told_in_one_unit(delta: timedelta, shown: str, words: str) -> None:
    moment = (NOW - delta).isoformat()
    assert (age(moment, NOW), ago(moment, NOW)) == (shown, words)


@pytest.mark.parametrize("moment", [None, "", "soon", 5, [], "2026-11-23T15:05:00", "0001-01-01T00:00:00+23:00"])
def test_what_is_no_moment_has_no_age(moment: object) -> None:
    assert age(moment, NOW)
    assert ago(moment, NOW)
    assert local(moment)
    assert age("2026-11-23T15:05:00", NOW) == ago("soon", NOW) == local("soon") == "-"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0s"), (59.94, "59.9s"), (60, "1m 0s"), (3660, "1h 1m"), (90_000, "1d 1h"), ("x", "-")]
)
def test_a_length_has_two_units_at_most(seconds: object, shown: str) -> None:
    assert span(seconds) == shown


def test_a_size_has_the_unit_that_fits() -> None:
    assert [size(count) for count in (None, 0, 1023, 1536, 5 * 2**20, 2**40)] == [
        "-", "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "1024.0 GiB",
    ]  # fmt: skip


def test_a_bar_stands_where_its_part_of_the_whole_is_and_is_always_seen() -> None:
    assert bar(0, 1, 10) == "=" * 10
    assert bar(0.5, 0.5, 10) == "     ="
    assert bar(1, 1, 10) == "         ="
    assert bar(0.2, 0.6, 10) == "  ===="


def test_a_trend_is_as_high_as_its_values() -> None:
    assert sparkline([0, 1, 4, 8]) == "▁▂▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([1, 2], "_#") == "##"
    assert set(sparkline([-1, 3])) <= set(BLOCKS)
