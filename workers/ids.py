"""The one rule for ids of schedules, DAGs, tasks and runs: safe in a path, in a URL and in a log line."""

from __future__ import annotations

import re

__all__ = ["ID", "ID_RULE", "RUN_ID_RULE", "is_id", "is_run_id"]

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
ID_RULE = "an id begins with a letter or digit and holds at most 128 letters, digits, `_`, `.` and `-`"
# An id of a schedule or a DAG, and behind it `.backfill.20261123T150512Z-1f3a.20261101T0900Z`.
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
RUN_ID_RULE = "a run id begins with a letter or digit and holds at most 200 letters, digits, `_`, `.` and `-`"


def is_id(value: object) -> bool:
    """Return whether `value` is a text that may name something."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def is_run_id(value: object) -> bool:
    """Return whether `value` is a text that may name a run."""
    return isinstance(value, str) and _RUN_ID.fullmatch(value) is not None
