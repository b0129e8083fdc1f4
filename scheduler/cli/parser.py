"""The parts of a command line: a parser whose errors are one line, and what a subcommand is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

__all__ = ["Command", "Parser", "add_dir"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
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
