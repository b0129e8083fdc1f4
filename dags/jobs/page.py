"""HTML pages that need nothing but themselves: no script, no font, no picture from another host.

Every text goes through `html.escape`; only `Markup` made here is taken as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["Markup", "badge", "bar", "card", "cards", "escape", "page", "section", "sparkline", "table"]


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


_STYLE = """
:root { color-scheme: light dark; --ink: #16202c; --dim: #5d6b7a; --line: #dde3ea; --paper: #f5f7fa; --card: #fff;
  --accent: #2f6fed; --good: #1a7f4b; --warn: #a25b00; --bad: #c02b2b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --dim: #93a1b0; --line: #2b3542; --paper: #10151b;
  --card: #182028; --accent: #7aa5ff; --good: #57c98e; --warn: #f0ad4e; --bad: #ff7b7b; } }
* { box-sizing: border-box }
body { margin: 0; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums }
main { max-width: 60rem; margin: auto }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .75rem }
.lead, footer { color: var(--dim) } .lead { margin: 0 0 1.75rem }
footer { margin-top: 3rem; font-size: .85rem }
.cards { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.1rem }
.card .name, .card .note { color: var(--dim); font-size: .85rem }
.card .value { font-size: 1.6rem; font-weight: 650; line-height: 1.3 }
.card svg { display: block; width: 100%; height: 2.2rem; margin-top: .5rem }
.card .bar { margin-top: .8rem }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .75rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .55rem .9rem; white-space: nowrap }
th { color: var(--dim); font-size: .8rem; font-weight: 600 }
tr + tr td, thead + tbody td { border-top: 1px solid var(--line) }
td.number, th.number { text-align: right }
code { font: .9em ui-monospace, Menlo, Consolas, monospace }
.bar { display: block; height: .5rem; min-width: 7rem; border-radius: .25rem; background: var(--line);
  overflow: hidden }
.bar i { display: block; height: 100%; background: var(--accent) } .bar.warn i { background: var(--warn) }
.bar.bad i { background: var(--bad) }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; border: 1px solid currentColor;
  font-size: .8rem; font-weight: 600 }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
.empty { padding: 1.1rem; color: var(--dim); margin: 0 }
"""

_SIGNS = {"good": "✓", "warn": "!", "bad": "✗"}


def escape(value: object) -> Markup:
    """Return `value` safe inside HTML text and attributes."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def page(title: str, lead: str, parts: Iterable[Markup], made_by: str) -> str:
    """Return a whole HTML document. `made_by` stands in the footer: who wrote it, and when."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n{body}\n'
        f"<footer>{escape(made_by)}</footer>\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: Markup) -> Markup:
    """Return parts under a heading."""
    return Markup(f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>")


def card(name: str, value: object, note: object = "", extra: str = "") -> Markup:
    """Return one figure with its name, a note under it and a picture or bar below."""
    note_line = f'<div class="note">{escape(note)}</div>' if note else ""
    return Markup(
        f'<div class="card"><div class="name">{escape(name)}</div><div class="value">{escape(value)}</div>'
        f"{note_line}{extra and escape(extra)}</div>"
    )


def cards(*each: Markup) -> Markup:
    """Return cards side by side, as many as the window is wide."""
    return Markup('<div class="cards">\n' + "\n".join(each) + "\n</div>")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> Markup:
    """Return a table, or the sentence `empty` without rows. A head that starts with `#` is a column of numbers."""
    if not rows:
        return Markup(f'<div class="wide"><p class="empty">{escape(empty)}</p></div>')
    classes = [' class="number"' if head.startswith("#") else "" for head in heads]
    top = "".join(f"<th{kind}>{escape(head.removeprefix('#'))}</th>" for kind, head in zip(classes, heads, strict=True))
    lines = (
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    body = "\n".join(lines)
    return Markup(f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>')


def bar(percent: float, warn_at: float = 80.0, bad_at: float = 90.0) -> Markup:
    """Return a horizontal bar, coloured from the two limits on."""
    kind = " bad" if percent >= bad_at else " warn" if percent >= warn_at else ""
    width = min(max(percent, 0.0), 100.0)
    return Markup(f'<span class="bar{kind}" title="{percent:.1f} %"><i style="width:{width:.1f}%"></i></span>')


def badge(text: object, kind: str) -> Markup:
    """Return a word in a pill; `kind` is `good`, `warn` or `bad` and adds a sign, so colour is never alone."""
    return Markup(f'<span class="badge {kind}">{_SIGNS[kind]} {escape(text)}</span>')


def sparkline(values: Sequence[float], top: float = 100.0) -> Markup:
    """Return a small line through `values`, scaled to 0..`top`; empty with fewer than two."""
    if len(values) < 2:
        return Markup()
    step = 100 / (len(values) - 1)
    points = " ".join(f"{i * step:.2f},{30 - 28 * min(max(v / top, 0), 1):.2f}" for i, v in enumerate(values))
    return Markup(
        '<svg viewBox="0 0 100 32" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline points="{points}" fill="none" stroke="var(--accent)" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )
