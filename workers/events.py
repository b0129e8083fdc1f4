"""One event, one line: how a mapping becomes a line of the log and a line becomes a mapping again.

A line is one JSON object in ASCII, at most `MAX_LINE` bytes with its newline, in the order a person reads it:
`{"timestamp": ..., "event": ..., "seq": ..., "host": ..., "pid": ..., ...}`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from .errors import TickpoolError

__all__ = ["MAX_LINE", "Event", "InvalidEvent", "decode_line", "decode_lines", "encode_line", "hostname", "iso", "stamp", "utc_timestamp"]

Event = dict[str, Any]
MAX_LINE = 64 * 1024

_decoder = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, RecursionError, ValueError)


class InvalidEvent(TickpoolError):
    """An event that cannot become a line: (its name, what is wrong)."""

    def __str__(self) -> str:
        return f"event `{self.args[0]}` cannot be recorded: {self.args[1]}"


def iso(moment: datetime) -> str:
    """Write an aware datetime as UTC, ISO 8601, whole seconds, `Z`: the form jq's `fromdateiso8601` reads."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_timestamp() -> str:
    """Return the wall clock as UTC, ISO 8601, microseconds, `Z`."""
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def hostname() -> str:
    """Return this machine's name."""
    return socket.gethostname()


def stamp(event: Mapping[str, Any], seq: int, host: str) -> Event:
    """Return the event as it is recorded: with `timestamp`, `seq`, `host` and `pid` where it has none of its own."""
    line: Event = {
        "timestamp": event.get("timestamp") or utc_timestamp(),
        "event": event.get("event"),
        "seq": seq,
        "host": host,
        "pid": os.getpid(),
    }
    line.update(event)
    line["seq"] = seq
    return line


def encode_line(event: Event) -> bytes:
    """Write one event as its line.

    Raises InvalidEvent for a value that is no JSON, or a line over MAX_LINE.
    """
    try:
        data = _encoder.encode(event)
        if not data.isascii():
            data = json.dumps(event, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidEvent(event.get("event"), str(error)) from None
    if len(data) >= MAX_LINE:
        raise InvalidEvent(event.get("event"), f"{len(data) + 1} bytes; a line holds at most {MAX_LINE}")
    return data + b"\n"


def decode_line(line: bytes) -> Event | None:
    """Read one line; None when it is no JSON object."""
    try:
        return _decoder.decode(line)
    except _UNREADABLE:
        return None


def decode_lines(data: bytes) -> tuple[list[Event], int]:
    """Read whole lines; return the events and how many lines were no event (blank lines are nothing)."""
    try:
        return _decoder.decode_lines(data), 0
    except _UNREADABLE:
        pass
    lines = [line for line in data.split(b"\n") if line.strip()]
    events = [event for event in map(decode_line, lines) if event is not None]
    return events, len(lines) - len(events)
