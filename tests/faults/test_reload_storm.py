"""Files that are written while the service is told to read them, again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from cron_oracle import enqueued
from service import Service

from scheduler.dag_files import Signature
from scheduler.reload import ConfigurationWatch
from scheduler.schedules import Configuration

WaitFor = Callable[..., None]
SEED = 5
SCHEDULES = 12
PULSE = 3
# A file that rests so long in the middle of being written, because this machine is busy, may pass for a whole one.
RESTS_S = 0.15
HELD = "touch up; while [ ! -e go ]; do sleep 0.02; done"


def _text(generation: int) -> str:
    """Return a file whose every schedule carries its generation: in what the log keeps, and in what a run is given.

    It is block YAML, one schedule of which ends where the next begins: any prefix of whole lines is good YAML, and all
    generations are of one length.
    """
    # A day that never comes while this runs, at a minute that tells the generation.
    minute, hour = generation % 60, generation // 60
    lines = []
    for number in range(SCHEDULES):
        cron = "@every 1s" if number < PULSE else f"{minute:02} {hour:02} 29 2 *"
        lines += [
            f"- id: s{number:02}",
            f'  cron: "{cron}"',
            f"  dag: dags/d{generation % 10}.yaml",
            f"  params: {{generation: {generation:04}}}",
            "  overlap: allow",
            f"  description: {'x' * 200}",
        ]
    return "\n".join(lines) + "\n"


class Writer:
    """Writes a generation in one of the ways that editors and deployments do, with signals in the middle of it."""

    def __init__(self, file: Path, pid: int, dice: random.Random, wait_for: WaitFor) -> None:
        self.file, self.pid, self.dice, self._wait_for = file, pid, dice, wait_for
        self.signals = 0
        self.stalls: list[tuple[float, float]] = []

    def write(self, generation: int) -> None:
        text, began = _text(generation).encode("ascii"), time.time()
        self.dice.choice([self._rename, self._truncate, self._overwrite, self._truncate])(text)
        if time.time() - began > RESTS_S:
            self.stalls.append((began, time.time()))
        self._signal()

    def _rename(self, text: bytes) -> None:
        fresh = self.file.with_name("fresh")
        fresh.write_bytes(text)
        self._signal()
        fresh.rename(self.file)

    def _truncate(self, text: bytes) -> None:
        with open(self.file, "wb", buffering=0) as file:
            self._pieces(file, text)

    def _overwrite(self, text: bytes) -> None:
        with open(self.file, "r+b", buffering=0) as file:
            self._pieces(file, text)

    def _pieces(self, file: Any, text: bytes) -> None:
        """Write whole lines at a time; between them the service is told to look, twice, and has the time to."""
        lines = text.splitlines(keepends=True)
        cuts = sorted(self.dice.sample(range(1, len(lines)), self.dice.choice([0, 1, 2])))
        for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
            file.write(b"".join(lines[start:end]))
            if end < len(lines):
                self._signal()
                self.pause(0.01)
                self._signal()
                self.pause(0.02)

    def _signal(self) -> None:
        os.kill(self.pid, signal.SIGHUP)
        self.signals += 1

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._wait_for(lambda: time.monotonic() >= until)


def _generations(event: dict[str, Any]) -> set[int]:
    """Return the generations that a `schedules_loaded` tells of, by its schedules and by the DAGs they name."""
    found = set()
    for spec in event["specs"].values():
        if not spec["cron"].startswith("@"):
            minute, hour, *_ = spec["cron"].split()
            found.add(int(hour) * 60 + int(minute))
    return found


class Interrupted(ConfigurationWatch):
    """A watch whose file is written to its end after it has read half of it."""

    halves = 0

    def _read_again(self, now: Signature) -> Configuration:
        read = super()._read_again(now)
        if len(read.schedules) < SCHEDULES:
            self.halves += 1
            (self.directory / "storm.yaml").write_text(_text(2), "ascii")
        return read


def test_a_file_that_is_written_while_it_is_read_is_read_again(service: Service, figure: Callable[[str], None]) -> None:
    for digit in range(3):
        dag = {"id": f"d{digit}", "params": {"generation": 0}, "tasks": [{"id": "t", "run": "true"}]}
        (service.root / "dags" / f"d{digit}.yaml").write_text(json.dumps(dag), "ascii")
    file = service.root / "schedules" / "storm.yaml"
    file.write_text(_text(1), "ascii")
    watch = Interrupted(file.parent)
    file.write_text("".join(_text(2).splitlines(keepends=True)[:30]), "ascii")
    polls = [watch.poll() for _ in range(2)]
    assert (polls, watch.halves, watch.is_settling()) == ([None, None], 1, True)
    assert len(watch.current.schedules) == SCHEDULES
    # The first of these sees that it has changed, the second that it rests.
    polls = [watch.poll() for _ in range(2)]
    assert polls == [None, watch.current]
    assert [schedule.params for schedule in watch.current.schedules] == [{"generation": 2}] * SCHEDULES
    figure("a half that was whole when its reading ended was not taken")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_half_of_a_configuration_comes_into_force_in_a_storm_of_signals(
    service: Service, wait_for: WaitFor, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    dice, wanted = random.Random(SEED), count(50, 1_000)
    for digit in range(10):
        # JSON is YAML.
        dag = {"id": f"d{digit}", "params": {"generation": 0}, "tasks": [{"id": "t", "run": "true"}]}
        (service.root / "dags" / f"d{digit}.yaml").write_text(json.dumps(dag), "ascii")
    held = service.dag("held", HELD)
    file = service.root / "schedules" / "storm.yaml"
    file.write_text(_text(0), "ascii")
    supervisor = service.start(SCHED_TICK_MS="100", STATE_FSYNC="off")
    wait_for(service.is_ready)
    asked = service.ask(held)
    wait_for((service.root / "up").exists)
    writer = Writer(file, supervisor.pid, dice, wait_for)
    process = psutil.Process(supervisor.pid)
    descriptors, generation, settled = process.num_fds(), 0, 0
    while writer.signals < wanted:
        generation += 1
        writer.write(generation)
        if generation % 10 == 0:
            wait_for(lambda: _in_force(service) == {generation}, what=f"generation {generation}")  # noqa: B023
            settled += 1
    wait_for(lambda: _in_force(service) == {generation}, what=f"generation {generation}")
    ended = len(service.events("run_finished"))
    wait_for(lambda: len(service.events("run_finished")) >= ended + PULSE)
    assert service.story(asked) == ["run_started 1"]
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(asked))
    wait_for(lambda: process.num_fds() <= descriptors + 3)
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    _check(service, asked, generation, writer.stalls)
    loads = len(service.events("schedules_loaded"))
    runs = len(service.events("run_finished"))
    figure(
        f"seed {SEED}: {writer.signals} SIGHUPs, {generation} rewrites, {loads} loads, each of one whole generation; "
        f"the last came into force {settled + 1} of {settled + 1} times; {runs} runs undisturbed"
    )


def _in_force(service: Service) -> set[int]:
    """Return the generations of the last load: its new fire times first, then what else of it was edited."""
    told = [generations for event in service.events("schedules_loaded")[-2:] if (generations := _generations(event))]
    return told[-1] if told else set()


def _check(service: Service, asked: str, last: int, stalls: list[tuple[float, float]]) -> None:
    storm = {f"s{number:02}" for number in range(PULSE, SCHEDULES)}
    loads, told = service.events("schedules_loaded"), []
    for event in loads:
        at = datetime.fromisoformat(event["timestamp"]).timestamp()
        if any(begin <= at <= end + 1 for begin, end in stalls):
            continue
        generations = _generations(event)
        assert len(generations) <= 1, event
        assert not event.get("removed"), event
        # Those that fire each second are told apart, and only where the DAG they name is another one.
        assert storm & event["specs"].keys() in (set(), storm), event
        dags = {spec["dag"] for spec in event["specs"].values()}
        assert not generations or dags == {f"dags/d{min(generations) % 10}.yaml"}, event
        told += sorted(generations)
    assert told == sorted(told)
    assert told[-1] == last
    runs = service.events("schedule_enqueued")
    # What a run is given is of the same generation as the DAG it is to run.
    assert {event["dag"] == f"dags/d{event['params']['generation'] % 10}.yaml" for event in runs} == {True}
    assert set(enqueued(runs).values()) == {1}
    assert set(service.starts().values()) == {1}
    assert {event["status"] for event in service.events("run_finished")} == {"success"}
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    assert "Traceback" not in service.err()
