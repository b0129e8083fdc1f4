"""What every command prints with."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

from workers.terminal import clean, clean_lines

__all__ = ["complain", "fault_row", "print_json", "say", "say_json", "show", "width"]


def say(line: object) -> None:
    """Print a line, at once."""
    print(clean(line), flush=True)


def show(text: str) -> None:
    """Print a text of several lines, at once."""
    print(clean_lines(text), flush=True)


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
    """Print a value as JSON for people and programs."""
    print(json.dumps(value, indent=2, default=str))


def fault_row(fault: Any) -> dict[str, Any]:
    """Return a fault as `--json` shows it."""
    return {"file": fault.path, "line": fault.line, "col": fault.col, "message": fault.message}
