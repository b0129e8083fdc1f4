"""The wall clock is set: by an hour, a day, to 1970, past 2038, while the service runs and while nobody looks."""

from __future__ import annotations

import mmap
import random
import shutil
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cron_oracle import enqueued
from service import Service, kill9

from scheduler.clock import Jump
from scheduler.reload import record_configuration
from scheduler.schedule_model import Schedule
from scheduler.schedules import Configuration
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog
from workers.events import iso
from workers.segments import LogReader

WaitFor = Callable[..., None]
SEED = 3
NOON = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FORWARD = {
    "an hour on": NOON + timedelta(hours=1),
    "a day on": NOON + timedelta(days=1),
    "to 2038": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),  # 2**31 seconds
    "to 2106": datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),  # 2**32 seconds
    "to 2400": datetime(2400, 2, 29, 23, 59, 59, tzinfo=UTC),
}
BACKWARD = {
    "an hour back": NOON - timedelta(hours=1),
    "a day back": NOON - timedelta(days=1),
    "to 2000": datetime(2000, 2, 29, tzinfo=UTC),
    # Where a machine without a battery for its clock begins.
    "to the first minute of 1970": datetime(1970, 1, 1, 0, 0, 20, tzinfo=UTC),
}
TARGETS = {**FORWARD, **BACKWARD}
# What is to run of the minutes up to a late tick: `many` are caught up beside the present one.
POLICIES: dict[str, tuple[dict[str, Any], int]] = {
    "none": ({}, 0),
    "latest": ({"catchup": "latest"}, 0),
    "all of ten minutes": ({"catchup": "all", "overlap": "queue", "catchup_window": timedelta(minutes=10)}, 10),
}


class World:
    """A ticker on a log, in a time that the test sets; `restart` is what a new process does."""

    def __init__(self, log: Path, *schedules: Schedule) -> None:
        self.log, self.schedules, self.now = log, schedules, NOON
        self.store = StateStore(EventLog(log, fsync="off"))
        self.restart()

    def restart(self) -> None:
        self.store.close()
        self.store = StateStore(EventLog(self.log, fsync="off"))
        self.store.refresh()
        record_configuration(self.store, Configuration("schedules", list(self.schedules), [], (), ()), self.now)
        self.ticker = Ticker(self.store, self.schedules, self.now)

    def set_clock(self, now: datetime, *, is_seen: bool) -> None:
        """Set the clock, before the eyes of the service or while it is down; then it ticks."""
        was, self.now = self.now, now
        if is_seen:
            self.store.commit(lambda _: [Jump(was, now, (now - was).total_seconds()).event()])
            self.ticker.resume(now)
        else:
            self.restart()
        self.ticker.tick(self.now, "clock_jump" if is_seen else "down")

    def pass_time(self, minutes: int) -> None:
        for _ in range(minutes):
            self.now += MINUTE
            self.ticker.tick(self.now)

    def events(self) -> list[dict[str, Any]]:
        reader = LogReader(self.log, from_start=True)
        try:
            return reader.read()
        finally:
            reader.close()


def _ranges(events: list[dict[str, Any]]) -> list[tuple[datetime, datetime, str]]:
    """Return (first, last, verdict) of each verdict, in the order of time."""
    found = []
    for event in events:
        if event["event"] == "schedule_missed":
            found.append((_time(event["from"]), _time(event["to"]), event["reason"]))
        elif event["event"] in ("schedule_enqueued", "schedule_skipped"):
            found.append((_time(event["minute"]), _time(event["minute"]), event["event"].removeprefix("schedule_")))
    return sorted(found)


def _time(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


def _minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "while it was down"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("step", FORWARD)
def test_what_a_clock_jumps_over_is_missed_or_caught_up_as_the_policy_says(
    tmp_path: Path, step: str, policy: str, *, is_seen: bool, figure: Callable[[str], None]
) -> None:
    fields, caught_up = POLICIES[policy]
    world = World(tmp_path / "state.jsonl", Schedule("s", "* * * * *", "d", **({"overlap": "allow"} | fields)))
    world.ticker.tick(NOON)
    began = time.process_time()
    world.set_clock(FORWARD[step], is_seen=is_seen)
    took_s = time.process_time() - began
    told = _ranges(world.events())
    # One verdict each, and none left out: every range begins a minute after the one before it.
    assert told[0][0] == _minute(NOON)
    assert [after[0] - before[1] for before, after in pairwise(told)] == [MINUTE] * (len(told) - 1)
    assert told[-1][:2] == (_minute(world.now), _minute(world.now))
    verdicts = Counter(verdict for *_, verdict in told)
    # Ten minutes back from a whole minute there are ten late ones, else nine.
    window = caught_up - (world.now.second > 0) if caught_up else 0
    assert verdicts["enqueued"] == 1 + 1 + window
    late = {"none": "clock_jump" if is_seen else "down", "latest": "superseded"}.get(policy, "catchup_window")
    assert set(verdicts) <= {"enqueued", late, "clock_jump" if is_seen else "down"}
    assert verdicts[late] >= 1
    world.pass_time(3)
    assert set(enqueued(world.events()).values()) == {1}
    world.store.close()
    jumped = int((FORWARD[step] - NOON) / MINUTE)
    figure(
        f"{jumped} minutes jumped over: {verdicts.total() - 1} verdicts, {window + 1} of them runs, in {took_s:.2f} s"
    )


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "while it was down"])
@pytest.mark.parametrize("step", BACKWARD)
def test_a_clock_that_is_set_back_and_mended_runs_each_minute_once(
    tmp_path: Path, step: str, *, is_seen: bool, figure: Callable[[str], None]
) -> None:
    world = World(tmp_path / "state.jsonl", Schedule("s", "* * * * *", "d", overlap="allow"))
    world.ticker.tick(NOON)
    world.pass_time(3)
    world.set_clock(BACKWARD[step], is_seen=is_seen)
    world.ticker.tick(world.now + timedelta(seconds=1))
    world.restart()
    world.ticker.tick(world.now + timedelta(seconds=2))
    world.pass_time(70)
    passed = [_minute(BACKWARD[step]) + count * MINUTE for count in range(71)]
    ran = enqueued(world.events())
    assert set(ran.values()) == {1}
    # Each minute that came, came once; an hour back, the last of them are those that had run before.
    assert {_time(minute) for _, minute in ran} >= set(passed)
    world.set_clock(NOON + 30 * MINUTE, is_seen=is_seen)
    world.pass_time(5)
    ran = enqueued(world.events())
    assert set(ran.values()) == {1}
    assert {_time(minute) for _, minute in ran} >= {_minute(NOON) + count * MINUTE for count in range(30, 36)}
    world.store.close()
    figure(f"{len(ran)} minutes enqueued, 0 twice")


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "while it was down"])
def test_years_that_a_wrong_clock_called_missed_do_not_fall_silent(
    tmp_path: Path, *, is_seen: bool, figure: Callable[[str], None]
) -> None:
    """The clock is decades ahead for long, the service is held up now and then, and the log is rotated."""
    world = World(tmp_path / "state.jsonl", Schedule("s", "* * * * *", "d", overlap="allow"))
    world.ticker.tick(NOON)
    world.set_clock(FORWARD["to 2038"], is_seen=is_seen)
    for _ in range(30):
        world.pass_time(2)
        world.now += 4 * MINUTE
        world.ticker.tick(world.now)
        world.store.rotate(0)
    world.restart()
    world.set_clock(NOON + 10 * MINUTE, is_seen=is_seen)
    world.pass_time(20)
    ran = enqueued(world.events())
    world.store.close()
    assert set(ran.values()) == {1}
    present = [_minute(NOON) + count * MINUTE for count in range(10, 31)]
    assert [minute for minute in present if ("s", iso(minute)) not in ran] == []
    figure(f"{len(present)} minutes came after decades were called missed, each enqueued once")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_walk_of_the_clock_runs_a_minute_twice_or_leaves_one_out(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    dice, steps = random.Random(SEED), count(40, 400)
    minutely = Schedule("minutely", "* * * * *", "d", overlap="allow")
    others = (
        Schedule("period", "@every 90s", "d", catchup="latest", overlap="allow"),
        Schedule("paris", "*/10 * * * *", "d", timezone="Europe/Paris", catchup="latest", overlap="queue"),
    )
    world = World(tmp_path / "state.jsonl", minutely, *others)
    passed: set[datetime] = set()
    for _ in range(steps):
        near = world.now + timedelta(seconds=dice.choice([-86400, -3600, -90, -61, -5, 5, 61, 90, 3600, 86400]))
        target = dice.choice(list(TARGETS.values())) + timedelta(hours=dice.randrange(24))
        world.set_clock(target if dice.random() < 0.1 else max(near, BACKWARD["to 2000"]), is_seen=dice.random() < 0.6)
        minutes = dice.randrange(1, 15)
        passed |= {_minute(world.now) + count * MINUTE for count in range(minutes + 1)}
        world.pass_time(minutes)
        if dice.random() < 0.1:
            world.store.rotate(0)
    events = world.events()
    world.store.close()
    judged = Counter(
        (e["schedule_id"], e["minute"]) for e in events if e["event"] in ("schedule_enqueued", "schedule_skipped")
    )
    assert [key for key, times in judged.items() if times > 1] == [], SEED
    # Each has its verdict, though a minute that a wrong clock has called missed long ago may not come again.
    told = _ranges([event for event in events if event.get("schedule_id") == "minutely"])
    ran = {first for first, _, verdict in told if verdict in ("enqueued", "skipped")}
    missed = [(first, last) for first, last, verdict in told if verdict not in ("enqueued", "skipped")]
    silent = [at for at in sorted(passed - ran) if not any(first <= at <= last for first, last in missed)]
    assert silent == [], SEED
    figure(f"seed {SEED}: {steps} steps of the clock, {judged.total()} minutes enqueued, 0 twice, 0 without a verdict")


# -- a service whose clock is set ------------------------------------------------------------------------------------

# Every wall clock of the process tree is off by what the file says; the clocks that only go on are left alone.
# (libfaketime 0.9.10 cannot do that: with DONT_FAKE_MONOTONIC it makes clock_nanosleep fail with EINVAL.)
PRELOAD = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TEST_CLOCK_OFFSET");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *place = fd < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    if (place != MAP_FAILED) offset = place;
    if (fd >= 0) close(fd);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, id, at);
    if (!failed && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """The wall clock of a service: the machine's, off by as many seconds as this says."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(8))
        with open(file, "r+b") as opened:
            self._room = mmap.mmap(opened.fileno(), 8)

    def set(self, offset_s: int) -> None:
        self._room[:] = struct.pack("=q", offset_s)

    def to(self, moment: datetime) -> None:
        self.set(int(moment.timestamp() - time.time()))

    def now(self) -> float:
        return time.time() + int(struct.unpack("=q", self._room[:])[0])

    def close(self) -> None:
        self._room.close()


@pytest.fixture
def clock(service: Service) -> Iterator[WallClock]:
    """The wall clock of all that the service starts."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) for the library that sets the clock of a process")
    source, library = service.root / "clock.c", service.root / "clock.so"
    source.write_text(PRELOAD, "ascii")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cc cannot make a shared library here")
    file = service.root / "offset"
    clock = WallClock(file)
    service.environ |= {"LD_PRELOAD": str(library), "TEST_CLOCK_OFFSET": str(file), "STATE_FSYNC": "off"}
    yield clock
    clock.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_service_whose_clock_is_set_runs_nothing_twice_and_goes_on(
    service: Service,
    wait_for: WaitFor,
    clock: WallClock,
    count: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    dag = service.dag("d", 'echo "$RUN_ID $ATTEMPT" >> effects')
    held = service.dag("held", "touch up; while [ ! -e go ]; do sleep 0.02; done")
    service.schedule("second", "@every 1s", dag, overlap="allow")
    service.schedule("minute", "* * * * *", dag, overlap="allow", catchup="latest")
    now = int(time.time())
    steps = [3600, 0, -86400, 0, -now + 20, 2**31 - now - 2, 2**32 - now - 2, 0]
    steps += [86400, 0, -3600, 0, -now + 1000, 2**31 - now, -now + 20, 0] * count(0, 6)
    serving = service.start(STATE_SEGMENT_SIZE="64KiB")
    wait_for(service.is_ready)
    # Most steps of the clock are longer than its timeout.
    asked = service.ask(held, timeout_s=1000)
    wait_for((service.root / "up").exists)
    offset = restarts = 0
    for number, step in enumerate(steps):
        is_seen = number % 3 != 2
        jumps, ended = len(service.events("clock_jumped")), len(service.events("run_finished"))
        if not is_seen:
            kill9(serving)
        clock.set(step)
        if not is_seen:
            serving, restarts = service.start(STATE_SEGMENT_SIZE="64KiB"), restarts + 1
        if is_seen or step < offset:
            wait_for(lambda jumps=jumps: len(service.events("clock_jumped")) > jumps, what=f"a jump to {step}")
        offset = step
        wait_for(lambda ended=ended: len(service.events("run_finished")) >= ended + 2, 20, what=f"runs after {step}")
    assert service.story(asked) == ["run_started 1"]
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(asked))
    serving.terminate()
    assert serving.wait(20) == 0
    events = service.events()
    assert service.story(asked) == ["run_started 1", "run_finished 1 success"]
    ran = enqueued(events)
    assert [key for key, times in ran.items() if times > 1] == []
    assert set(service.starts().values()) == {1}
    assert max(Counter((service.root / "effects").read_text("ascii").splitlines()).values()) == 1
    ends = [event for event in events if event["event"] == "run_finished" and event["run_id"] != asked]
    assert {event["status"] for event in ends} == {"success"}
    assert max(abs(event["duration_s"]) for event in ends) < 60
    assert [text for started in range(restarts + 1) if (text := service.tracebacks(started))] == []
    jumps = len(service.events("clock_jumped"))
    figure(f"{len(steps)} steps of the clock, {jumps} told, {restarts} of them while down: {len(ran)} "
           f"fire times enqueued, 0 twice, {len(ends)} runs, 0 started twice")  # fmt: skip
