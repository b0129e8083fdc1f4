"""Remarks as lines for a terminal."""

from __future__ import annotations

import re
from textwrap import wrap

from workers.terminal import clean

from .finding import written
from .reading import Remark

__all__ = ["render"]

_INDENT = "    "
_SHORTEST = 20
_HELD = "\N{NO-BREAK SPACE}"


def render(remark: Remark, width: int | None) -> str:
    """Return a remark as two lines, what is wrong and the mend; as more of at most `width` columns, if there is one."""
    place = f"{remark.file}:{remark.line}:{remark.col}"
    lines = [f"{place}: {remark.rule}: schedule `{remark.schedule_id}`: {remark.message}", f"  mend: {mend(remark)}"]
    if width is None:
        return "\n".join(map(clean, lines))
    return "\n".join(part for line in lines for part in _wrapped(clean(line), max(width, _SHORTEST)))


def _wrapped(line: str, width: int) -> list[str]:
    """Wrap a line; what people copy, a place or a text in backticks, stays whole."""
    held = re.sub(r"`[^`]*`", lambda match: match[0].replace(" ", _HELD), line)
    parts = wrap(held, width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)
    return [part.replace(_HELD, " ") for part in parts]


def mend(remark: Remark) -> str:
    """Return in words what to do: what to write, and what it is."""
    return f"write `{written(remark.write)}`: {remark.mend}" if remark.write else remark.mend
