"""Fire times ahead as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from textwrap import wrap
from zoneinfo import ZoneInfo

from workers.terminal import clean

from .ahead import FireAhead
from .text import span, table

__all__ = ["render_fires"]

_INDENT = "    "
_SHORTEST = 20


def render_fires(rows: Sequence[FireAhead], width: int | None) -> str:
    """Return fire times as a table, soonest first, with remarks below them, and what each schedule says in words.

    A terminal's `width` has remarks wrapped, and other lines cut at it.
    """
    if not rows:
        return "No fire times ahead"
    fires = [row for row in rows if row.utc is not None]
    lines: list[str] = []
    if fires:
        head, *body = table(("SCHEDULE", "FIRES AT", "UTC", "IN"), map(_cells, fires)).split("\n")
        lines.append(_cut(head, width))
        for row, line in zip(fires, body, strict=True):
            lines += [_cut(line, width), *_wrapped(row.remark or "", width)]
    lines += [_cut(f"{clean(row.schedule_id)}: {clean(row.remark)}", width) for row in rows if row.utc is None]
    words = {row.schedule_id: (row.schedule_id, _expression(row), row.explained) for row in rows}
    legend = table(("SCHEDULE", "CRON", "IN WORDS"), words.values())
    return "\n".join([*lines, "", *(_cut(line, width) for line in legend.split("\n"))])


def _cells(row: FireAhead) -> tuple[str, ...]:
    assert row.fire_time is not None
    local = datetime.fromisoformat(row.fire_time).astimezone(ZoneInfo(row.timezone))
    utc = local.astimezone(UTC)
    clock = "%H:%M:%S" if utc.second else "%H:%M"
    day = "" if utc.date() == local.date() else f"{utc:%a} "
    return row.schedule_id, f"{local:%a %Y-%m-%d {clock} %Z}", f"{day}{utc:{clock}}", span(row.in_s)


def _expression(row: FireAhead) -> str:
    return row.cron if isinstance(row.cron, str) else " | ".join(row.cron or ("-",))


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [f"{_INDENT}{clean(text)}"] if text else []
    return wrap(clean(text), max(width, _SHORTEST), initial_indent=_INDENT, subsequent_indent=_INDENT)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: max(width, _SHORTEST) - 1]}…"
