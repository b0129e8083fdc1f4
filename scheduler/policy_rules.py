"""The rules of the keys that say what becomes of a fire time and of its run."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from .schedule_model import ON_TIME, Schedule

__all__ = ["wrong_policies"]

# (the key, is it set against another one, what is wrong and the way out). A key that another one leaves without effect,
# or makes impossible, is refused: whoever wrote it would wait for something that never comes.
_RULES: list[tuple[str, Callable[[Schedule], bool], str]] = [
    (
        "catchup_window",
        lambda s: s.catchup_window is not None and s.catchup == "none",
        "`catchup_window` has no meaning without `catchup: latest` or `catchup: all`",
    ),
    (
        "catchup_max",
        lambda s: s.catchup_max is not None and s.catchup != "all",
        "`catchup_max` has no meaning without `catchup: all`; `catchup: latest` runs one",
    ),
    (
        "catchup",
        lambda s: s.catchup == "all" and s.overlap == "skip",
        "`catchup: all` would be skipped by `overlap: skip`; write `overlap: queue` or `overlap: allow`",
    ),
    (
        "catchup",
        lambda s: s.catchup == "all" and s.overlap == "replace",
        "`catchup: all` would cancel each run for the next one by `overlap: replace`; write `catchup: latest`, or "
        "`overlap: queue`",
    ),
    (
        "catchup",
        lambda s: (
            s.catchup == "all" and s.max_queued is not None and (s.catchup_max is None or s.catchup_max > s.max_queued)
        ),
        "`catchup: all` may ask for more runs than `max_queued` lets wait; write a `catchup_max` of that at most",
    ),
    (
        "max_queued",
        lambda s: s.max_queued is not None and s.overlap != "queue",
        "`max_queued` has no meaning without `overlap: queue`",
    ),
    ("max_queued", lambda s: s.max_queued is not None and s.max_queued < 1, "`max_queued` is a number from 1"),
    ("catchup_max", lambda s: s.catchup_max is not None and s.catchup_max < 1, "`catchup_max` is a number from 1"),
    (
        "start_deadline",
        lambda s: s.start_deadline is not None and not s.start_deadline,
        "`start_deadline: 0s` would let nothing start; write a longer time, such as `5m`",
    ),
    (
        "deadline",
        lambda s: s.deadline is not None and not s.deadline,
        "`deadline: 0s` would be missed by every run; write a longer time, such as `30m`",
    ),
    (
        "start_deadline",
        lambda s: s.start_deadline is not None and s.deadline is not None and s.start_deadline >= s.deadline,
        "`start_deadline` is not shorter than `deadline`: what starts last could not end in time; write a shorter one",
    ),
    (
        "on_deadline",
        lambda s: s.on_deadline is not None and s.deadline is None,
        "`on_deadline` has no meaning without `deadline`; add one, such as `deadline: 30m`",
    ),
    (
        "jitter",
        lambda s: s.jitter is not None and s.start_deadline is not None and s.jitter >= s.start_deadline,
        "`jitter` is not shorter than `start_deadline`: a run could be too late before it may start; write a shorter "
        "one",
    ),
    (
        "jitter",
        lambda s: s.jitter is not None and s.deadline is not None and s.jitter >= s.deadline,
        "`jitter` is not shorter than `deadline`: a run could be too late before it may start; write a shorter one",
    ),
    (
        "catchup_window",
        lambda s: s.catchup_window is not None and s.start_deadline is not None and s.catchup_window > s.start_deadline,
        "`catchup_window` is longer than `start_deadline`, by which nothing that late starts; write a shorter one, or "
        "leave it out",
    ),
    (
        "catchup",
        lambda s: s.catchup != "none" and s.start_deadline is not None and s.start_deadline <= ON_TIME,
        "`catchup` is for what is late by a minute and more, which `start_deadline` lets not start; write a longer "
        "`start_deadline`, or `catchup: none`",
    ),
]


def wrong_policies(schedule: Schedule, given: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for the keys that are given: no default breaks a rule."""
    for key, is_wrong, message in _RULES:
        if key in given and is_wrong(schedule):
            yield key, message
