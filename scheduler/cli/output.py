"""What every command prints with."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from workers.terminal import clean, clean_lines

__all__ = ["can_show", "complain", "fault_row", "has_colours", "print_json", "say", "say_json", "show", "width"]

_GOOD, _BAD = 32, 31
_COLOURS = {"success": _GOOD, "kept": _GOOD, "failed": _BAD, "timeout": _BAD, "crashed": _BAD}
# In a column of its own: a table's columns are two spaces apart.
_STATUS = re.compile(
    r"(?<=  )(success|kept|failed|timeout|crashed|cancelled|running|queued|skipped|upstream_failed)(?=  | *$)",
    re.MULTILINE,
)


def say(line: object) -> None:
    """Print a line, at once."""
    print(clean(line), flush=True)


def show(text: str) -> None:
    """Print a text of several lines, at once; on a terminal with colours, words in a column that say how it is."""
    text = clean_lines(text)
    print(_STATUS.sub(_paint, text) if has_colours() else text, flush=True)


def has_colours() -> bool:
    """Say whether what is printed may have colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def can_show(text: str, encoding: str | None) -> bool:
    """Say whether a terminal of this encoding can show a text."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _paint(found: re.Match[str]) -> str:
    return f"\033[{_COLOURS.get(found[0], 33)}m{found[0]}\033[0m"


def complain(line: object) -> None:
    """Print a line on stderr, at once."""
    print(clean(line), file=sys.stderr, flush=True)


def width() -> int | None:
    """Return how many columns the terminal has that is printed to; None when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say_json(line: str) -> None:
    """Print a line as one JSON object, at once."""
    print(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "message": line}), flush=True)


def print_json(value: object) -> None:
    """Print a value as JSON for people and programs; structs as objects of their fields."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else str(value)


def fault_row(fault: Any) -> dict[str, Any]:
    """Return a fault as `--json` shows it."""
    return {"file": fault.path, "line": fault.line, "col": fault.col, "message": fault.message}
