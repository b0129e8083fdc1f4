"""When a task may start, judged from its direct upstream tasks."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.dag import Retries, Task, TriggerRule
from workers.ready_set import ReadySet
from workers.retry import delay_s
from workers.trigger_rules import UpstreamState, decide
from workers.units import Duration

RULES = get_args(TriggerRule)
LETTERS: dict[str, UpstreamState] = {
    "w": "waiting",
    "s": "success",
    "f": "failed",
    "k": "skipped",
    "u": "upstream_failed",
}
VERDICTS = {"R": "run", "-": "wait", "S": "skip", "U": "upstream_failed"}
# One column a combination of two upstream states, one letter a verdict.
COLUMNS = ["ss", "sf", "su", "sk", "sw", "ff", "fu", "fk", "fw", "kk", "kw", "uu", "uk", "uw", "ww"]
TABLE = {
    "all_success": "R U U S - U U U U S S U U U -",
    "all_failed": "S S S S S R R S - S S R S - -",
    "all_done": "R R R R - R R R - R - R R - -",
    "all_done_min_one_success": "R R R S - U U S - S S U S - -",
    "all_skipped": "S S S S S S S S S R - S S S -",
    "one_failed": "S R R S - R R R R S - R R R -",
    "one_success": "R R R R R U U U - S - U U - -",
    "one_done": "R R R R R R R R R S - S S - -",
    "none_failed": "R U U R - U U U U R - U U U -",
    "none_failed_min_one_success": "R U U R - U U U U S - U U U -",
    "none_skipped": "R R R S - R R S - S S R S - -",
    "always": "R R R R R R R R R R R R R R R",
}


def test_every_rule_has_a_row_in_the_table() -> None:
    assert set(TABLE) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_decides_as_airflow_does(rule: TriggerRule) -> None:
    got = [decide(rule, [LETTERS[letter] for letter in pair]) for pair in COLUMNS]
    assert dict(zip(COLUMNS, got, strict=True)) == dict(
        zip(COLUMNS, (VERDICTS[letter] for letter in TABLE[rule].split()), strict=True)
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_task_that_needs_nothing_runs(rule: TriggerRule) -> None:
    assert decide(rule, []) == "run"


states = st.lists(st.sampled_from(list(LETTERS.values())), min_size=1, max_size=6)
ends: list[UpstreamState] = ["success", "failed", "skipped", "upstream_failed"]


@given(st.sampled_from(RULES), states, st.randoms(use_true_random=False))
def test_a_verdict_never_changes_as_more_upstream_tasks_end(rule, before, random) -> None:  # type: ignore[no-untyped-def]
    verdict = decide(rule, before)
    after = [random.choice(ends) if state == "waiting" else state for state in before]
    # A task that has started stays started, even if the rule would have it otherwise later.
    if verdict in ("skip", "upstream_failed"):
        assert decide(rule, after) in ("skip", "upstream_failed")
    assert decide(rule, after) != "wait"


@given(st.sampled_from(RULES), states, st.randoms(use_true_random=False))
def test_the_order_of_the_upstream_tasks_does_not_matter(rule, before, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(before)
    random.shuffle(shuffled)
    assert decide(rule, shuffled) == decide(rule, before)


def test_a_closed_task_closes_what_is_downstream_of_it_at_once() -> None:
    tasks = ReadySet(
        [
            Task(id="a", run="true"),
            Task(id="b", run="true", needs=("a",)),
            Task(id="c", run="true", needs=("b",)),
            Task(id="d", run="true", needs=("c",), trigger_rule="all_done"),
        ]
    )
    assert tasks.begin() == []
    assert [task.id for task in tasks.ready] == ["a"]
    tasks.ready.clear()
    closed = tasks.end("a", "failed")
    assert [(each.task.id, each.status) for each in closed] == [("b", "upstream_failed"), ("c", "upstream_failed")]
    assert closed[0].reason == "trigger rule all_success: `a` failed"
    assert [task.id for task in tasks.ready] == ["d"]
    assert tasks.undecided() == []


def test_the_delay_doubles_up_to_its_limit() -> None:
    retries = Retries(max=9, delay=Duration(seconds=2), backoff=2.0, max_delay=Duration(seconds=10))
    assert [delay_s(retries, failures, "seed") for failures in range(1, 6)] == [2, 4, 8, 10, 10]
    assert delay_s(retries, 100_000, "seed") == 10


def test_jitter_is_between_half_and_all_of_the_delay_and_can_be_told_again() -> None:
    retries = Retries(max=1, delay=Duration(seconds=10), jitter=True)
    waits = [delay_s(retries, 1, f"run/{n}") for n in range(200)]
    assert all(5 <= wait <= 10 for wait in waits)
    assert max(waits) - min(waits) > 3
    assert waits == [delay_s(retries, 1, f"run/{n}") for n in range(200)]
