"""Text for a terminal: what others wrote must not reach it as commands."""

from __future__ import annotations

import logging
import sys

__all__ = ["clean", "clean_lines", "make_safe"]

_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def clean(text: object) -> str:
    """Return a text as one line without control characters, marks of direction and half surrogates."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else _INSTEAD for char in line)


def clean_lines(text: object) -> str:
    """Return a text of several lines, each of them clean."""
    return "\n".join(map(clean, str(text).split("\n")))


def make_safe() -> None:
    """Make the terminal safe from what this process logs, and the process from what its terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Plain())


class _Plain(logging.Formatter):
    """Warnings as plain lines; a message that holds a line break does not become two."""

    def format(self, record: logging.LogRecord) -> str:
        text = clean(record.getMessage())
        if record.exc_info:
            text += "\n" + clean_lines(self.formatException(record.exc_info))
        return text
