"""The rules of the keys that say what becomes of a fire time."""

from __future__ import annotations

from collections.abc import Iterator

from .schedule_model import Schedule

__all__ = ["wrong_policies"]


def wrong_policies(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong)."""
    if schedule.catchup_window is not None and schedule.catchup == "none":
        yield "catchup_window", "`catchup_window` has no meaning without `catchup: latest` or `catchup: all`"
    if schedule.catchup == "all" and schedule.overlap == "skip":
        yield (
            "catchup",
            "`catchup: all` would be skipped by `overlap: skip`; write `overlap: queue` or `overlap: allow`",
        )
