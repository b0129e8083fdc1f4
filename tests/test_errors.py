"""Every error of both packages: under one root, built from values, picklable, told in one line."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from datetime import datetime

import pytest

import scheduler
import workers
from workers.errors import Fault, InvalidFile, TickpoolError, did_you_mean

EXAMPLES: dict[str, tuple[object, ...]] = {
    "BadItems": ("is 3, and no list",),
    "AlreadyThere": ("dags/hello.yaml",),
    "NoShell": (),
    "BadOutputs": ("33000 bytes of JSON; at most 32768",),
    "BadRequest": ("header `X-A`", "holds a line break"),
    "BadCertificate": ("No such file or directory",),
    "BadTokens": ("tokens", 2, "write `NAME viewer TOKEN`"),
    "BadWait": ("`file` names no file",),
    "CannotImport": ("jobs.clean:main", "no module named `jobs`"),
    "CannotWait": ("run `daily.20261123T0900Z`", "it is this run itself"),
    "CannotStart": (127, "`nosuch` was not found"),
    "EffectsUnreadable": ("effects", "No such file or directory"),
    "LongComment": (1001,),
    "MissingExtra": ("starlette",),
    "OpenToAll": ("0.0.0.0",),
    "PortTaken": ("127.0.0.1", 8400, "Address already in use"),
    "NotAsked": ("r.1", "relase", ["release"]),
    "InvalidCron": ("61 * * * *", "minute", "61", "must be 0 to 59"),
    "InvalidDuration": ("soon",),
    "InvalidEvent": ("run_started", "70000 bytes; a line holds at most 65536"),
    "InvalidFile": ((Fault("dags/report.yaml", 14, 9, "task `clean`: unknown key `retires`"),),),
    "InvalidMoment": ("--now", "tomorrow"),
    "InvalidParam": ("region", "write name=value"),
    "InvalidParams": (("unknown param `regoin`; did you mean `region`?", "param `date` has no value"),),
    "InvalidReference": ("a b", "a name has no blanks"),
    "InvalidRequest": ({"run_id": "r.1"}, "it names no `dag`"),
    "InvalidRun": ("run_id", "a/b", "ids match ..."),
    "InvalidSetting": ("SCHED_TICK_MS", "soon", "write a whole number of milliseconds, 10 to 60000"),
    "InvalidSize": ("big",),
    "InvalidUntil": ("--until", "soon"),
    "LockTimeout": ("logs/state.jsonl.lock", 10.0, 4242),
    "LogNotFlushed": ("logs/state.jsonl", "Input/output error"),
    "LogUnreadable": ("logs/state.jsonl", "Permission denied"),
    "LogUnwritable": ("logs/state.jsonl", "No space left on device"),
    "MaskedError": ("ValueError: cannot reach https://***@db",),
    "NaiveDatetime": (datetime(2026, 11, 23, 9),),  # noqa: DTZ001
    "NetworkFilesystem": ("logs/state.jsonl", "nfs4"),
    "InvalidCalendar": ("`country` 'FX' is not known; did you mean `FR`?",),
    "NotThere": ("run `d.1` has no attempt 2", "it has 1"),
    "NoAnswer": ("no answer within 10s",),
    "NotOpen": ("d.1", ["d.2"]),
    "NothingNamed": ("pause", "name schedules"),
    "StillOpen": ("nightly.20261123T0900Z",),
    "Changed": ("nightly.20261123T0900Z",),
    "NoRequest": ("nightly.20261123T0900Z", "its request is not on record any more"),
    "NothingToRetry": ("nightly.20261123T0900Z",),
    "UnusablePark": ("nightly.20261123T0900Z", "Expected `array`, got `str` - at `$.waits`"),
    "UnknownTask": ("lod", "etl", ["load"]),
    "Forgotten": ("load", "logs/events.jsonl"),
    "DagGone": ("0123456789abcdef", "logs/runs/.dags", "No such file or directory"),
    "NoSlots": ("nightly", "it has no fire time then"),
    "NotWaiting": ("nightly.20261123T0900Z",),
    "UnknownName": ("tenant", "oops", ["ops"]),
    "NothingToTrigger": ("dayly", ["daily"], "schedules"),
    "UnknownRun": ("d.1", ["d.2"]),
    "NoSchedules": ("schedules", "no such directory"),
    "UnknownReference": ("params.regoin", ("params.region",)),
    "UnusableSecret": ("DB_PASSWORD", "is not there"),
    "UnusableValue": ("params.blob", "it has a NUL byte"),
}


def all_errors() -> list[type[TickpoolError]]:
    """Return every error class of the two packages."""
    for package in (workers, scheduler):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    importlib.import_module("workers.__main__")
    found: list[type[TickpoolError]] = []
    waiting = [TickpoolError]
    while waiting:
        for error in waiting.pop().__subclasses__():
            found.append(error)
            waiting.append(error)
    return sorted((error for error in found if error.__module__.startswith(("workers", "scheduler"))), key=str)


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_an_error_pickles_and_tells_its_values_in_one_line(kind: type[TickpoolError]) -> None:
    assert kind.__name__ in EXAMPLES, f"give {kind.__name__} an example above"
    error = kind(*EXAMPLES[kind.__name__])
    text = str(error)
    assert text.strip() == text
    assert text
    assert "\n" not in text
    assert not text.startswith(("(", "<"))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, str(again)) == (kind, error.args, text)
    assert vars(again) == vars(error)


def test_every_example_is_of_an_error_that_exists() -> None:
    assert set(EXAMPLES) == {kind.__name__ for kind in all_errors()}


def test_a_fault_is_placed_by_file_line_and_column_or_by_file_alone() -> None:
    assert str(Fault("a.yaml", 14, 9, "wrong")) == "a.yaml:14:9: wrong"
    assert str(Fault("a.yaml", 0, 0, "empty")) == "a.yaml: empty"


def test_a_file_with_many_faults_tells_each_in_its_own_line() -> None:
    error = InvalidFile([Fault("a.yaml", 1, 1, "one"), Fault("a.yaml", 2, 1, "two")])
    assert str(error) == "a.yaml:1:1: one\na.yaml:2:1: two"
    assert pickle.loads(pickle.dumps(error)).faults == error.faults


@pytest.mark.parametrize(
    ("name", "valid", "hint"),
    [
        ("retires", ["retries", "run"], "; did you mean `retries`?"),
        ("zzz", ["run", "call"], "; allowed: call, run"),
        ("zzz", [], ""),
    ],
)
def test_a_hint_names_the_nearest_or_everything_allowed(name: str, valid: list[str], hint: str) -> None:
    assert did_you_mean(name, valid) == hint


def test_of_very_many_names_that_are_allowed_fifty_are_told() -> None:
    told = did_you_mean("zzz", [f"n{number:05}" for number in range(10_000)])
    assert told.startswith("; allowed: n00000, n00001")
    assert told.endswith("n00049 and 9,950 more")
    assert did_you_mean("n0500", [f"n{number:05}" for number in range(10_000)]).startswith("; did you mean `n0")
