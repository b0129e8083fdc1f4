"""Tasks with `foreach`: one instance for each item, and what they come to together. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from . import params
from .dag_model import Task
from .errors import TickpoolError
from .ids import instance_id
from .kind_rules import MOST_ITEMS
from .tasks import MAX_OUTPUTS_BYTES, Outcome, TaskStatus

__all__ = ["BadItems", "Mapped", "item_mark", "items_of"]

_REASON_ITEMS = 3


class BadItems(TickpoolError):
    """A `foreach` whose value is no list of items: what it is."""

    def __str__(self) -> str:
        return f"`foreach` {self.args[0]}"


def item_mark(item: Any) -> str:
    """Return what tells an item from others: a hash of its JSON text."""
    return hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:12]


def items_of(task: Task, lookup: params.Lookup) -> list[Any]:
    """Return the items of a task, from its list or its reference. Raises BadItems, and what a reference raises."""
    value = params.resolve(task.foreach, lookup)
    if isinstance(value, str):
        # What a command puts out in a line is a text.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadItems(f"is the text {value[:80]!r}, and no list in JSON") from None
    if not isinstance(value, list | tuple):
        raise BadItems(f"is {json.dumps(value)[:80]}, and no list")
    if len(value) > MOST_ITEMS:
        raise BadItems(f"has {len(value)} items; at most {MOST_ITEMS}")
    return list(value)


class Mapped:
    """A task with `foreach` at work: its instances that wait for their turn, those at work, and how others ended.

    At most `limit` are at work at once.
    """

    def __init__(self, task: Task, items: Iterable[Any], limit: int) -> None:
        self.task = task
        self.items = {instance_id(task.id, number): item for number, item in enumerate(items)}
        self._limit = task.max_parallel or limit
        self._waiting = deque(
            msgspec.structs.replace(task, id=name, foreach=None, max_parallel=None) for name in self.items
        )
        self._at_work: set[str] = set()
        self._ended: dict[str, Outcome] = {}

    def next_instances(self) -> Iterable[Task]:
        """Yield the instances whose turn it is; from here on they are at work."""
        while self._waiting and len(self._at_work) < self._limit:
            task = self._waiting.popleft()
            self._at_work.add(task.id)
            yield task

    def end(self, name: str, outcome: Outcome) -> None:
        """Take note of an instance's last outcome."""
        self._at_work.discard(name)
        self._ended[name] = outcome

    def is_over(self) -> bool:
        """Say whether all instances have ended."""
        return len(self._ended) == len(self.items)

    def outcome(self) -> Outcome:
        """Return what the instances come to; its resources are their sums, or the most that one had."""
        ended = [self._ended[name] for name in self.items]
        failed = [name for name in self.items if self._ended[name].status not in ("success", "skipped")]
        success, skipped = (sum(each.status == status for each in ended) for status in ("success", "skipped"))
        status: TaskStatus = "failed" if failed else "skipped" if skipped == len(ended) else "success"
        summary: dict[str, Any] = {
            "count": len(ended), "success": success, "failed": len(failed), "skipped": skipped,
        }  # fmt: skip
        results = [each.outputs or None for each in ended]
        # Written in ASCII, as in an event.
        if any(results) and len(json.dumps({**summary, "results": results})) <= MAX_OUTPUTS_BYTES:
            summary["results"] = results
        reason = None if ended else "`foreach` has no items"
        return Outcome(
            status=status,
            reason=self._why_failed(failed) if failed else reason,
            duration_s=round(sum(each.duration_s for each in ended), 6),
            max_rss_kib=max((each.max_rss_kib for each in ended), default=0),
            cpu_user_s=round(sum(each.cpu_user_s for each in ended), 6),
            cpu_sys_s=round(sum(each.cpu_sys_s for each in ended), 6),
            outputs=summary,
        )

    def _why_failed(self, failed: Collection[str]) -> str:
        listed = list(failed)[:_REASON_ITEMS]
        told = ", ".join(f"{name} {self._ended[name].reason or self._ended[name].status}" for name in listed)
        more = f" and {len(failed) - len(listed)} more" if len(failed) > len(listed) else ""
        return f"{len(failed)} of {len(self.items)} items failed: {told[:1500]}{more}"
