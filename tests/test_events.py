"""One event, one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from workers.events import (
    MAX_LINE,
    InvalidEvent,
    crc_of,
    decode_line,
    decode_lines,
    encode_line,
    is_intact,
    iso,
    seq_of,
    stamp,
    utc_timestamp,
)

_text = st.text(st.characters(exclude_categories=["Cs"]))
_scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text
_value = st.recursive(_scalar, lambda inner: st.lists(inner) | st.dictionaries(_text, inner), max_leaves=10)
_mapping = st.dictionaries(_text, _value, min_size=1)


def read(line: bytes) -> dict[str, Any]:
    """Read a line that was just written, without its checksum."""
    event = decode_line(line)
    assert event is not None
    assert event.pop("crc") == crc_of(line)
    return event


@given(_mapping)
def test_any_mapping_of_json_comes_back_from_one_line_of_ascii(event: dict[str, Any]) -> None:
    line = encode_line(event)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read(line) == event
    assert json.loads(line) == decode_line(line)


@given(st.text())
def test_text_with_lone_surrogates_is_recorded_and_read(text: str) -> None:
    event = decode_line(encode_line({"event": "x", "path": text, text: 1}))
    assert event is not None
    assert event["path"] == text.encode("utf-8", "backslashreplace").decode()


def test_surrogates_deep_inside_are_found_too() -> None:
    assert read(encode_line({"a": [{"b": ("\udcff",)}]})) == {"a": [{"b": ["\\udcff"]}]}


@pytest.mark.parametrize("beside", ["ascii", "é"])
def test_what_json_cannot_say_is_null_and_a_datetime_is_text_whatever_stands_beside(beside: str) -> None:
    moment = datetime(2026, 11, 23, 15, 5, tzinfo=UTC)
    line = encode_line({"beside": beside, "nan": float("nan"), "inf": float("-inf"), "at": moment})
    assert read(line) == {"beside": beside, "nan": None, "inf": None, "at": "2026-11-23T15:05:00Z"}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "x", "value": object()}, "event `x` cannot be recorded: "),
        ({"event": "x", "value": {None: 1}}, "event `x` cannot be recorded: "),
        (
            {"event": "x", "text": "y" * MAX_LINE},
            f"event `x` cannot be recorded: {MAX_LINE + 41} bytes; a line holds at",
        ),
        ({"event": "x", "text": "é" * (MAX_LINE // 6)}, "a line holds at most 65536"),
    ],
)
def test_what_cannot_be_a_line_is_refused_by_name(event: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        encode_line(event)
    assert said in str(caught.value)


def test_a_line_holds_exactly_the_limit() -> None:
    room = MAX_LINE - len(encode_line({"text": ""}))
    assert len(encode_line({"text": "x" * room})) == MAX_LINE
    with pytest.raises(InvalidEvent):
        encode_line({"text": "x" * (room + 1)})


def test_nesting_too_deep_is_refused_when_written_and_no_event_when_read() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(InvalidEvent):
        encode_line({"event": "x", "nested": nested})
    line = b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"
    assert decode_line(line) is None
    assert decode_lines(line + b'{"a":1}\n') == ([{"a": 1}], 1)


@given(_mapping, st.integers(0), st.integers(0, 7))
def test_a_flipped_bit_shows(event: dict[str, Any], place: int, bit: int) -> None:
    line = encode_line(event)
    assert is_intact(line)
    damaged = bytearray(line)
    damaged[place % len(line)] ^= 1 << bit
    assert not is_intact(bytes(damaged))


def test_a_line_of_another_hand_has_no_checksum() -> None:
    assert is_intact(b'{"event":"x","seq":1}\n') is None
    assert is_intact(b"") is None
    assert is_intact(b'{"event":"x","crc":"00000000"}\n') is False


def test_an_event_that_was_read_and_is_recorded_again_has_one_checksum() -> None:
    again = stamp(decode_line(encode_line({"event": "x"})) or {}, 7, "host", 1)
    assert "crc" not in again
    assert encode_line(again).count(b'"crc"') == 1


@pytest.mark.parametrize(
    "line",
    [b"", b"\0\0\0", b"null", b"[1]", b'"text"', b"12", b'{"a":', b'{"a":1}}', b'{"a":"\xff"}', b'{"a":"\\ud800"}'],
)
def test_a_line_that_is_no_object_is_no_event(line: bytes) -> None:
    assert decode_line(line) is None


@given(st.binary())
def test_no_bytes_make_a_reader_raise(data: bytes) -> None:
    decode_line(data)
    decode_lines(data)
    seq_of(data)


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b'{"x":', b"}", b'{"x":[', b'{"x":1}{"y":2}', b"\0", b'"', b""]))
)
def test_garbage_between_good_lines_never_hides_one(garbage: list[bytes]) -> None:
    data = b""
    for number, waste in enumerate(garbage):
        data += waste.replace(b"\n", b"") + b"\n" + encode_line({"good": number})
    events, _ = decode_lines(data)
    assert [event["good"] for event in events if "good" in event] == list(range(len(garbage)))


def test_two_events_in_one_line_and_one_over_two_lines_hide_none() -> None:
    data = b'{"":0}{"":0}\n{"good":0}\n{"":\n{"good":1}\n}\n'
    events, _ = decode_lines(data)
    assert [event["good"] for event in events if "good" in event] == [0, 1]


def test_a_line_cut_in_its_middle_does_not_swallow_the_good_line_behind_it() -> None:
    assert decode_lines(b'{"x":\n{"seq":5}\n}\n') == ([{"seq": 5}], 2)


def test_lines_that_are_no_events_are_counted_and_blank_ones_are_nothing() -> None:
    assert decode_lines(b'{"a":1}\n\n  \nbroken\n{"b":2}\r\n[]\n') == ([{"a": 1}, {"b": 2}], 2)


def test_a_stamped_line_reads_time_name_seq_and_origin_first() -> None:
    line = stamp({"run_id": "r", "event": "run_started"}, 7, "machine", 42)
    assert list(line) == ["timestamp", "event", "seq", "host", "pid", "run_id"]
    assert (line["event"], line["seq"], line["host"], line["pid"]) == ("run_started", 7, "machine", 42)


def test_an_event_keeps_its_own_origin_and_time_but_never_its_own_seq() -> None:
    own = {"event": "x", "timestamp": "2020-01-01T00:00:00Z", "host": "other", "pid": 1, "seq": 99}
    assert stamp(own, 7, "machine", 42) == {**own, "seq": 7}


@pytest.mark.parametrize("missing", [None, ""])
def test_an_event_with_an_empty_time_gets_one(missing: str | None) -> None:
    assert stamp({"event": "x", "timestamp": missing}, 1, "m", 1)["timestamp"].endswith("Z")


def test_an_event_without_a_name_is_not_given_one() -> None:
    assert "event" not in stamp({"note": "by hand"}, 1, "m", 1)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 23, 15, 4, 59, 999_999, UTC),
        datetime(2026, 11, 23, 15, 5, 0, 0, UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
    ],
)
def test_the_timestamp_is_the_wall_clock_to_the_microsecond(moment: datetime) -> None:
    with time_machine.travel(moment, tick=False):
        text = utc_timestamp()
    assert len(text) == 27
    assert datetime.fromisoformat(text) == moment


def test_iso_is_utc_and_whole_seconds_wherever_the_moment_came_from() -> None:
    paris = timezone(timedelta(hours=1))
    assert iso(datetime(2026, 11, 23, 16, 5, 12, 345678, paris)) == "2026-11-23T15:05:12Z"


@pytest.mark.parametrize(
    ("line", "seq"),
    [
        (b'{"event":"x","seq":12}\n', 12),
        (b'{"event":"x"}', None),
        (b'{"seq":true}', None),
        (b'{"seq":"5"}', None),
        (b'{"seq":-3}', None),
        (b'{"seq":0}', None),
        (b'{"seq":9007199254740992}', None),
        (b'{"seq":99999999999999999999999999}', None),
        (b"[5]", None),
        (b"seq 5", None),
    ],
)
def test_a_seq_is_a_whole_number_a_log_can_reach(line: bytes, seq: int | None) -> None:
    assert seq_of(line) == seq
