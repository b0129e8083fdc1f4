"""Charts as SVG, drawn by the server: they need no script, and no style attribute, which the CSP forbids."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from scheduler.web.views.figures import Bin

__all__ = ["bars", "lane", "line", "meter", "strip", "track"]


def strip(bins: Sequence[Bin], height: int = 48) -> Markup:
    """Draw what ended in each part of a window: good ones upward, bad ones below the line, cancelled ones between."""
    top = max((each.success + each.cancelled for each in bins), default=0) or 1
    low = max((each.bad for each in bins), default=0)
    upper = height if not low else round(height * 0.68)
    parts = []
    for number, each in enumerate(bins):
        good, off = upper * each.success / top, upper * each.cancelled / top
        parts += [
            _rect(number, upper - good, 0.8, good, "good"),
            _rect(number, upper - good - off, 0.8, off, "off"),
            _rect(number, upper + 1, 0.8, (height - upper - 1) * each.bad / (low or 1), "bad"),
        ]
    return _svg("strip", len(bins), height, "".join(parts), _told(bins))


def bars(values: Sequence[float | None], kind: str = "plain", label: str = "", height: int = 28) -> Markup:
    """Draw values as bars, the highest as high as the chart."""
    top = max((value for value in values if value is not None), default=0) or 1
    parts = [
        _rect(number, height - (tall := max(0.6, height * value / top)), 0.8, tall, kind)
        for number, value in enumerate(values)
        if value is not None
    ]
    return _svg("bars", len(values), height, "".join(parts), label)


def line(values: Sequence[float | None], label: str = "", height: int = 28) -> Markup:
    """Draw values as a line; where there is none, it is broken."""
    top = max((value for value in values if value is not None), default=0) or 1
    pieces: list[list[str]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{number + 0.5:g},{height - (height - 2) * value / top:.2f}")
    drawn = "".join(
        f'<polyline points="{" ".join(piece)}"/>' if len(piece) > 1 else _dot(piece[0]) for piece in pieces if piece
    )
    return _svg("line", len(values), height, drawn, label)


def meter(value: float | None, low: float | None, high: float | None, label: str = "") -> Markup:
    """Draw how far something is against what it usually takes: marks at the median and at the 95th percentile."""
    if value is None or not high:
        return Markup("")
    whole = max(value, high) * 1.1
    marks = "".join(
        f'<line x1="{100 * at / whole:.2f}" x2="{100 * at / whole:.2f}" y1="0" y2="8" class="{name}"/>'
        for at, name in ((low, "p50"), (high, "p95"))
        if at is not None
    )
    kind = "late" if value > high else "plain"
    return _svg("meter", 100, 8, f"{_rect(0, 2, 100 * value / whole, 4, kind)}{marks}", label)


def lane(runs: Sequence[int], failures: Sequence[int], *, is_open: bool, label: str) -> Markup:
    """Draw what ran in each part of a time: the taller the more, where some failed over all the height."""
    top = max(runs, default=0) or 1
    good, bad = [], []
    for number, (count, failed) in enumerate(zip(runs, failures, strict=True)):
        if failed:
            bad.append(f"M{number} 0h.82v16h-.82z")
        elif count:
            tall = 5 + 6 * count / top
            good.append(f"M{number} {15 - tall:.1f}h.82v{tall:.1f}h-.82z")
    newest = f'<path class="open" d="M{len(runs)} 4h1v11h-1z"/>' if is_open else ""
    drawn = f'<path class="good" d="{"".join(good)}"/><path class="bad" d="{"".join(bad)}"/>{newest}'
    return _svg("lane", len(runs) + 1, 16, drawn, label)


def track(moments_s: Sequence[float], length_s: float, label: str) -> Markup:
    """Draw moments, in seconds from now, on a line as long as a time; the first of them taller."""
    within = [each for each in moments_s if 0 <= each <= length_s]
    marks = "".join(
        f"M{1000 * each / length_s:.0f} {4 if number else 1}v{8 if number else 14}"
        for number, each in enumerate(within)
    )
    return _svg("track", 1000, 16, f'<path class="axis" d="M0 8h1000"/><path class="fire" d="{marks}"/>', label)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    if height <= 0 or width <= 0:
        return ""
    return f'<rect x="{x:g}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" class="{kind}"/>'


def _dot(point: str) -> str:
    """Draw a point: a line of no length, whose round ends no stretching of the chart deforms."""
    return f'<polyline points="{point} {point}"/>'


def _svg(name: str, width: int, height: int, parts: str, label: str) -> Markup:
    told = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return Markup(
        f'<svg class="chart {name}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" {told}>{parts}</svg>'
    )


def _told(bins: Sequence[Bin]) -> str:
    good, bad = sum(each.success for each in bins), sum(each.bad for each in bins)
    return f"{good} runs succeeded, {bad} did not"
