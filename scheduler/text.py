"""Rows, lengths of time, moments and trends, as a terminal shows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from workers.terminal import clean

__all__ = ["BLOCKS", "age", "ago", "bar", "columns", "counted", "local", "size", "span", "sparkline", "table"]

# The levels of a sparkline; for a terminal that cannot show them, others.
BLOCKS = "▁▂▃▄▅▆▇█"
_FOREVER_S = 1e12
_NARROWEST = 8
_CUT = ".."
_GAP = 2


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    width: int | None = None,
    cut: Collection[int] = (),
    drop: Sequence[int] = (),
    right: Collection[int] = (),
) -> str:
    """Return rows under a head, each column as wide as its widest cell; those at `right` have their numbers there.

    Where that is wider than `width`, the columns at `cut` get narrower, the widest first; where that is not enough, the
    columns at `drop` are left out, in their order. No other changes: an id is there to be copied.
    """
    cells = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = {column: max(columns(row[column]) for row in cells) for column in range(len(head))}
    for column in drop:
        if _surplus({each: min(had, _NARROWEST) if each in cut else had for each, had in widths.items()}, width) > 0:
            del widths[column]
    while _surplus(widths, width) > 0 and (wide := [each for each in cut if widths.get(each, 0) > _NARROWEST]):
        widths[max(wide, key=lambda each: widths[each])] -= 1
    gap = " " * _GAP
    return "\n".join(
        gap.join(_cell(row[each], widths[each], is_right=each in right) for each in widths).rstrip() for row in cells
    )


def _surplus(widths: dict[int, int], width: int | None) -> int:
    return 0 if width is None else sum(widths.values()) + _GAP * (len(widths) - 1) - width


def counted(count: int, noun: str) -> str:
    """Write how many there are: `1 run`, `1,204 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.east_asian_width(char) in "WF":
        return 2
    return 0 if unicodedata.category(char) in ("Mn", "Me") else 1


def _cell(text: str, width: int, *, is_right: bool) -> str:
    if columns(text) > width:
        while columns(text) > width - len(_CUT):
            text = text[:-1]
        text += _CUT
    pad = " " * (width - columns(text))
    return pad + text if is_right else text + pad


def local(timestamp: object) -> str:
    """Write a time of the log in the zone of this process; `-` for what another hand wrote and is none."""
    try:
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return "-"


def age(timestamp: object, now: datetime) -> str:
    """Write how old a time of the log is, in one unit: `3m`, or `-3m` for one to come; `-` for what is none."""
    try:
        seconds = (now - datetime.fromisoformat(str(timestamp))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return "-"
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if abs(seconds) >= length:
            return f"{int(seconds / length)}{unit}"
    return f"{int(seconds)}s"


def ago(timestamp: object, now: datetime) -> str:
    """Write the same as words: `3m ago`, `in 3m`."""
    text = age(timestamp, now)
    if text == "-":
        return text
    return f"in {text[1:]}" if text.startswith("-") else f"{text} ago"


def span(seconds: object) -> str:
    """Write a length of time in two units at most: `1h 5m`, `12.3s`; `-` for what is none."""
    if not isinstance(seconds, int | float) or not abs(seconds) < _FOREVER_S:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def size(count: int | None) -> str:
    """Write a number of bytes; `-` for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(count)


def bar(start: float, end: float, width: int) -> str:
    """Draw the part from `start` to `end` of a whole of 1, `width` columns wide; however short, it is seen."""
    first = min(width - 1, max(0, int(start * width)))
    last = min(width, max(first + 1, round(end * width)))
    return " " * first + "=" * (last - first)


def sparkline(values: Sequence[float], levels: str = BLOCKS) -> str:
    """Draw values as a line of levels, the highest value as the highest level."""
    top = max(values, default=0.0)
    if top <= 0:
        return levels[0] * len(values)
    return "".join(levels[max(0, min(len(levels) - 1, int(value / top * len(levels))))] for value in values)
