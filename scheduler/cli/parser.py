"""The parts of a command line: a parser whose errors are one line, and what a subcommand is."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from workers.errors import did_you_mean

from .output import complain

__all__ = [
    "Command",
    "Parser",
    "add_dir",
    "number",
    "whole_number",
]


_UNKNOWN = re.compile(r"unrecognized arguments: (--?[^\s=]+)")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        complain(f"{self.prog}: {message}{self._near(message)} (see {self.prog} --help)")
        sys.exit(2)

    def _near(self, message: str) -> str:
        """Name the option that was meant by one that is not known."""
        found = _UNKNOWN.match(message)
        if found is None:
            return ""
        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        known = [option for parser in parsers for action in parser._actions for option in action.option_strings]
        near = did_you_mean(found[1], known)
        return near if near.endswith("?") else ""


class Command(NamedTuple):
    """One subcommand: what it does, the function that does it, and the one that gives a parser its arguments."""

    text: str
    act: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], object]


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number of these bounds, a `type` of argparse."""

    def read(text: str) -> int:
        if len(text) > len(str(most)) or not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]}: write a whole number from {least} to {most}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return what reads a number of these bounds, a `type` of argparse."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]}: write a number from {least:g} to {most:g}")
        return value

    return read


def add_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--dir`."""
    parser.add_argument(
        "--dir", type=Path, default=Path("schedules"), help="the directory of schedule files (default: schedules)"
    )
