"""A progress bar on stderr, for whoever sits at a terminal; nobody else gets a byte of it."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

_WIDTH = 30
_EVERY_S = 0.1


class Progress:
    """One line that is drawn again and again: `audit [#####.....] 41 % 12 MB`. Use it as a context manager."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = sys.stderr.isatty()
        self._drawn_at = 0.0

    def show(self, done: float, total: float, text: str = "") -> None:
        """Draw how much is done, at most ten times a second."""
        now = time.monotonic()
        if not self._is_shown or (now - self._drawn_at < _EVERY_S and done < total):
            return
        self._drawn_at = now
        share = min(1.0, done / total) if total else 1.0
        filled = round(share * _WIDTH)
        bar = "#" * filled + "." * (_WIDTH - filled)
        print(f"\r{self._what} [{bar}] {share:4.0%} {text}\033[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown and self._drawn_at:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
