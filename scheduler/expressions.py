"""A cron expression as it is written: what each field says, and the text with another field in place of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from .cron import read_texts
from .cron_fields import KINDS, Fields, Term, read_fields, read_terms
from .cron_text import explain_fields
from .cron_times import Calendar
from .schedule_model import Schedule

__all__ = ["ANY", "Expression", "clock_expressions", "read_expression"]

ANY = "*"


class Expression(NamedTuple):
    """Five fields of text, in upper case, and what they come to with `H` resolved."""

    text: str
    texts: tuple[str, ...]
    seed: str
    fields: Fields

    def terms(self, index: int) -> Sequence[Term]:
        """Return what the list of one field says."""
        return read_terms(KINDS[index], self.texts[index], self.seed)

    def is_any(self, *indexes: int) -> bool:
        """Whether these fields all take every value: `*`, `?`, `*/1`."""
        return all(self.texts[index] in (ANY, "?", "*/1") for index in indexes)

    def with_fields(self, changes: Mapping[int, str]) -> str:
        """Return the text with other fields; the rest stays as it was written, an alias is written out."""
        written = self.text.split()
        kept = self.texts if written[0].startswith("@") else written
        return " ".join(changes.get(index, text) for index, text in enumerate(kept))

    def ever_fires(self) -> bool:
        """Whether any day of the calendar matches."""
        return Calendar(self.fields).ever_fires()

    def explain(self) -> str:
        """Say it in plain words."""
        return explain_fields(self.texts, self.seed)


def clock_expressions(schedule: Schedule) -> list[tuple[int, Expression]]:
    """Return those of a schedule's expressions that follow the wall clock, each with its number; not `@every`."""
    read = (read_expression(text, schedule.seed) for text in schedule.expressions)
    return [(index, expression) for index, expression in enumerate(read) if expression is not None]


def read_expression(text: str, seed: str) -> Expression | None:
    """Read an expression, even one that never fires; None for `@every`. Raises InvalidCron."""
    return _read(text, seed if "H" in text.upper() else "")


@lru_cache(4096)
def _read(text: str, seed: str) -> Expression | None:
    texts = read_texts(text)
    return None if texts[0] == "@EVERY" else Expression(text, tuple(texts), seed, read_fields(text, texts, seed))
