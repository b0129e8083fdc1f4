"""The charts of the pages about schedules, as SVG: outcomes, a year of days, lengths, a week of hours.

Colour is never the only sign: what went bad stands taller, has a mark, or has its number in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache

import msgspec
from markupsafe import Markup, escape

from scheduler.text import counted, span

from .period_counts import Day
from .run_index import BAD, OPEN
from .views.forecast import HourLoad
from .views.schedule import Series
from .views.schedules import Outcome

__all__ = ["Chart", "brief", "calendar", "figure", "hours", "lengths", "level_of", "share", "sparkline", "squares"]

_SLOTS = 20
_CELL = 13
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HOUR_W, _HOUR_H, _LEFT = 34, 24, 78
_WIDE, _TALL = 600, 120


def squares(outcomes: Sequence[Outcome]) -> Markup:
    """Draw the last outcomes, the newest at the right: one that went bad stands out above, an open one is hollow."""
    return _squares(tuple(each.status for each in outcomes))


# Most schedules fare alike.
@lru_cache(4096)
def _squares(statuses: tuple[str, ...]) -> Markup:
    paths: dict[str, list[str]] = {}
    for number, status in enumerate(statuses, _SLOTS - len(statuses)):
        kind = kind_of(status)
        top = 1 if kind == "bad" else 6
        paths.setdefault(kind, []).append(f"M{number * 8 + 1} {top}h6v{15 - top}h-6z")
    drawn = "".join(f'<path class="{kind}" d="{"".join(parts)}"/>' for kind, parts in paths.items())
    return _svg("squares", _SLOTS * 8, 16, drawn, _told(statuses))


def _told(statuses: Sequence[str]) -> str:
    """Say how the last runs went."""
    kinds = [kind_of(status) for status in statuses]
    words = {"good": "succeeded", "bad": "failed", "off": "cancelled", "open": "open"}
    counts = [f"{kinds.count(kind)} {word}" for kind, word in words.items() if kind in kinds]
    return f"last {len(statuses)} runs: {', '.join(counts)}; the newest: {statuses[-1]}"


def kind_of(status: str) -> str:
    """Return the class of a run's status."""
    if status in OPEN:
        return "open"
    return "good" if status == "success" else "bad" if status in BAD else "off"


def sparkline(outcomes: Sequence[Outcome], label: str) -> Markup:
    """Draw how long runs took as a small line with a dot at the newest; nothing for fewer than two."""
    values = [each.duration_s for each in outcomes]
    known = [(number, value) for number, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return Markup("")
    top, last = max(value for _, value in known) or 1, known[-1]
    step = 100 / max(1, len(values) - 1)
    points = [(number * step, 17 - 14 * value / top) for number, value in known]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dot = f'<circle cx="{last[0] * step:.1f}" cy="{points[-1][1]:.1f}" r="2"/>'
    return _svg("spark", 100, 20, f'<polyline points="{drawn}"/>{dot}', label)


def calendar(days: Sequence[Day]) -> Markup:
    """Draw a year, a column a week from Monday on: the darker the more runs, with a mark where some failed."""
    most = max((each.runs for each in days), default=0)
    parts = [
        f'<text x="0" y="{16 + _CELL * row + 9}">{name}</text>' for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"))
    ]
    month, marked = 0, -9
    for number, each in enumerate(days):
        week, weekday = divmod(number, 7)
        day = date.fromisoformat(each.day)
        x, y = 28 + week * _CELL, 16 + weekday * _CELL
        if weekday == 0 and day.month != month:
            month = day.month
            if week - marked >= 3:
                parts.append(f'<text x="{x}" y="10">{_MONTHS[month - 1]}</text>')
                marked = week
        parts.append(_day(x, y, each, most))
    total, bad = sum(each.runs for each in days), sum(each.failures for each in days)
    busy = sum(each.runs > 0 for each in days)
    label = (
        f"a year of days: {counted(total, 'run')} on {counted(busy, 'day')},"
        f" {bad} failed on {counted(sum(each.failures > 0 for each in days), 'day')}"
    )
    return _svg("calendar", 28 + _CELL * (-(-len(days) // 7)), 16 + 7 * _CELL, "".join(parts), label)


def _day(x: int, y: int, day: Day, most: int) -> str:
    size = _CELL - 2
    title = f"{day.day}: {day.runs} run{'' if day.runs == 1 else 's'}, {day.failures} failed"
    kind = "none" if not day.runs else "bad" if day.failures else f"good{level_of(day.runs / max(2, most))}"
    cell = f'<rect x="{x}" y="{y}" width="{size}" height="{size}" rx="2" class="{kind}"><title>{title}</title></rect>'
    if not day.failures:
        return cell
    tall = max(3, round(size * day.failures / day.runs))
    mark = f'<rect x="{x}" y="{y + size - tall}" width="{size}" height="{tall}" rx="2" class="share"/>'
    return f'{cell}{mark}<path d="M{x + 3} {y + 3}l5 5m0 -5l-5 5"/>'


def level_of(share: float) -> int:
    """Return 1 to 4 for a share of the most."""
    return 1 + min(3, int(max(0.0, share - 1e-9) * 4))


class Chart(msgspec.Struct, omit_defaults=True):
    """What `static/charts.js` draws in place of a figure's drawing: `bars`, or a `line`.

    A point is a moment in seconds since the epoch, a value, the class of its colour (`good`, `bad`, `off`, `open`), a
    name and a note to be told of it. With a `base` each name is a link behind it. Values are seconds with the unit `s`.
    """

    points: Sequence[tuple[float, float | None, str, str, str]]
    marks: Mapping[str, float] = {}
    base: str = ""
    shape: str = "bars"
    unit: str = "s"


def figure(name: str, drawing: Markup, chart: Chart) -> Markup:
    """Return a drawing with what a script makes a chart of; `name` is its own on its page."""
    data = escape(msgspec.json.encode(chart).decode())
    return Markup(f'<figure class="plot" id="chart-{escape(name)}" data-chart="{data}">{drawing}</figure>')


def brief(seconds: float | None) -> str:
    """Write a length of time; milliseconds where it is less than a second."""
    return f"{seconds * 1000:.0f} ms" if seconds is not None and seconds < 1 else span(seconds)


def lengths(name: str, series: Series, label: str) -> Markup:
    """Draw a bar a run with the class of its status, the oldest at the left, and a line across at p50 and p95."""
    points, marks = series.points, {"p50": series.p50_s or 0.0, "p95": series.p95_s or 0.0}
    top = max((each.value_s for each in points), default=0) or 1
    width = _WIDE / max(40, len(points))
    paths: dict[str, list[str]] = {}
    for number, each in enumerate(points, max(40, len(points)) - len(points)):
        tall, x, kind = max(1.5, (_TALL - 4) * each.value_s / top), number * width, kind_of(each.status)
        path = f"M{x:.1f} {_TALL}v-{tall:.1f}h{width * 0.78:.2f}v{tall:.1f}z"
        tip = f"M{x + width * 0.39:.1f} {_TALL - tall - 1:.1f}l-2.5 -4h5z" if kind == "bad" else ""
        paths.setdefault(kind, []).append(path + tip)
    parts = [f'<path class="{kind}" d="{"".join(each)}"/>' for kind, each in paths.items()]
    for mark, value in marks.items():
        y = _TALL - (_TALL - 4) * value / top
        parts.append(f'<line x1="0" x2="{_WIDE}" y1="{y:.2f}" y2="{y:.2f}" class="{mark}"/>')
    drawing = _svg("lengths", _WIDE, _TALL + 1, "".join(parts), label, is_stretched=True)
    told = [(each.at_s, each.value_s, kind_of(each.status), each.run_id, each.status) for each in points]
    return figure(name, drawing, Chart(told, marks, "/runs/"))


def share(part: float, whole: float, label: str) -> Markup:
    """Draw how much of a whole is taken."""
    taken = 100 * min(1.0, part / whole) if whole else 0
    kind = "late" if taken > 90 else "plain"
    bar = (
        f'<rect x="0" y="0" width="100" height="4" class="rest"/><rect width="{taken:.1f}" height="4" class="{kind}"/>'
    )
    return _svg("share-of", 100, 4, bar, label, is_stretched=True)


def hours(begin: date, first_hour: int, loads: Sequence[HourLoad], workers: int, label: str) -> Markup:
    """Draw days by hours, each with how many workers or slots are busy: a corner where runs wait, `!` where all are."""
    rows = -(-(first_hour + len(loads)) // 24)
    parts = [f'<text x="{_LEFT + hour * _HOUR_W + 4}" y="12">{hour:02d}</text>' for hour in range(0, 24, 3)]
    parts += [
        f'<text x="0" y="{20 + row * _HOUR_H + 15}">{begin + timedelta(days=row):%a %d %b}</text>'
        for row in range(rows)
    ]
    for number, each in enumerate(loads, first_hour):
        row, hour = divmod(number, 24)
        when = f"{begin + timedelta(days=row):%a %d %b} {hour:02d}:00"
        parts.append(_hour(_LEFT + hour * _HOUR_W, 20 + row * _HOUR_H, each, workers, when))
    return _svg("hours", _LEFT + 24 * _HOUR_W, 20 + rows * _HOUR_H, "".join(parts), label)


def _hour(x: int, y: int, load: HourLoad, workers: int, when: str) -> str:
    kind = "over" if load.is_full else "none" if load.busy < 0.05 else f"load{level_of(load.busy / workers)}"
    text = {"over": "!", "none": ""}.get(kind, f"{load.busy:.1f}" if load.busy < 9.95 else f"{load.busy:.0f}")
    title = f"{when}: {load.busy:.2f} of {workers} busy, {load.due} due, {load.deepest} wait at most"
    corner = f'<path d="M{x + _HOUR_W - 10} {y}h8v8z"/>' if load.deepest else ""
    return (
        f'<rect x="{x}" y="{y}" width="{_HOUR_W - 2}" height="{_HOUR_H - 2}" rx="3" class="{kind}">'
        f"<title>{title}</title></rect>{corner}"
        f'<text x="{x + _HOUR_W / 2 - 1}" y="{y + 15}" class="in {kind}">{text}</text>'
    )


def _svg(name: str, width: float, height: float, parts: str, label: str, *, is_stretched: bool = False) -> Markup:
    box = f'viewBox="0 0 {width:g} {height:g}"' + (' preserveAspectRatio="none"' if is_stretched else "")
    return Markup(f'<svg class="{name}" {box} role="img" aria-label="{escape(label)}">{parts}</svg>')
