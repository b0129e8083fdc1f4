"""Many deciders on one log: tickers in a time that the test moves, services whose leader is killed, parallel ticks."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cron_oracle import Meaning, enqueued, timeline, verdicts
from service import REPOSITORY, Service, kill9

from workers.lock import Lock
from workers.segments import LogReader
from workers.settings import variables

WaitFor = Callable[..., None]
SEED = 11
START = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)  # Paris sets its clock back three hours later

# -- tickers in simulated time ---------------------------------------------------------------------------------------

SCHEDULES: dict[str, dict[str, Any]] = {
    "minutely": {"cron": "* * * * *", "overlap": "allow"},
    "skips": {"cron": "* * * * *", "overlap": "skip"},
    "latest": {"cron": "*/2 * * * *", "overlap": "allow", "catchup": "latest"},
    "all": {"cron": "*/7 * * * *", "overlap": "queue", "catchup": "all"},
    "paris": {"cron": "30 2,3,17 * * *", "timezone": "Europe/Paris", "overlap": "allow"},
    "period": {"cron": "@every 90s", "overlap": "allow"},
}
# A supervisor without its loop: it reads `now` and ticks, answers how many verdicts it has recorded, and rotates.
TICKER = """
import json, sys
from datetime import datetime
from pathlib import Path
from scheduler.schedule_model import Schedule
from scheduler.state_store import StateStore
from scheduler.ticker import Ticker
from workers.event_log import EventLog

store = StateStore(EventLog(Path(sys.argv[1]), fsync="off"))
store.refresh()
schedules = [Schedule(id, dag="d", **fields) for id, fields in json.loads(sys.argv[2]).items()]
ticker = None
for line in sys.stdin:
    now = datetime.fromisoformat(line.strip())
    ticker = ticker or Ticker(store, schedules, now)
    print(len(ticker.tick(now)), flush=True)
    store.rotate(256 * 1024)
"""


class Racer:
    """One ticker process, which can be told a time without waiting for its answer."""

    def __init__(self, log: Path) -> None:
        command = [sys.executable, "-c", TICKER, str(log), json.dumps(SCHEDULES)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True, bufsize=1
        )

    def tell(self, now: datetime) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{now.isoformat()}\n")

    def answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate()


def _race(log: Path, racers: int, minutes: int) -> int:
    """Send so many processes through so many minutes on one log; return how many of them were killed as they ticked."""
    dice, kills = random.Random(SEED + racers), 0
    field = [Racer(log) for _ in range(racers)]
    try:
        for minute in range(minutes):
            now = START + timedelta(minutes=minute)
            chosen = [racer for racer in field if dice.random() < 0.7] or field[:1]
            for racer in chosen:
                racer.tell(now + timedelta(seconds=dice.choice([0, 1, 29, 30, 30.5, 59.9])))
            if dice.random() < 0.01:
                victim = chosen.pop()
                # Now, or when another is through, which is about when this one has the lock.
                for racer in chosen[:1] if dice.random() < 0.5 else ():
                    racer.answer()
                    chosen.remove(racer)
                victim.end()
                field[field.index(victim)] = Racer(log)
                kills += 1
            for racer in chosen:
                racer.answer()
        # The last moment is for all, so that nothing is left to be judged.
        for racer in field:
            racer.tell(START + timedelta(minutes=minutes - 1, seconds=59.9))
        for racer in field:
            racer.answer()
    finally:
        for racer in field:
            racer.end()
    return kills


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("racers", [2, 3, 5])
def test_tickers_that_race_through_the_minutes_give_each_one_verdict(
    racers: int, tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    """Each sees some of the minutes, with its own idea of the second; some are killed in a tick; segments are short."""
    log, minutes = tmp_path / "state.jsonl", count(500, 10_000)
    kills = _race(log, racers, minutes)
    reader = LogReader(log, from_start=True)
    events = reader.read()
    reader.close()
    told = 0
    for name, fields in SCHEDULES.items():
        walked = timeline(fields.get("timezone", "UTC"), START, minutes)
        fires = Meaning(fields["cron"]).fires(walked)
        assert verdicts(events, name, fires) == dict.fromkeys(fires, 1), name
        told += len(fires)
    assert [key for key, times in enqueued(events).items() if times > 1] == []
    figure(f"{racers} processes, {minutes} minutes, {kills} killed, {told} fire times: each one verdict, 0 twice")


# -- services --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("services", [2, 5])
def test_a_service_takes_over_within_two_ticks_of_the_leaders_death(
    service: Service,
    wait_for: WaitFor,
    services: int,
    count: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    tick_s, kills = 1.0, count(3, 30)
    environ = {"SCHED_TICK_MS": str(int(tick_s * 1000))}
    service.schedule(
        "s", "@every 1s", service.dag("d", 'echo "$RUN_ID $ATTEMPT" >> effects'), catchup="all", overlap="allow"
    )
    standing = {process.pid: process for process in (service.start(**environ) for _ in range(services))}
    took_s: list[float] = []

    def leaders() -> list[int]:
        return [event["pid"] for event in service.events("supervisor_started")]

    wait_for(lambda: leaders() and all(_has_its_place(service, n) for n in range(services)))
    for _ in range(kills):
        before, runs = len(leaders()), len(service.events("run_started"))
        wait_for(lambda runs=runs: len(service.events("run_started")) > runs)
        victim = standing.pop(leaders()[-1])
        killed_at = time.time()
        kill9(victim)
        wait_for(lambda before=before: len(leaders()) > before, timeout=30)
        took_s.append(_at(service.events("supervisor_started")[-1]["timestamp"]) - killed_at)
        fresh = service.start(**environ)
        standing[fresh.pid] = fresh
        wait_for(lambda: _has_its_place(service, -1))
    last = standing[leaders()[-1]]
    others = [process for process in standing.values() if process is not last]
    for process in [*others, last]:
        process.terminate()
        assert process.wait(30) == 0
    minutes = enqueued(service.events())
    assert set(minutes.values()) == {1}
    assert set(service.starts().values()) == {1}
    assert max(Counter((service.root / "effects").read_text("ascii").split("\n")[:-1]).values()) == 1
    fires = sorted(int(_at(minute)) for _, minute in minutes)
    assert fires == list(range(fires[0], fires[-1] + 1))
    assert max(took_s) <= 2 * tick_s
    middle = sorted(took_s)[len(took_s) // 2]
    figure(
        f"{services} services, {kills} leaders killed: taken over in {middle:.2f} s (middle), {max(took_s):.2f} s "
        f"(worst) of {2 * tick_s:g} s; {len(minutes)} fire times, none left out, 0 started twice"
    )


def _has_its_place(service: Service, number: int) -> bool:
    return service.is_ready(number) or "standing by" in service.out(number)


def _at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


# -- scripts/tick_once.sh --------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, its `.venv` as if installed, with a schedule that succeeds and one that fails."""
    root = tmp_path / "checkout"
    for name in ("scheduler", "workers", "scripts"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, root)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    stamp = "".join((root / name).read_text() for name in ("requirements.lock", "pyproject.toml", "scripts/venv.sh"))
    (root / ".venv" / ".installed-requirements").write_text(stamp)
    site = root / ".venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site / "borrowed.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n")
    (root / "dags").mkdir()
    (root / "schedules").mkdir()
    for name, ending in (("good", "true"), ("bad", "exit 3")):
        run = f'echo "$RUN_ID" >> effects; {ending}'
        (root / "dags" / f"{name}.yaml").write_text(json.dumps({"id": name, "tasks": [{"id": "t", "run": run}]}))
        entry = {"id": name, "cron": "* * * * *", "dag": f"dags/{name}.yaml", "overlap": "allow"}
        (root / "schedules" / f"{name}.yaml").write_text(json.dumps([entry]))
    return root


@pytest.mark.slow
def test_parallel_ticks_of_one_checkout_run_each_minute_once(
    checkout: Path, wait_for: WaitFor, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    ours = {variable.name for variable in variables()} | {"PYTHONPATH"}
    env = {key: value for key, value in os.environ.items() if key not in ours} | {"STATE_LOCK_TIMEOUT_S": "100"}
    log, outs = checkout / "logs" / "orchestrator_state.jsonl", []
    log.parent.mkdir()
    # Nobody can write the first line before all have read that there is none.
    lock = Lock(log.with_name(log.name + ".lock"))
    lock.acquire(10)
    ticks = []
    for number in range(count(6, 20)):
        outs.append(checkout / f"{number}.out")
        with open(outs[-1], "wb") as out, open(outs[-1].with_suffix(".err"), "wb") as err:
            script = [checkout / "scripts" / "tick_once.sh"]
            ticks.append(
                subprocess.Popen(script, cwd=checkout, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            )
    wait_for(lambda: all("Running single tick" in out.read_text("utf-8") for out in outs), timeout=60)
    lock.close()
    for tick in ticks:
        tick.wait(60)
    said = [(out.read_text("utf-8"), out.with_suffix(".err").read_text("utf-8")) for out in outs]
    reader = LogReader(log, from_start=True)
    events = reader.read()
    reader.close()
    minutes = enqueued(events)
    assert set(minutes.values()) == {1}
    starts = Counter(event["run_id"] for event in events if event["event"] == "run_started")
    assert set(starts.values()) == {1}
    assert Counter((checkout / "effects").read_text("ascii").split()) == starts
    ends = Counter((event["schedule_id"], event["status"]) for event in events if event["event"] == "run_finished")
    each = len(starts) // 2  # one, or two where the minute changed meanwhile
    assert ends == {("good", "success"): each, ("bad", "failed"): each}
    # Who asked for the run that failed says so, and who led and ran it; all others did nothing.
    for tick, (out, _) in zip(ticks, said, strict=True):
        assert tick.returncode == int("  failed " in out), out
        assert ("Enqueued 2 run(s)" in out) <= ("  failed " in out), out
    assert sum("Enqueued 2 run(s)" in out for out, _ in said) == each
    ended = Counter(tick.returncode for tick in ticks)
    assert [err for _, err in said if "Traceback" in err] == []
    figure(f"{len(ticks)} parallel ticks: {len(starts)} runs, each started once; exit 1 from the {ended[1]} concerned")
