"""One event, one line: how a mapping becomes a line of the log and a line becomes a mapping again.

A line is one JSON object in ASCII, at most `MAX_LINE` bytes with its newline, in the order a person reads it:
`{"timestamp": ..., "event": ..., "seq": ..., "host": ..., "pid": ..., ..., "crc": "1c291ca3"}`. The `crc` is the CRC-32
(RFC 1952) of the line's bytes before `,"crc":`; a line of another hand may have none.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from zlib import crc32

import msgspec

from .errors import TickpoolError

__all__ = [
    "LAST_S",
    "MAX_LINE",
    "Event",
    "InvalidEvent",
    "Second",
    "crc_of",
    "decode_line",
    "decode_lines",
    "encode_line",
    "hostname",
    "is_intact",
    "iso",
    "iso_exact",
    "seq_of",
    "stamp",
    "text_or_none",
    "time_of",
    "utc_timestamp",
]

Event = dict[str, Any]
MAX_LINE = 64 * 1024
# 9999-12-31T23:59:59Z: by its zone a text may name a later moment, which nothing can write down in UTC.
LAST_S = 253_402_300_799
# Whole seconds since the epoch, as the lines of another hand may hold them; a schedule begins just before its first.
Second = Annotated[int, msgspec.Meta(ge=-2, le=LAST_S)]
_MARK = b',"crc":"'
_SEAL_END = b'%08x"}'
_SEAL = _MARK + _SEAL_END
_SEAL_BYTES = len(_SEAL % 0)


class _Seq(msgspec.Struct):
    seq: int = 0


_decoder = msgspec.json.Decoder(dict[str, Any])
_seq_decoder = msgspec.json.Decoder(_Seq)
_encoder = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, RecursionError, ValueError)
_SEQ_LIMIT = 1 << 53
# The year 1 in UTC.
_FIRST_S = -62_135_596_800.0


class InvalidEvent(TickpoolError):
    """An event that cannot become a line: (its name, what is wrong)."""

    def __str__(self) -> str:
        return f"event `{self.args[0]}` cannot be recorded: {self.args[1]}"


def iso(moment: datetime) -> str:
    """Write an aware datetime as UTC, ISO 8601, whole seconds, `Z`: the form jq's `fromdateiso8601` reads."""
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z"  # a third of what strftime takes


def iso_exact(moment: datetime) -> str:
    """Write an aware datetime as `iso` does, with milliseconds where it has any; never later than it is."""
    utc = moment.astimezone(UTC)
    return f"{utc.isoformat()[:19]}.{utc.microsecond // 1000:03d}Z" if utc.microsecond >= 1000 else iso(utc)


def utc_timestamp() -> str:
    """Return the wall clock as UTC, ISO 8601, microseconds, `Z`."""
    now = time.time_ns() // 1000
    return f"{_second(now // 1_000_000)}.{now % 1_000_000:06d}Z"


def time_of(moment: object) -> float | None:
    """Read a time of the log as seconds since the epoch; None for what is none, has no zone, or no such year in UTC."""
    if isinstance(moment, str):
        with suppress(ValueError, OverflowError):
            instant = datetime.fromisoformat(moment)
            if instant.tzinfo is not None and _FIRST_S <= (at_s := instant.timestamp()) < LAST_S + 1:
                return at_s
    return None


def text_or_none(value: object) -> str | None:
    """Return a text of the log; None for what is none, or is empty."""
    return value if isinstance(value, str) and value else None


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def hostname() -> str:
    """Return this machine's name."""
    return os.uname().nodename


def stamp(event: Mapping[str, Any], seq: int, host: str, pid: int) -> Event:
    """Return the event as it is recorded: with `timestamp`, `host` and `pid` where it has none of its own."""
    line: Event = {"timestamp": None, "event": None, "seq": seq, "host": host, "pid": pid, **event}
    line["seq"] = seq
    line.pop("crc", None)  # of the line that this event was read from
    if not line["timestamp"]:
        line["timestamp"] = utc_timestamp()
    if line["event"] is None:
        del line["event"]
    return line


def encode_line(event: Event) -> bytes:
    """Write one event, which has at least one field, as its line.

    A lone surrogate (a file name that is no UTF-8) is written as the text of its escape, NaN and infinity as null.
    Raises InvalidEvent for a value that is no JSON, or a line over MAX_LINE.
    """
    try:
        try:
            data = _encoder.encode(event)
        except UnicodeEncodeError:
            data = _encoder.encode(_without_surrogates(event))
        if not data.isascii():
            data = json.dumps(_decoder.decode(data), separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidEvent(event.get("event"), str(error)) from None
    line = b"%b%b\n" % (data[:-1], _SEAL % crc32(data[:-1]))
    if len(line) > MAX_LINE:
        raise InvalidEvent(event.get("event"), f"{len(line)} bytes; a line holds at most {MAX_LINE}")
    return line


def crc_of(line: bytes) -> str:
    """Return the checksum that a line from `encode_line` carries."""
    return line[-11:-3].decode("ascii")


def is_intact(line: bytes) -> bool | None:
    """Say whether a line, with or without its newline, is as it was written; None when it carries no checksum."""
    if line[-1:] == b"\n":
        line = line[:-1]
    seal = line[-_SEAL_BYTES:]
    return seal == _SEAL % crc32(line[:-_SEAL_BYTES]) if seal[: len(_MARK)] == _MARK else None


def _without_surrogates(value: Any) -> Any:
    """Return the value with no lone surrogate in it: no JSON reader takes one, and msgspec does not write one."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def decode_line(line: bytes) -> Event | None:
    """Read one line; None when it is no JSON object, or its checksum does not hold.

    A turned bit leaves good JSON more often than not, with another name or number in it.
    """
    if is_intact(line) is False:
        return None
    try:
        return _decoder.decode(line)
    except _UNREADABLE:
        return None


def decode_lines(data: bytes) -> tuple[list[Event], int]:
    """Read whole lines; return the events and how many lines were no event (blank lines are nothing)."""
    try:
        events = _decoder.decode_lines(data)
    except _UNREADABLE:
        pass
    else:
        *lines, rest = data.split(b"\n")
        # msgspec lets an object run over several lines, so a damaged line could swallow the good one behind it.
        if len(events) == len(lines) and not rest and not any(map(_is_damaged, lines)):
            return events, 0
    lines = [line for line in data.split(b"\n") if line.strip()]
    found = [event for event in map(decode_line, lines) if event is not None]
    return found, len(lines) - len(found)


def _is_damaged(line: bytes) -> bool:
    # As `is_intact`, for the many lines of a fold, each of which it may doubt for nothing.
    text, mark, seal = line.rpartition(_MARK)
    if mark:
        return seal != _SEAL_END % crc32(text)
    # Of an object that runs over two lines, one begins or ends with something else; two in one line make up the count.
    return line[:1] != b"{" or line[-1:] != b"}"


def seq_of(line: bytes) -> int | None:
    """Return the seq a line carries; None when it is damaged or was written by another hand."""
    # A number that one turned bit has changed would hide whole segments, or be given again.
    if is_intact(line) is False:
        return None
    try:
        seq = _seq_decoder.decode(line).seq
    except _UNREADABLE:
        return None
    return seq if 0 < seq < _SEQ_LIMIT else None
