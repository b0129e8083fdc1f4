"""Tags: which ones are taken, what the log keeps of them, and that they decide nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.audit import audit
from scheduler.history import History
from scheduler.schedule_model import schedule_from_spec, tags_of, timing_of
from scheduler.schedule_rules import schedule_from
from tests.story import Story
from workers.errors import InvalidFile
from workers.ids import is_id
from workers.segments import LogReader

TAG = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True)


def entry(**keys: Any) -> dict[str, Any]:
    return {"id": "a", "cron": "*/5 * * * *", "dag": "dags/d.yaml", "overlap": "allow", **keys}


def events(log: Path, name: str) -> list[dict[str, Any]]:
    reader = LogReader(log, from_start=True)
    found = [event for event in reader.read() if event["event"] == name]
    reader.close()
    return found


@given(st.lists(TAG | st.text(max_size=5), max_size=22) | st.lists(TAG, max_size=20, unique=True))
def test_tags_are_taken_as_they_stand_when_they_are_few_different_ids_and_else_refused(tags: list[str]) -> None:
    if len(tags) <= 20 and len(set(tags)) == len(tags) and all(map(is_id, tags)):
        schedule = schedule_from(entry(tags=tags))
        assert tags_of(json.loads(json.dumps(schedule.spec))) == schedule.tags == tags
        assert timing_of(schedule.spec) == timing_of(schedule_from(entry()).spec)
        return
    with pytest.raises(InvalidFile) as caught:
        schedule_from(entry(tags=tags))
    assert {fault.message.split(": ")[1] for fault in caught.value.faults} == {"`tags`"}


def test_one_tag_may_stand_without_a_list_and_none_leaves_the_record_as_it_was() -> None:
    assert schedule_from(entry(tags=["x"])).spec["tags"] == ["x"]
    assert schedule_from(entry(tags="x")).tags == ["x"]
    assert schedule_from(entry(tags=[])).spec == schedule_from(entry()).spec
    assert "tags" not in schedule_from(entry()).spec


@pytest.mark.parametrize(
    ("told", "tags"), [(None, []), ("x", []), (7, []), ({"x": 1}, []), ([1, "x", None, ["y"], "z"], ["x", "z"])]
)
def test_tags_of_another_hand_break_nothing(told: Any, tags: list[str]) -> None:
    spec = {"cron": "* * * * *", "dag": "d", "tags": told}
    assert tags_of(spec) == tags
    assert schedule_from_spec("a", spec).fires.expr == "* * * * *"  # type: ignore[attr-defined]


def test_a_schedule_whose_tags_change_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The one that was down at two fire times catches them up; the one with half of what it waits for keeps it."""
    told = {}
    for name, tags in (("plain", []), ("tagged", ["billing"])):
        story = Story(tmp_path / name)

        def entries(tags: list[str]) -> list[dict[str, Any]]:
            return [
                entry(catchup="all", tags=tags),
                entry(id="b", cron="*/20 * * * *", tags=tags),
                entry(id="c", cron=None, after=["a", "b"], tags=tags),
            ]

        story.begin(*entries([]))
        story.live(7)
        story.stop()
        story.pass_time(13 * 60)
        story.begin(*entries(tags))
        story.live(30)
        story.rotate()
        story.load(*entries([*tags, "late"] if tags else []))
        story.live(30)
        story.stop()
        assert audit(tmp_path / name, story.now).violations == []
        told[name] = [
            [(each["schedule_id"], each.get("minute"), each.get("reason"), each.get("from")) for each in found]
            for found in (events(tmp_path / name, kind) for kind in ("schedule_enqueued", "schedule_missed"))
        ]
    assert told["tagged"] == told["plain"]
    assert {name for name, *_ in told["plain"][0]} == {"a", "b", "c"}
    loads = [event for event in events(tmp_path / "tagged", "schedules_loaded") if event["specs"]]
    assert ["since" in event for event in loads] == [True, False, False]


def test_tags_outlive_a_rotation(tmp_path: Path) -> None:
    story = Story(tmp_path / "log")
    story.begin(entry(tags=["billing", "nightly"]))
    story.live(6)
    story.rotate()
    reader = LogReader(tmp_path / "log")
    history = History(reader.read())
    reader.close()
    assert tags_of(history.schedules["a"].spec) == ["billing", "nightly"]
