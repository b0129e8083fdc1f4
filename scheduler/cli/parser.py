"""The parts of a command line: a parser whose errors are one line, and what a subcommand is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

from workers.errors import TickpoolError

from .output import complain

__all__ = ["Command", "InvalidMoment", "Parser", "add_dir", "read_moment"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        complain(f"{self.prog}: {message} (see {self.prog} --help)")
        sys.exit(2)


class Command(NamedTuple):
    """One subcommand: what it does, the function that does it, and the one that gives a parser its arguments."""

    text: str
    act: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], object]


def add_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--dir`."""
    parser.add_argument(
        "--dir", type=Path, default=Path("schedules"), help="the directory of schedule files (default: schedules)"
    )


class InvalidMoment(TickpoolError):
    """An option's value that is no moment: (the option, the text)."""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]!r}: write an ISO 8601 time with its zone, such as 2026-11-23T09:00:00Z"


def read_moment(option: str, text: str) -> datetime:
    """Read the value of an option as an aware datetime in UTC. Raises InvalidMoment."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidMoment(option, text) from None
    if moment.tzinfo is None:
        raise InvalidMoment(option, text)
    return moment.astimezone(UTC)
