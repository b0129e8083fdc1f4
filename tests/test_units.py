"""Durations and sizes as people write them."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.units import Duration, InvalidDuration, InvalidSize, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("2d", 172800),
        ("1w", 604800),
        (90, 90),
        (0.25, 0.25),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: object, seconds: float) -> None:
    assert Duration.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "90",
        "s",
        "1 h",
        "-1s",
        "1h30",
        "1y",
        "11w10000d",
        -1,
        True,
        None,
        float("nan"),
        float("inf"),
        "9" * 400 + "s",
        [90],
    ],
)
def test_what_is_no_duration_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(InvalidDuration, match=r"is not a duration; write a number with ms, s, m, h, d or w") as caught:
        Duration.parse(value)
    assert repr(value) in str(caught.value)


@given(st.integers(min_value=0, max_value=10 * 366 * 86_400_000))
def test_a_duration_is_written_so_that_it_is_read_back(milliseconds: int) -> None:
    duration = Duration(milliseconds=milliseconds)
    assert Duration.parse(str(duration)) == duration


def test_a_duration_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(Duration.parse("1h30m")))
    assert (type(again), str(again)) == (Duration, "1h30m")


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("1 KiB", 1024), (" 16MiB ", 16 << 20), ("2GiB", 2 << 30), ("7B", 7)]
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1MB", "1.5MiB", "-1", "1 TiB", "0x10"])
def test_what_is_no_size_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidSize, match="is not a size; write a whole number with B, KiB, MiB or GiB"):
        parse_size(text)
