"""The holder of the lock is stopped in the midst of its append: others say who it is and wait; nothing is damaged."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import log_attackers
import psutil
import pytest
from log_attackers import PLACES, answer, ask, tell
from service import Service

from workers.segments import LogReader, read_backward

WaitFor = Callable[..., None]
Count = Callable[[int, int], int]
Figure = Callable[[str], None]
Attackers = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def attacker() -> Iterator[Attackers]:
    """Start attacking processes; whatever is left of them at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        started.append(log_attackers.start(*args))  # type: ignore[arg-type]
        return started[-1]

    yield start
    log_attackers.end(*started)


def _is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def test_a_holder_stopped_at_any_place_of_its_append_is_named_and_goes_on_unharmed(
    tmp_path: Path, wait_for: WaitFor, count: Count, figure: Figure, attacker: Attackers
) -> None:
    path = tmp_path / "log.jsonl"
    others = [attacker(log_attackers.append_as_told, str(path)) for _ in range(2)]
    holder = attacker(log_attackers.append_stopping, str(path))
    wait_for(path.exists)
    reader, rounds, longest_s = LogReader(path, from_start=True), count(1, 20), 0.0
    followed = reader.read()
    for number in range(rounds * len(PLACES)):
        place = PLACES[number % len(PLACES)]
        tell(holder, place)
        wait_for(lambda: _is_stopped(holder.pid), what=f"the stop {place}")
        begun = time.monotonic()
        for other in others:
            tell(other, "append")
        for other in others:
            assert f"{path}.lock: the lock was not free within 0.2 s; process {holder.pid} holds it" == answer(other)
        longest_s = max(longest_s, time.monotonic() - begun)
        # A reader is not kept waiting, and half a line is no line.
        followed += reader.read()
        assert [event["seq"] for event in followed] == list(range(1, len(followed) + 1))
        holder.send_signal(signal.SIGCONT)
        mine = int(answer(holder))
        assert [int(ask(other, "append")) for other in others] == [mine + 1, mine + 2]
    followed += reader.read()
    assert [event["seq"] for event in followed] == list(range(1, len(followed) + 1))
    assert followed[::-1] == list(read_backward(path))
    assert sum(event.get("by") == "stopped" for event in followed) == rounds * len(PLACES)
    assert sum(event.get("by") == "follower" for event in followed) == 2 * rounds * len(PLACES)
    assert reader.corrupt == 0
    assert not Path(f"{path}.torn").exists()
    stops = rounds * len(PLACES)
    figure(f"{stops} stops at {len(PLACES)} places, {2 * stops} waiters named the holder within {longest_s:.2f} s; "
           f"{len(followed)} lines, 0 lost, 0 torn")  # fmt: skip


def test_a_service_whose_log_is_held_by_a_stopped_process_says_so_lives_and_goes_on(
    service: Service, wait_for: WaitFor, figure: Figure, attacker: Attackers
) -> None:
    service.schedule("s", "@every 1s", service.dag("often", "true"), catchup="all", overlap="allow")
    held = service.dag("held", "touch up; while [ ! -e go ]; do sleep 0.02; done; echo done >> effects")
    supervisor = service.start(STATE_LOCK_TIMEOUT_S="0.3")
    wait_for(service.is_ready)
    asked = service.ask(held)
    wait_for((service.root / "up").exists)
    holder = attacker(log_attackers.append_stopping, str(service.log))
    tell(holder, "within the write")
    wait_for(lambda: _is_stopped(holder.pid))
    named = f"process {holder.pid} holds it"
    wait_for(lambda: f"the service cannot tick: {service.log}.lock: the lock was not free" in service.err())
    assert named in service.err()
    (service.root / "go").touch()
    wait_for(lambda: f"its end is not on record yet: {service.log}.lock" in service.err())
    status = service.start("--once", STATE_LOCK_TIMEOUT_S="0.3")
    assert status.wait(20) == 2
    (line,) = service.err().splitlines()
    assert named in line
    assert supervisor.poll() is None
    ended = len(service.events("run_finished"))
    begun = time.monotonic()
    holder.send_signal(signal.SIGCONT)
    wait_for(lambda: service.has_ended(asked), what="the end that was owed")
    owed_s = time.monotonic() - begun
    wait_for(lambda: len(service.events("run_finished")) >= ended + 4)
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    assert (service.root / "effects").read_text("ascii") == "done\n"
    assert set(service.starts().values()) == {1}
    assert {event["status"] for event in service.events("run_finished")} == {"success"}
    assert [event["seq"] for event in service.events()] == list(range(1, len(service.events()) + 1))
    assert not Path(f"{service.log}.torn").exists()
    assert "Traceback" not in service.err(0)
    figure(f"the service named the stopped writer and lived; the owed end was on record {owed_s:.2f} s after SIGCONT")
