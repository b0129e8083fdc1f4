"""Arrivals: the ends of runs that make other schedules due, each once, across restarts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.arrivals import Arrivals, Due


def arrivals(**after: dict[str, list[str]]) -> Arrivals:
    found = Arrivals()
    found.load({name: {"enabled": True, "after": wants} for name, wants in after.items()})
    return found


def verdict(name: str, due: Due) -> dict[str, Any]:
    return {"event": "schedule_enqueued", "schedule_id": name, "minute": "2026-11-23T06:00:00Z", "trigger": due.trigger}


def reloaded(before: Arrivals) -> Arrivals:
    after = Arrivals()
    for row in msgspec.json.decode(msgspec.json.encode(list(before.rows()))):
        after.restore(row)
    return after


def test_the_end_of_a_run_makes_its_followers_due_until_they_have_their_verdict() -> None:
    found = arrivals(load={"extract": ["success"]}, page={"extract": ["failed", "timeout"]})
    found.end("extract", "extract.1", "success", 100)
    assert list(found.due()) == [("load", Due(100, 1, {"after": {"extract": "extract.1"}}))]
    found.judge(verdict("load", Due(100, 1, {"after": {"extract": "extract.1"}})))
    assert not found.is_due()
    found.end("extract", "extract.2", "timeout", 200)
    assert list(found.due()) == [("page", Due(200, 1, {"after": {"extract": "extract.2"}}))]


def test_of_several_all_have_to_end_and_the_newest_of_each_counts() -> None:
    found = arrivals(join={"a": ["success"], "b": ["any"]})
    found.end("a", "a.1", "success", 10)
    found.end("a", "a.2", "success", 20)
    assert not found.is_due()
    found.end("b", "b.1", "crashed", 30)
    assert list(found.due()) == [("join", Due(30, 1, {"after": {"a": "a.2", "b": "b.1"}}))]
    found.end("b", "b.2", "success", 40)
    assert len(list(found.due())) == 1


def test_ends_of_one_second_and_of_a_clock_that_was_set_back_never_make_one_key_twice() -> None:
    found = arrivals(load={"extract": ["any"]})
    for number, second in enumerate([100, 100, 40, 100, 101]):
        found.end("extract", f"extract.{number}", "success", second)
    assert [(due.second, due.number) for due in found.due_of("load")] == [
        (100, 1),
        (100, 2),
        (100, 3),
        (100, 4),
        (101, 1),
    ]


def test_a_schedule_that_is_disabled_or_gone_waits_for_nothing() -> None:
    found = arrivals(load={"extract": ["any"]})
    found.end("extract", "extract.1", "success", 100)
    found.load({"load": {"enabled": False, "after": {"extract": ["any"]}}})
    found.end("extract", "extract.2", "success", 200)
    assert not found.is_due()
    found.load({"load": {"enabled": True, "after": {"extract": ["any"]}}})
    assert not found.is_due()
    found.load({"load": {}})
    found.end("extract", "extract.3", "success", 300)
    assert not found.is_due()


def test_the_same_definition_again_keeps_what_has_come() -> None:
    found = arrivals(join={"a": ["success"], "b": ["success"]})
    found.end("a", "a.1", "success", 10)
    found.load({"join": {"enabled": True, "after": {"a": ["success"], "b": ["success"]}, "dag": "dags/other.yaml"}})
    found.end("b", "b.1", "success", 20)
    assert found.is_due()


def test_the_file_of_the_last_verdict_is_kept() -> None:
    found = Arrivals()
    file = {"path": "/in/a.csv", "size": 3, "mtime": "2026-11-23T06:00:00.000000001Z", "inode": 7}
    due = found.due_by_file("load", file, 100)
    assert due == Due(100, 1, {"file": file})
    found.judge(verdict("load", due) | {"minute": "1970-01-01T00:01:40Z"})
    assert found.due_by_file("load", file, 101) is None
    assert found.due_by_file("load", {**file, "inode": 8}, 40) == Due(100, 2, {"file": {**file, "inode": 8}})
    assert reloaded(found).file_of("load") == file
    assert found.file_of("other") is None


@pytest.mark.parametrize("row", [["x"], ["x", {"due": 1}], [1, {}], ["x", {"ends": []}]])
def test_a_row_that_is_none_is_refused(row: list[Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        Arrivals().restore(row)


ENDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["success", "failed"]), st.integers(0, 50)), max_size=60
)


@given(ends=ENDS, reload_at=st.sets(st.integers(0, 60)), judged=st.sets(st.integers(0, 60)))
def test_every_complete_set_of_ends_is_due_once_however_often_the_fold_is_rebuilt(
    ends: list[tuple[str, str, int]], reload_at: set[int], judged: set[int]
) -> None:
    found = arrivals(one={"a": ["success"]}, both={"a": ["any"], "b": ["success"]})
    seen: list[tuple[str, tuple[int, int]]] = []

    def take() -> None:
        while found.is_due():
            for name, due in list(found.due()):
                seen.append((name, (due.second, due.number)))
                found.judge(verdict(name, due))

    waits_for = {"a", "b"}
    expected: Counter[str] = Counter()
    for number, (name, status, second) in enumerate(ends):
        if number in reload_at:
            found = reloaded(found)
        found.end(name, f"{name}.{number}", status, second)
        expected["one"] += name == "a" and status == "success"
        waits_for -= {name} if name == "a" or (name == "b" and status == "success") else set()
        if not waits_for:
            expected["both"] += 1
            waits_for = {"a", "b"}
        if number in judged:
            take()
    take()
    assert Counter(name for name, _ in seen) == +expected
    assert len(set(seen)) == len(seen)
