"""When a task may start, judged from the states of its direct upstream tasks: Airflow's rules with Airflow's meaning.

The source of each rule is `TriggerRuleDep._evaluate_direct_relatives` of Airflow 3: a verdict comes as soon as no
later state can change it, so `one_failed` and `one_success` fire at once and a lost rule is closed early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from .dag import TriggerRule

__all__ = ["UpstreamState", "Verdict", "decide"]

UpstreamState: TypeAlias = Literal["waiting", "success", "failed", "skipped", "upstream_failed"]
Verdict: TypeAlias = Literal["run", "wait", "skip", "upstream_failed"]


class _Tally(NamedTuple):
    total: int
    success: int
    failed: int
    skipped: int
    upstream_failed: int

    @property
    def bad(self) -> int:
        return self.failed + self.upstream_failed

    @property
    def is_done(self) -> bool:
        return self.success + self.bad + self.skipped == self.total


_IS_MET: Mapping[TriggerRule, Callable[[_Tally], bool]] = {
    "all_success": lambda t: t.success == t.total,
    "all_failed": lambda t: t.bad == t.total,
    "all_done": lambda t: t.is_done,
    "all_done_min_one_success": lambda t: t.is_done and t.success > 0,
    "all_skipped": lambda t: t.skipped == t.total,
    "one_failed": lambda t: t.bad > 0,
    "one_success": lambda t: t.success > 0,
    "one_done": lambda t: t.success + t.failed > 0,
    "none_failed": lambda t: t.success + t.skipped == t.total,
    "none_failed_min_one_success": lambda t: t.success + t.skipped == t.total,
    "none_skipped": lambda t: t.is_done,
    "always": lambda t: True,
}

_IS_UPSTREAM_FAILED: Mapping[TriggerRule, Callable[[_Tally], bool]] = {
    "all_success": lambda t: t.bad > 0,
    "all_done_min_one_success": lambda t: t.is_done and t.success == 0 and t.skipped == 0,
    "one_success": lambda t: t.is_done and t.success == 0 and t.skipped < t.total,
    "none_failed": lambda t: t.bad > 0,
    "none_failed_min_one_success": lambda t: t.bad > 0,
}

_IS_SKIPPED: Mapping[TriggerRule, Callable[[_Tally], bool]] = {
    "all_success": lambda t: t.skipped > 0,
    "all_failed": lambda t: t.success + t.skipped > 0,
    "all_done_min_one_success": lambda t: t.skipped > 0,
    "all_skipped": lambda t: t.success + t.bad > 0,
    "one_failed": lambda t: t.is_done and t.bad == 0,
    "one_success": lambda t: t.skipped == t.total,
    "one_done": lambda t: t.is_done and t.success + t.failed == 0,
    "none_failed_min_one_success": lambda t: t.skipped == t.total,
    "none_skipped": lambda t: t.skipped > 0,
}


def decide(rule: TriggerRule, states: Sequence[UpstreamState]) -> Verdict:
    """Say what becomes of a task whose direct upstream tasks are in `states`.

    A task that needs nothing runs whatever its rule. `upstream_failed` goes before `skip` where both apply.
    """
    if not states or rule == "always":
        return "run"
    tally = _Tally(len(states), *(states.count(state) for state in ("success", "failed", "skipped", "upstream_failed")))
    if rule in _IS_UPSTREAM_FAILED and _IS_UPSTREAM_FAILED[rule](tally):
        return "upstream_failed"
    if rule in _IS_SKIPPED and _IS_SKIPPED[rule](tally):
        return "skip"
    return "run" if _IS_MET[rule](tally) else "wait"
