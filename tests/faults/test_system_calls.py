"""Any one call to the operating system fails, with any error: nothing that was acknowledged is lost or there twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import failing_calls
import log_attackers
import pytest
from failing_calls import CASES, SHORT
from service import WITHOUT_COVERAGE, Service

from scheduler.audit import audit
from workers.event_log import EventLog
from workers.segments import LogReader, read_backward

Count = Callable[[int, int], int]
Figure = Callable[[str], None]
WaitFor = Callable[..., None]
Do = Callable[..., dict[str, Any]]

# Of a log in memory a flush costs nothing; the calls are the same.
MEMORY = Path("/dev/shm")
NOW = "2026-03-01T12:00:00Z"
ERRORS = ["EIO", "ENOSPC", SHORT]
ALL_ERRORS = [*ERRORS, "EROFS", "EDQUOT", "EACCES", "EMFILE", "ENOMEM", "ENOLCK", "ESTALE"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory that may be filled and emptied often."""
    place = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def do() -> Iterator[Do]:
    """Have something done by a process that meets a fault; return what came of it."""
    process: subprocess.Popen[str] = log_attackers.start(failing_calls.serve, environ=WITHOUT_COVERAGE)
    yield lambda **point: json.loads(log_attackers.ask(process, json.dumps(point, default=str)))
    log_attackers.end(process)


def _wrong_in_log(path: Path, done: dict[str, Any], *, is_pruned: bool = False) -> str:
    """Say what is wrong with a log for those who come later; empty when nothing is."""
    log = EventLog(path, fsync="off")
    log.append({"event": "fresh"})
    log.close()
    reader = LogReader(path, from_start=True)
    found = reader.read()
    reader.close()
    keys = Counter(event["key"] for event in found if "key" in event)
    if lost := [key for key in done["there"] if keys[key] != 1]:
        return f"acknowledged, and there {[keys[key] for key in lost]} times: {lost}"
    # Half was written, and the half could not be cut off: the first of several events may stay.
    half_stays = done["refused_calls"] == ["write", "ftruncate"]
    if ghosts := [key for key in done["refused"] if keys[key] and not (half_stays and key == "a")]:
        return f"refused, and there: {ghosts}"
    start = found[0]["seq"] if is_pruned else 1
    if [event["seq"] for event in found] != list(range(start, start + len(found))):
        return f"the numbers are {[event['seq'] for event in found]}"
    if reader.corrupt or list(read_backward(path)) != found[::-1]:
        return f"{reader.corrupt} lines are no events, or they are not the same backward"
    return "; ".join(map(str, audit(path, datetime.now(UTC)).violations))


def _attack(do: Do, case: str, root: Path, *errors: str) -> int:
    """Let each call of a case fail in turn, and the next ones with it; return how often one did."""
    first = points = 0
    while True:
        first += 1
        done = do(case=case, root=root, first=first, errors=errors)
        where = f"{case}, from call {first} on, {errors}: {done['refused_calls']}"
        assert not done["wrong"], f"{where}: {done['wrong'][0]}"
        wrong = _wrong_in_log(root / "logs" / "log.jsonl", done, is_pruned=case == "prune")
        assert not wrong, f"{where}: {wrong}"
        points += bool(done["refused_calls"])
        if first > len(done["calls"]):
            return points


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_any_call_of_a_log_may_fail_and_the_log_keeps_its_word(
    case: str, do: Do, disk: Path, count: Count, figure: Figure
) -> None:
    errors = [ERRORS, ALL_ERRORS][count(0, 1)]
    points = sum(_attack(do, case, disk / "case", error) for error in errors)
    pairs = [("EIO", "EIO"), (SHORT, "EIO"), *((error, error) for error in errors[1:])][: count(1, 99)]
    double = sum(_attack(do, case, disk / "case", *pair) for pair in pairs)
    figure(f"{case}: {points} calls failed, with {len(errors)} errors, and {double} pairs of calls; 0 wrong")


# -- a whole command -------------------------------------------------------------------------------------------------


def _tick(do: Do, service: Service, **fault: Any) -> dict[str, Any]:
    fault = {"first": 1, "errors": [], **fault}
    words = ["tick", "--dir", "schedules", "--now", NOW]
    environ = {**service.environ, "STATE_FSYNC": "always", "STATE_STORE_PATH": str(service.log)}
    return do(root=service.root, words=words, environ=environ, **fault)


def _lay_out(service: Service) -> None:
    service.schedule("s", "* * * * *", service.dag("d", 'echo "$RUN_ID $ATTEMPT" >> effects; echo told'))


def _attack_tick(do: Do, service: Service, wait_for: WaitFor, first: int, error: str) -> list[str]:
    """Let one call of a tick fail; the next tick has to bring all to its end. Return what failed."""
    service.log = service.root / "logs" / f"{error}.{first}.jsonl"
    (service.root / "effects").write_bytes(b"")
    done = _tick(do, service, first=first, errors=[error])
    said = (service.root / "err").read_text("utf-8")
    where = f"call {first}, {error}: {done['refused_calls']}, code {done['code']}:\n{said}"
    assert not done["wrong"], f"{where}\n{done['wrong'][0]}"
    assert done["code"] in (0, 1, 2), where
    # A worker whose start was given up may tell of it through multiprocessing; none of our code is in that.
    assert not re.search(r'File ".*/(scheduler|workers)/', said), where
    assert done["code"] != 2 or said, where
    again = _tick(do, service)
    assert not again["wrong"], f"{where}; again: {again['wrong']}"
    assert again["code"] in (0, 1), f"{where}; again: {(service.root / 'err').read_text('utf-8')}"
    asked = [event["run_id"] for event in service.events("schedule_enqueued")]
    assert len(asked) == 1, where
    wait_for(lambda: service.has_ended(*asked), what=f"the end; {where}")
    report = audit(service.log, datetime.now(UTC), effects=service.root / "effects", final=True)
    assert not report.violations, f"{where}: {report.violations}"
    return done["refused_calls"]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_any_call_of_a_tick_may_fail_and_the_next_tick_brings_all_to_its_end(
    do: Do, service: Service, wait_for: WaitFor, count: Count, figure: Figure
) -> None:
    _lay_out(service)
    calls = len(_tick(do, service)["calls"])
    points = 0
    for error in ["EIO", "ENOSPC"][: count(1, 2)]:
        for first in range(1, calls + 1, count(calls // 8, 1)):
            points += bool(_attack_tick(do, service, wait_for, first, error))
    figure(f"{points} calls of a whole tick of {calls} calls failed; 0 tracebacks, 0 runs lost, 0 run twice")
