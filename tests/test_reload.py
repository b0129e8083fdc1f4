"""Reload: a change is noticed, taken whole or not at all, and put on record against what the log knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler.history import History
from scheduler.reload import ConfigurationWatch, loaded_events, record_configuration
from scheduler.schedule_model import Schedule
from scheduler.schedules import Configuration, read_configuration
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.errors import Fault
from workers.event_log import EventLog
from workers.events import Event, iso
from workers.segments import LogReader

NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
GOOD = "- id: good\n  cron: '* * * * *'\n  dag: dags/a.yaml\n"
DAG = 'id: a\ntasks:\n  - id: t\n    run: ["true"]\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.yaml").write_text(DAG)
    (tmp_path / "schedules").mkdir()
    (tmp_path / "schedules" / "a.yaml").write_text(GOOD)
    return tmp_path / "schedules"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore(EventLog(tmp_path / "state.jsonl", fsync="off"))
    yield store
    store.close()


def settled(watch: ConfigurationWatch) -> Configuration | None:
    """Scan twice, as it takes; the first scan must not take anything."""
    assert watch.poll() is None
    assert watch.is_settling()
    taken = watch.poll()
    assert not watch.is_settling()
    return taken


def overwrite(file: Path, text: str) -> None:
    """Write in place: the same inode, and when the text is as long, the same size."""
    with file.open("r+") as opened:
        opened.write(text)
        opened.truncate()


def replace(file: Path, text: str) -> None:
    file.with_name("next").write_text(text)
    file.with_name("next").rename(file)


def keep_time(file: Path, text: str) -> None:
    before = file.stat()
    overwrite(file, text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: (d / "b.yaml").write_text(GOOD.replace("good", "more")),
        lambda d: (d / "a.yaml").unlink(),
        lambda d: (d / "a.yaml").rename(d / "z.yaml"),
        lambda d: overwrite(d / "a.yaml", GOOD.replace("good", "best")),
        lambda d: keep_time(d / "a.yaml", GOOD.replace("good", "best")),
        lambda d: replace(d / "a.yaml", GOOD.replace("good", "best")),
        lambda d: overwrite(d.parent / "dags" / "a.yaml", DAG.replace("true", "echo")),
        lambda d: replace(d.parent / "dags" / "a.yaml", DAG),
    ],
    ids=["added", "removed", "renamed", "edited", "edited, time set back", "replaced", "dag edited", "dag replaced"],
)
def test_a_change_is_noticed_and_taken_after_two_scans_that_agree(
    directory: Path, change: Callable[[Path], None]
) -> None:
    watch = ConfigurationWatch(directory)
    assert [watch.poll(), watch.poll(), watch.is_settling()] == [None, None, False]
    change(directory)
    taken = settled(watch)
    assert taken is not None
    assert taken is watch.current
    assert taken == read_configuration(directory)
    assert [watch.poll(), watch.poll()] == [None, None]


def test_files_that_are_no_schedules_change_nothing(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    (directory / "notes.txt").write_text("x")
    (directory / ".a.yaml.swp").write_text("x")
    assert [watch.poll(), watch.poll(), watch.poll()] == [None, None, None]


def test_a_file_that_goes_on_changing_is_not_read_until_it_rests(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    for count in range(1, 5):
        (directory / "a.yaml").write_text(GOOD * count)
        assert watch.poll() is None
    (directory / "a.yaml").write_text(GOOD.replace("good", "resting"))
    taken = settled(watch)
    assert taken is not None
    assert [schedule.id for schedule in taken.schedules] == ["resting"]


def test_a_refused_configuration_is_told_once_and_the_old_one_stays(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    before = watch.current
    (directory / "a.yaml").write_text(GOOD + "  crom: x\n")
    refused = settled(watch)
    assert refused is not None
    assert len(refused.faults) == 1
    assert watch.current is before
    assert [watch.poll(), watch.poll(), watch.poll()] == [None, None, None]


@pytest.mark.parametrize("mended", [GOOD, GOOD.replace("good", "best")], ids=["reverted", "mended"])
def test_a_mended_configuration_is_taken(directory: Path, mended: str) -> None:
    watch = ConfigurationWatch(directory)
    (directory / "a.yaml").write_text("- id: [\n")
    assert settled(watch) is not watch.current
    (directory / "a.yaml").write_text(mended)
    taken = settled(watch)
    assert taken is watch.current
    assert taken is not None
    assert (taken.faults, len(taken.schedules)) == ([], 1)


def test_a_file_moved_away_and_back_is_taken(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    (directory / "a.yaml").rename(directory / "kept")
    (directory / "a.yaml").write_text("5")
    refused = settled(watch)
    assert refused is not None
    assert refused.faults
    (directory / "kept").rename(directory / "a.yaml")
    assert settled(watch) is watch.current


def test_a_dag_that_was_missing_is_noticed_when_it_appears(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    (directory / "b.yaml").write_text(GOOD.replace("good", "new").replace("a.yaml", "new.yaml"))
    refused = settled(watch)
    assert refused is not None
    assert "no such file 'dags/new.yaml'" in str(refused.faults[0])
    (directory.parent / "dags" / "new.yaml").write_text(DAG)
    taken = settled(watch)
    assert taken is not None
    assert [schedule.id for schedule in taken.schedules] == ["good", "new"]


def test_a_dag_that_is_missing_at_the_start_is_noticed_when_it_appears(directory: Path) -> None:
    (directory.parent / "dags" / "a.yaml").rename(directory.parent / "kept.yaml")
    watch = ConfigurationWatch(directory)
    assert watch.current.faults
    (directory.parent / "kept.yaml").rename(directory.parent / "dags" / "a.yaml")
    taken = settled(watch)
    assert taken is not None
    assert [schedule.id for schedule in taken.schedules] == ["good"]


def test_a_file_that_becomes_unreadable_and_readable_again_is_noticed(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    (directory / "a.yaml").chmod(0)
    settled(watch)
    (directory / "a.yaml").chmod(0o644)
    assert settled(watch) is watch.current


def test_a_directory_that_vanishes_is_a_fault_told_once_and_the_schedules_stay(directory: Path) -> None:
    watch = ConfigurationWatch(directory)
    before = watch.current
    directory.rename(directory.with_name("away"))
    refused = settled(watch)
    assert refused is not None
    assert [str(fault) for fault in refused.faults] == [f"{directory}: no such directory"]
    assert watch.current is before
    assert [watch.poll(), watch.poll(), watch.poll()] == [None, None, None]
    directory.with_name("away").rename(directory)
    assert settled(watch) is watch.current


def schedules(*names: str, cron: str = "* * * * *", **fields: Any) -> list[Schedule]:
    return [Schedule(name, cron, "dags/a.yaml", **fields) for name in names]


def configured(*names: str, faults: int = 0, **fields: Any) -> Configuration:
    wrong = [Fault("schedules/bad.yaml", n + 1, 1, "bad") for n in range(faults)]
    return Configuration("schedules", schedules(*names, **fields), wrong, (), ())


def recorded(store: StateStore, configuration: Configuration, now: datetime = NOW) -> list[Event]:
    """Record a configuration and return what that wrote."""
    store.refresh()
    reader = LogReader(store.log.path)
    reader.read()
    record_configuration(store, configuration, now)
    events = reader.read()
    reader.close()
    return events


def test_what_is_new_starts_at_the_current_minute(store: StateStore) -> None:
    [event] = recorded(store, configured("a", "b"))
    assert (event["event"], event["since"], list(event["specs"])) == (
        "schedules_loaded",
        "2026-11-23T11:59:59Z",
        ["a", "b"],
    )
    assert event["specs"]["a"] == {"cron": "* * * * *", "timezone": "UTC", "enabled": True, "dag": "dags/a.yaml"}


def test_nothing_is_recorded_when_nothing_changed(store: StateStore) -> None:
    recorded(store, configured("a", "b"))
    assert recorded(store, configured("a", "b"), NOW + timedelta(hours=1)) == []


def test_an_edited_schedule_owes_nothing_under_the_new_expression(store: StateStore) -> None:
    recorded(store, configured("a", cron="0 * * * *"))
    later = NOW + timedelta(hours=3, minutes=10)
    missed, loaded = recorded(store, configured("a"), later)
    assert (missed["event"], missed["from"], missed["to"], missed["count"], missed["reason"]) == (
        "schedule_missed",
        "2026-11-23T12:00:00Z",
        "2026-11-23T15:00:00Z",
        4,
        "down",
    )
    assert loaded["since"] == "2026-11-23T15:09:59Z"
    [event] = Ticker(store, schedules("a"), later).tick(later)
    assert event["minute"] == "2026-11-23T15:10:00Z"


def test_an_edit_that_leaves_the_fire_times_alone_loses_no_catch_up(store: StateStore) -> None:
    recorded(store, configured("a", cron="0 * * * *", catchup="latest"))
    later = NOW + timedelta(hours=1, minutes=10)
    fresh = [Schedule("a", "0 * * * *", "dags/other.yaml", catchup="latest")]
    [loaded] = recorded(store, Configuration("schedules", fresh, [], (), ()), later)
    assert "since" not in loaded
    assert loaded["specs"]["a"]["dag"] == "dags/other.yaml"
    kinds = [(event["event"], event.get("minute")) for event in Ticker(store, fresh, later).tick(later)]
    assert kinds == [("schedule_missed", None), ("schedule_enqueued", "2026-11-23T13:00:00Z")]


def test_a_removed_schedule_is_accounted_for_and_starts_anew_when_it_comes_back(store: StateStore) -> None:
    recorded(store, configured("a", "b"))
    missed, gone = recorded(store, configured("b"), NOW + timedelta(minutes=5))
    assert (missed["schedule_id"], missed["count"], gone["removed"]) == ("a", 5, ["a"])
    assert recorded(store, configured("b"), NOW + timedelta(minutes=6)) == []
    [back] = recorded(store, configured("a", "b"), NOW + timedelta(minutes=9))
    assert (list(back["specs"]), back["since"]) == (["a"], "2026-11-23T12:08:59Z")


def test_a_disabled_schedule_owes_nothing_for_the_time_it_was_disabled(store: StateStore) -> None:
    recorded(store, configured("a"))
    missed, _ = recorded(store, configured("a", enabled=False), NOW + timedelta(minutes=2))
    assert missed["count"] == 2
    [back] = recorded(store, configured("a"), NOW + timedelta(hours=2))
    assert back["since"] == "2026-11-23T13:59:59Z"


def test_while_a_file_is_bad_nothing_counts_as_removed(store: StateStore) -> None:
    recorded(store, configured("a", "b"))
    events = recorded(store, configured("b", faults=2), NOW + timedelta(minutes=5))
    assert [event["event"] for event in events] == ["schedule_invalid"] * 2
    # Mended: what came in between still gets its verdict.
    [event] = recorded(store, configured("a", "b"), NOW + timedelta(minutes=9))
    assert (event["event"], event["specs"], store.history.faults) == ("schedules_loaded", {}, [])
    later = NOW + timedelta(minutes=9)
    told = {event["event"]: event.get("count") for event in Ticker(store, schedules("a"), later).tick(later)}
    assert told == {"schedule_missed": 9, "schedule_enqueued": None}


def test_faults_are_recorded_with_their_place(store: StateStore) -> None:
    events = recorded(store, configured("a", faults=2))[1:]
    assert [(e["file"], e["line"], e["col"], e["reason"]) for e in events] == [
        ("schedules/bad.yaml", 1, 1, "bad"),
        ("schedules/bad.yaml", 2, 1, "bad"),
    ]
    assert len({event["load"] for event in events}) == 1


def test_a_flood_of_faults_is_cut_short(store: StateStore) -> None:
    events = recorded(store, configured(faults=5000))
    assert len(events) == 101
    assert events[-1]["reason"] == "has 5000 faults; these are the first"


@pytest.mark.parametrize(
    "spec",
    [
        {"cron": "of a later version", "timezone": "UTC", "enabled": True},
        {"cron": "* * * * *", "timezone": "Mars/Olympus", "enabled": True},
        {"enabled": True},
        {"cron": 5, "timezone": [], "enabled": "yes"},
    ],
)
def test_an_old_definition_that_cannot_be_read_does_not_stop_the_start(store: StateStore, spec: Event) -> None:
    store.commit(lambda _: [{"event": "schedules_loaded", "since": iso(NOW), "specs": {"a": spec}}])
    [event] = recorded(store, configured("a"), NOW + timedelta(hours=1))
    assert event["event"] == "schedules_loaded"


def test_a_clock_that_was_set_back_while_nobody_looked_is_told(store: StateStore) -> None:
    recorded(store, configured("a"))
    Ticker(store, schedules("a"), NOW).tick(NOW)
    earlier = NOW - timedelta(hours=2)
    [jumped] = recorded(store, configured("a"), earlier)
    assert (jumped["event"], jumped["from"], jumped["to"], jumped["jump_s"]) == (
        "clock_jumped",
        "2026-11-23T12:00:00Z",
        "2026-11-23T10:00:30Z",
        -7170.0,
    )
    # And the time after that is accounted for, though it lies before what was judged once.
    again = earlier + timedelta(minutes=5)
    missed, _ = Ticker(store, schedules("a", overlap="allow"), again).tick(again, "down")
    assert (missed["from"], missed["count"]) == ("2026-11-23T10:00:00Z", 5)


def test_a_clock_a_moment_behind_another_process_is_no_jump(store: StateStore) -> None:
    recorded(store, configured("a"))
    Ticker(store, schedules("a"), NOW).tick(NOW)
    assert recorded(store, configured("a"), NOW - timedelta(seconds=40)) == []


def test_many_schedules_are_recorded_in_lines_that_fit(store: StateStore) -> None:
    many = [Schedule(f"{n:0120}", "*/5 " * 5, "d" * 1000) for n in range(300)]
    events = list(loaded_events(History(), many, NOW))
    store.commit(lambda _: events)
    assert sum(len(event["specs"]) for event in events) == 300
    assert list(loaded_events(store.history, [], NOW, is_whole=False)) == []
    assert len(store.history.schedules) == 300
