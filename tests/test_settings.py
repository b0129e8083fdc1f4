"""The environment variables, checked once."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from workers.failpoints import Failpoints
from workers.settings import InvalidSetting, Settings, read_settings, variables


def test_an_empty_environment_means_the_defaults() -> None:
    assert read_settings({}) == Settings()
    assert read_settings({variable.name: "  " for variable in variables()}) == Settings()
    settings = Settings()
    assert settings.state_path == "logs/orchestrator_state.jsonl"
    assert settings.events_path == "logs/orchestrator_events.jsonl"
    assert (settings.tick_ms, settings.max_parallel, settings.grace_s, settings.fsync) == (1000, 3, 30.0, "interval")


def test_every_field_has_its_variable_and_only_one() -> None:
    assert sorted(variable.field for variable in variables()) == sorted(Settings.__struct_fields__)
    assert len({variable.name for variable in variables()}) == len(variables())


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("STATE_STORE_PATH", "a//b.jsonl", "state_path", "a/b.jsonl"),
        ("ORCH_EVENTS_PATH", "/x/y", "events_path", "/x/y"),
        ("RUN_LOGS_DIR", "runs/", "run_logs_dir", "runs"),
        ("SCHED_TICK_MS", "250", "tick_ms", 250),
        ("SCHED_MAX_PARALLEL", "8", "max_parallel", 8),
        ("SCHED_GRACE_S", "0.5", "grace_s", 0.5),
        ("TASK_GRACE_S", "0", "task_grace_s", 0.0),
        ("SCHED_WORKER_MAX_RUNS", "10", "worker_max_runs", 10),
        ("STATE_FSYNC", "always", "fsync", "always"),
        ("STATE_LOCK_TIMEOUT_S", "2", "lock_timeout_s", 2.0),
        ("STATE_SEGMENT_SIZE", "64KiB", "segment_bytes", 65536),
        ("STATE_KEEP_SEGMENTS", "1", "keep_segments", 1),
        ("STATE_KEEP", "1d12h", "keep_s", 129600.0),
        ("TASK_LOG_SIZE", "1MiB", "task_log_bytes", 1 << 20),
        ("TICKPOOL_FAILPOINTS", "/d|e|after_claim=1", "failpoints", Failpoints("/d|e", {"after_claim": 1.0})),
    ],
)
def test_a_variable_sets_its_field(name: str, text: str, field: str, value: object) -> None:
    assert getattr(read_settings({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("STATE_STORE_PATH", "a\0b"),
        ("SCHED_TICK_MS", "9"),
        ("SCHED_TICK_MS", "60001"),
        ("SCHED_TICK_MS", "1.5"),
        ("SCHED_MAX_PARALLEL", "0"),
        ("SCHED_MAX_PARALLEL", "many"),
        ("SCHED_MAX_PARALLEL", "9" * 5000),
        ("SCHED_GRACE_S", "-1"),
        ("SCHED_GRACE_S", "nan"),
        ("SCHED_GRACE_S", "inf"),
        ("STATE_FSYNC", "yes"),
        ("STATE_FSYNC", "Always"),
        ("STATE_SEGMENT_SIZE", "63KiB"),
        ("STATE_SEGMENT_SIZE", "16MB"),
        ("STATE_KEEP", "90"),
        ("STATE_KEEP_SEGMENTS", "0"),
        ("TICKPOOL_FAILPOINTS", "/d|before_sleep=0.5"),
        ("TICKPOOL_FAILPOINTS", "/d|before_lock"),
        ("TICKPOOL_FAILPOINTS", "/d|before_lock=1.1"),
        ("TICKPOOL_FAILPOINTS", "/d|before_lock=nan"),
        ("TICKPOOL_FAILPOINTS", "before_lock=0.5"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(name: str, text: str) -> None:
    allowed = next(variable.allowed for variable in variables() if variable.name == name)
    with pytest.raises(InvalidSetting) as caught:
        read_settings({name: text})
    assert str(caught.value) == f"environment variable {name}={text!r}: write {allowed}"


def test_settings_cross_a_process_unchanged() -> None:
    settings = read_settings({"STATE_FSYNC": "off", "STATE_KEEP": "1d"})
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_task_is_told_the_places_as_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = read_settings({"RUN_LOGS_DIR": "/var/runs"}).environ()
    assert environ == {
        "STATE_STORE_PATH": os.path.join(os.getcwd(), "logs/orchestrator_state.jsonl"),
        "ORCH_EVENTS_PATH": os.path.join(os.getcwd(), "logs/orchestrator_events.jsonl"),
        "RUN_LOGS_DIR": "/var/runs",
    }


@pytest.mark.parametrize(("fsync", "of_tasks"), [("off", "off"), ("interval", "interval"), ("always", "interval")])
def test_the_log_of_tasks_is_never_flushed_at_every_event(tmp_path: Path, fsync: str, of_tasks: str) -> None:
    settings = read_settings(
        {"STATE_FSYNC": fsync, "STATE_STORE_PATH": str(tmp_path / "s"), "ORCH_EVENTS_PATH": str(tmp_path / "e")}
    )
    assert (settings.state_log().fsync, settings.task_log().fsync) == (fsync, of_tasks)
    assert (settings.state_log().path, settings.task_log().path) == (tmp_path / "s", tmp_path / "e")
