"""Remarks as lines for a terminal."""

from __future__ import annotations

from textwrap import wrap

from workers.terminal import clean

from .finding import written
from .reading import Remark

__all__ = ["render"]

_INDENT = "    "


def render(remark: Remark, width: int | None) -> str:
    """Return a remark as two lines, what is wrong and the mend; as more of at most `width` columns, if there is one."""
    place = f"{remark.file}:{remark.line}:{remark.col}"
    lines = [f"{place}: {remark.rule}: schedule `{remark.schedule_id}`: {remark.message}", f"  mend: {mend(remark)}"]
    if width is None:
        return "\n".join(map(clean, lines))
    # A place is clicked or copied: it is not torn at its slashes or hyphens.
    return "\n".join(
        part
        for line in lines
        for part in wrap(
            clean(line), max(width, 20), subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
        )
    )


def mend(remark: Remark) -> str:
    """Return in words what to do: what to write, and what it is."""
    return f"write `{written(remark.write)}`: {remark.mend}" if remark.write else remark.mend
