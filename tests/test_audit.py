"""The audit: a good log is clean, and whatever is done to it shows."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from service import Service, kill9
from story import START, Story

from scheduler.audit import Report, audit
from workers.events import decode_line, encode_line
from workers.segments import list_segments

WaitFor = Callable[..., None]
Event = dict[str, Any]
EVERY_MINUTE = {"id": "skips", "cron": "* * * * *"}
SCHEDULES: list[dict[str, Any]] = [
    EVERY_MINUTE,
    {"id": "retries", "cron": "*/2 * * * *", "retries": {"max": 2, "delay": "10s"}, "overlap": "allow"},
    {"id": "queues", "cron": "* * * * *", "overlap": "queue"},
    {"id": "again", "cron": "*/3 * * * *", "retry_on_crash": True, "overlap": "allow"},
    {"id": "paris", "cron": "30 * * * *", "timezone": "Europe/Paris", "catchup": "latest"},
]
BOUNDED = {"start_deadline": "90s", "deadline": "150s", "on_deadline": "dags/page.yaml"}
POLICIES: list[dict[str, Any]] = [
    {"id": "replaces", "cron": "* * * * *", "overlap": "replace", "jitter": "20s"},
    {"id": "bounded", "cron": "* * * * *", "overlap": "queue", "max_queued": 2, **BOUNDED},
    {"id": "some", "cron": "*/5 * * * *", "catchup": "all", "overlap": "allow", "catchup_max": 2, "deadline": "50s"},
    {"id": "follows", "after": ["queues", {"schedule": "paris", "status": "any"}]},
    {"id": "pages", "after": {"schedule": "queues", "status": ["failed", "crashed"]}, "overlap": "queue"},
]


def long_story(path: Path, seed: int) -> Story:
    """A log with all that can happen in it: edits, rotations, crashes, downtime, a clock that is set, a good end."""
    story = Story(path, seed=seed)
    story.begin(*SCHEDULES, *POLICIES)
    story.live(10)
    story.ask("asked.by.another")
    story.live(5)
    story.rotate()
    story.load(*SCHEDULES[1:], *POLICIES, {"id": "skips", "cron": "*/2 * * * *"})
    story.live(8)
    story.die()
    story.now += timedelta(minutes=47)
    story.begin(*SCHEDULES[:4], *POLICIES)
    story.recover()
    story.live(8)
    story.set_clock(story.now + timedelta(hours=3))
    story.live(3)
    story.set_clock(story.now - timedelta(hours=3))
    story.rotate()
    story.live(8)
    story.drain()
    story.stop()
    return story


def judge(story: Story, path: Path, **options: Any) -> Report:
    effects = path.with_name("effects")
    effects.write_text("".join(f"{effect}\n" for effect in story.effects), "ascii")
    return audit(path, story.now, effects=effects, final=True, **options)


def lines_of(path: Path) -> list[bytes]:
    return [line for segment in list_segments(path) for line in segment.path.read_bytes().splitlines(keepends=True)]


def write_anew(path: Path, events: list[Event]) -> Path:
    """Write events as one log, numbered and sealed as if they had been recorded so."""
    kept = [{name: value for name, value in event.items() if name != "crc"} for event in events]
    path.write_bytes(b"".join(encode_line({**event, "seq": seq}) for seq, event in enumerate(kept, 1)))
    return path


def events_of(path: Path) -> list[Event]:
    """Return the events of a log without its checkpoints, so that its segments can be written as one."""
    found = [event for event in map(decode_line, lines_of(path)) if event is not None]
    return [event for event in found if event["event"] not in ("checkpoint", "segment_started")]


# -- a good log is clean ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_history_with_everything_in_it_is_clean(tmp_path: Path, seed: int) -> None:
    story = long_story(tmp_path / "log", seed)
    report = judge(story, tmp_path / "log")
    assert report.violations == []
    assert {finding.guarantee: finding.verdict for finding in report.findings} == dict.fromkeys(
        ("G1", "G2", "G3", "G4", "G5", "G6", "G8", "G11", "overlap", "lateness", "deadline", "effects"), "proved"
    )
    counts = {finding.guarantee: finding.counts for finding in report.findings}
    assert counts["G5"]["checkpoints"] == 2
    assert counts["G11"]["jumps"] == 2
    assert counts["G1"]["starts"] == counts["effects"]["effects"] == len(story.effects)


@pytest.mark.parametrize("gone", [1, 2])
def test_a_log_whose_oldest_segments_are_gone_is_judged_from_its_checkpoint_on(tmp_path: Path, gone: int) -> None:
    path = tmp_path / "log"
    story = long_story(path, 3)
    for segment in list_segments(path)[:gone]:
        segment.path.unlink()
    report = audit(path, story.now, final=True)
    assert report.violations == []
    assert report.first_seq > 1
    assert any("is gone; its checkpoint is taken for it" in note for note in report.notes)


def test_a_real_service_that_is_killed_and_killed_leaves_a_clean_log(service: Service, wait_for: WaitFor) -> None:
    dag = service.dag("d", 'echo "$RUN_ID $ATTEMPT" >> effects; sleep 0.3')
    service.schedule("every", "@every 1s", dag, catchup="latest", overlap="queue", retry_on_crash=True)
    for _ in range(2):
        supervisor = service.start()
        before = len(service.events("run_started"))
        wait_for(lambda before=before: len(service.events("run_started")) > before)
        wait_for(lambda supervisor=supervisor: service.workers(supervisor))
        kill9(service.workers(supervisor)[0])
        wait_for(lambda: service.events("worker_exited"))
        kill9(supervisor)
    supervisor = service.start()
    wait_for(lambda: len(service.events("supervisor_started")) == 3 and service.is_ready())
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    audited = tickpool(service, "audit", "--effects", "effects", "--json")
    report = json.loads(audited.stdout)
    assert (audited.returncode, report["violations"], report["is_clean"]) == (0, [], True)


def test_a_log_that_is_being_written_is_clean_too(service: Service, wait_for: WaitFor) -> None:
    service.schedule("every", "@every 1s", service.dag("d", "sleep 5"), overlap="allow")
    service.start()
    wait_for(lambda: len(service.events("run_started")) == 2)
    audited = tickpool(service, "audit")
    assert audited.returncode == 0, audited.stdout
    assert "2 runs at work" in audited.stdout
    # The same moment, called quiet, is not.
    audited = tickpool(service, "audit", "--final")
    assert audited.returncode == 1
    assert audited.stdout.count("has no end") == 2


def tickpool(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scheduler.cli", *words]
    return subprocess.run(command, cwd=service.root, env=service.env(), capture_output=True, text=True, timeout=30)


# -- whatever is done to it shows ---------------------------------------------------------------------------------


def of_kind(*names: str) -> Callable[[Event], bool]:
    return lambda event: event["event"] in names


TOLD = of_kind(
    *("schedule_enqueued", "schedule_skipped", "schedule_missed", "run_requested", "run_started", "run_finished")
)


TOLD_OF_POLICIES = of_kind("cancel_requested", "deadline_missed")


class Mutation:
    """One illegal change of a history and its effects, chosen at random; sealed and numbered again it looks genuine."""

    def __init__(self, events: list[Event], effects: list[str], rng: random.Random) -> None:
        self.events, self.effects, self.rng = events, effects, rng
        self.done = ""

    def apply(self) -> None:
        kinds = (self.drop, self.double, self.swap, self.alter, self.alter_end, self.alter_missed, self.alter_effects)
        kinds += (self.alter_policy,)
        while not self.done:
            self.rng.choice(kinds)()

    def pick(self, is_fit: Callable[[Event], bool]) -> int | None:
        fit = [place for place, event in enumerate(self.events) if is_fit(event)]
        return self.rng.choice(fit) if fit else None

    def drop(self) -> None:
        place = self.pick(TOLD_OF_POLICIES if self.rng.random() < 0.2 else TOLD)
        self.done = f"drop {self.events.pop(place or 0)}"

    def double(self) -> None:
        place = self.pick(TOLD) or 0
        again = self.rng.randrange(place, len(self.events)) + 1
        self.events.insert(again, self.events[place])
        self.done = f"double {self.events[place]}"

    def swap(self) -> None:
        """Change the order of two events of one run that follow each other."""
        first = self.pick(lambda event: TOLD(event) and "run_id" in event) or 0
        run_id = self.events[first]["run_id"]
        later = (at for at in range(first + 1, len(self.events)) if TOLD(self.events[at]))
        second = next((at for at in later if self.events[at].get("run_id") == run_id), None)
        if second is not None:
            self.events[first], self.events[second] = self.events[second], self.events[first]
            self.done = f"swap {self.events[second]} and {self.events[first]}"

    def alter(self) -> None:
        """Give an event of a run or a verdict another identity."""
        place = self.pick(TOLD) or 0
        event = self.events[place]
        names = ("run_id", "schedule_id", "minute", "attempt", "open_run", "dag", "trigger")
        name = self.rng.choice([name for name in names if event.get(name)])
        if name == "dag" and "minute" not in event:
            return  # what another process asks for is its own affair
        other: Event = {"attempt": event.get("attempt", 1) + self.rng.choice([-1, 1, 5])}
        other |= {"minute": "2026-03-01T12:00:30Z", "trigger": {"after": {"queues": "queues.20260301T1201Z"}}}
        self.events[place] = {**event, name: other.get(name, f"{event[name]}x")}
        self.done = f"alter {name} of {event}"

    def alter_policy(self) -> None:
        """Give what a policy did another reason, or another measure."""
        place = self.pick(lambda event: TOLD_OF_POLICIES(event) or event["event"] == "schedule_skipped") or 0
        event = self.events[place]
        names = ("run_id", "schedule_id", "minute", "reason", "by", "deadline", "waiting", "start_by")
        name = self.rng.choice([name for name in names if name in event])
        reasons = {"overlap", "max_queued", "start_deadline", "replaced", "redefined", "weather"}
        times = ["2026-03-01T11:00:00Z", "2026-03-02T12:00:00Z"]
        others = {
            "reason": sorted(reasons - {event.get("reason")}),
            "waiting": [event.get("waiting", 0) + 1, 0],
            "start_by": times,
        }
        self.events[place] = {**event, name: self.rng.choice(others.get(name, [f"{event[name]}x"]))}
        self.done = f"alter {name} of {event}"

    def alter_end(self) -> None:
        place = self.pick(of_kind("run_finished")) or 0
        event = self.events[place]
        kind = self.rng.choice(["status", "next", "reason"])
        if kind == "status":
            others = {"success": ["failed", "timeout", "crashed", "done"], "crashed": ["success", "failed", "timeout"]}
            other = {**event, "status": self.rng.choice(others.get(event["status"], ["success", "crashed", "lost"]))}
        elif kind == "next":
            other = {**event, "next_attempt": event.get("next_attempt", 1) + 1, "retry_at": event["timestamp"]}
            if event.get("next_attempt") and self.rng.random() < 0.5:
                del other["next_attempt"]
        else:
            other = {**event, "reason": "task `t`: failed" if event["status"] == "success" else None}
        self.events[place] = other
        self.done = f"alter {kind} of {event}"

    def alter_missed(self) -> None:
        place = self.pick(of_kind("schedule_missed"))
        if place is None:
            return
        event = self.events[place]
        others: list[Event] = [{"count": event["count"] + self.rng.choice([-1, 1])}]
        others += [{"from": "2026-03-01T12:00:00Z"}, {"to": "2026-03-02T12:00:00Z"}, {"reason": ""}]
        self.events[place] = {**event, **self.rng.choice(others)}
        self.done = f"alter {event}"

    def alter_effects(self) -> None:
        succeeded = {
            f"{event['run_id']} {event['attempt']}"
            for event in self.events
            if event["event"] == "run_finished" and event["status"] == "success"
        }
        place = self.rng.choice([place for place, effect in enumerate(self.effects) if effect in succeeded])
        effect = self.effects[place]
        self.effects[place : place + 1] = self.rng.choice([[], [effect, effect], [f"{effect}9"], [f"x{effect}"]])
        self.done = f"effect {effect}"


@pytest.mark.parametrize("seed", range(8))
def test_every_illegal_change_of_a_history_is_caught_though_it_was_sealed_again(tmp_path: Path, seed: int) -> None:
    story = long_story(tmp_path / "log", seed)
    good, effects, path = events_of(tmp_path / "log"), list(story.effects), tmp_path / "mutant" / "log"
    path.parent.mkdir()
    assert judge(story, write_anew(path, good)).violations == []
    missed = []
    for number in range(100):
        mutation = Mutation(list(good), list(effects), random.Random(f"{seed}.{number}"))
        mutation.apply()
        story.effects = mutation.effects
        if judge(story, write_anew(path, mutation.events)).is_clean:
            missed.append(mutation.done)
    assert missed == []


@pytest.mark.parametrize("seed", range(4))
def test_every_change_of_the_bytes_of_a_log_is_caught(tmp_path: Path, seed: int) -> None:
    story = long_story(tmp_path / "log", seed)
    lines, rng, path = lines_of(tmp_path / "log"), random.Random(seed), tmp_path / "mutant" / "log"
    path.parent.mkdir()
    first = list_segments(tmp_path / "log")[-1].first_seq - 1
    lines = lines[first:]
    for number in range(150):
        mutant = list(lines)
        # Of a log whose last line is cut off nobody can say that it was longer once.
        place, other = rng.sample(range(len(lines) - 1), 2)
        kind = ("drop", "double", "swap", "flip")[number % 4]
        if kind == "drop":
            del mutant[place]
        elif kind == "double":
            mutant.insert(other, mutant[place])
        elif kind == "swap":
            mutant[place], mutant[other] = mutant[other], mutant[place]
        else:
            damaged = bytearray(mutant[place])
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            mutant[place] = bytes(damaged)
        path.write_bytes(b"".join(mutant))
        report = audit(path, story.now, final=True)
        assert not report.is_clean, (kind, place, other)
        assert any(found.guarantee == "G4" for found in report.violations) or kind == "drop", (kind, place, other)


# -- what it says -------------------------------------------------------------------------------------------------


def said(events: list[Event], path: Path, **options: Any) -> list[str]:
    now = START + timedelta(hours=12)
    report = audit(write_anew(path, events), now, **{"final": True, **options})
    return [str(found).removeprefix(f"{path.parent}/") for found in report.violations]


@pytest.fixture
def short(tmp_path: Path) -> list[Event]:
    """The events of four minutes of one schedule, under one service."""
    story = Story(tmp_path / "short", seed=2, workers=1)
    story.begin(EVERY_MINUTE)
    story.live(4)
    story.drain()
    story.stop()
    return events_of(tmp_path / "short")


def at(events: list[Event], name: str, number: int = 0) -> int:
    return [place for place, event in enumerate(events) if event["event"] == name][number]


def test_a_start_that_nobody_asked_for(short: list[Event], tmp_path: Path) -> None:
    del short[at(short, "schedule_enqueued")]
    told = said(short, tmp_path / "log")
    assert "log:3: G2: run `skips.20260301T1200Z` starts, and nobody has asked for it" in told
    assert any("G3: fire time 2026-03-01T12:00:00Z of `skips` has no verdict" in line for line in told)


def test_a_second_start(short: list[Event], tmp_path: Path) -> None:
    place = at(short, "run_started")
    short.insert(place + 1, {**short[place], "pid": 4711})
    text = "G1: run `skips.20260301T1200Z` starts attempt 1 while attempt 1 runs"
    assert said(short, tmp_path / "log")[0] == f"log:{place + 2}: {text}"


def test_a_retry_that_nobody_allowed(short: list[Event], tmp_path: Path) -> None:
    place = at(short, "run_finished")
    short[place] = {**short[place], "next_attempt": 2, "retry_at": short[place]["timestamp"]}
    assert said(short, tmp_path / "log")[0].endswith("goes on with attempt 2; its request says None")


def test_a_fire_time_that_the_expression_has_not(short: list[Event], tmp_path: Path) -> None:
    loaded = at(short, "schedules_loaded")
    short[loaded] = json.loads(json.dumps(short[loaded]).replace("* * * * *", "*/2 * * * *"))
    told = said(short, tmp_path / "log")
    assert any(line.endswith("2026-03-01T12:01:00Z is judged, and is no fire time of `skips`") for line in told)


def test_a_verdict_of_a_service_on_a_schedule_that_was_never_loaded(short: list[Event], tmp_path: Path) -> None:
    del short[at(short, "schedules_loaded")]
    assert "is judged, and `skips` is not in force" in said(short, tmp_path / "log")[0]


def test_verdicts_of_no_service_on_a_schedule_that_was_never_loaded_prove_nothing(
    short: list[Event], tmp_path: Path
) -> None:
    events = [event for event in short if event["event"] not in ("schedules_loaded", "supervisor_started")]
    report = audit(write_anew(tmp_path / "log", events), START, final=True)
    assert report.is_clean
    assert any("no definition of 1 schedule is on record (skips)" in note for note in report.notes)


def test_a_run_that_waits_while_a_worker_is_free(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", workers=1)
    story.begin(EVERY_MINUTE)
    story.ask("waits")
    story.now += timedelta(minutes=5)
    story.record("schedule_invalid", file="x", line=1, col=1, reason="a sign of life", load="1")
    story.start_runs()
    story.stop()
    report = audit(tmp_path / "log", story.now)
    assert [str(found).partition(": ")[2] for found in report.violations if found.guarantee == "lateness"] == [
        "lateness: run `waits` waited for 300.0 s while a worker was free"
    ]


def test_a_run_that_waits_for_a_worker_waits_with_a_reason(tmp_path: Path) -> None:
    story = Story(tmp_path / "log", workers=1)
    story.begin({"id": "rare", "cron": "0 0 1 1 *"})
    story.ask("first")
    story.start_runs()
    story.ask("second")
    story.now += timedelta(minutes=5)
    story.drain()
    story.stop()
    assert audit(tmp_path / "log", story.now, final=True).violations == []


def test_a_fire_time_that_is_judged_too_late_without_a_catch_up(short: list[Event], tmp_path: Path) -> None:
    place = at(short, "schedule_enqueued")
    late = (START + timedelta(minutes=5)).isoformat()
    short[place:] = [{**event, "timestamp": late} for event in short[place:]]
    assert said(short, tmp_path / "log")[0].endswith(
        "fire time 2026-03-01T12:00:00Z of `skips` is judged 300.0 s late, and not as caught up"
    )


def test_runs_that_overlap_against_their_policy(short: list[Event], tmp_path: Path) -> None:
    ends = [event for event in short if event["event"] == "run_finished"]
    others = [event for event in short if event["event"] not in ("run_finished", "supervisor_stopped")]
    told = said([*others, *ends, short[-1]], tmp_path / "log")
    text = "is enqueued while `skips.20260301T1200Z` is open, with `overlap: skip`"
    assert any(line.endswith(text) for line in told)


@pytest.mark.parametrize("change", ["drop", "double", "later", "other_runs"])
def test_verdicts_on_what_a_schedule_waited_for(tmp_path: Path, change: str) -> None:
    story = Story(tmp_path / "story", seed=2)
    story.begin(EVERY_MINUTE, {"id": "follows", "after": "skips", "overlap": "skip"})
    story.live(9)
    story.drain()
    story.stop()
    events = events_of(tmp_path / "story")
    assert audit(write_anew(tmp_path / "log", events), story.now, final=True).violations == []
    verdicts = [place for place, event in enumerate(events) if "trigger" in event]
    place = verdicts[len(verdicts) // 2]
    event = events[place]
    others = {
        "drop": [],
        "double": [event, event],
        "later": [{**event, "minute": "2026-03-01T12:30:00Z"}],
        "other_runs": [{**event, "trigger": {"after": {"skips": "skips.20260301T0000Z"}}}],
    }
    events[place : place + 1] = others[change]
    assert not audit(write_anew(tmp_path / "log", events), story.now, final=True).is_clean


def test_a_service_that_stops_and_leaves_a_run_open(short: list[Event], tmp_path: Path) -> None:
    del short[at(short, "run_finished", -1)]
    told = said(short, tmp_path / "log", final=False)
    assert [line.partition(": ")[2] for line in told if "G8" in line] == [
        f"G8: run `{short[at(short, 'run_started', -1)]['run_id']}` is open when its service has stopped"
    ]


def test_a_worker_that_is_dead_and_still_has_a_run(short: list[Event], tmp_path: Path) -> None:
    place = at(short, "run_started")
    dead = {**short[place], "event": "worker_exited", "worker_pid": short[place]["pid"], "reason": "was killed"}
    short.insert(place + 1, dead)
    assert any(" s after its worker died" in line for line in said(short, tmp_path / "log"))


def test_a_leader_that_lives_owes_what_is_due_by_now(service: Service, wait_for: WaitFor) -> None:
    service.schedule("every", "@every 2s", service.dag("d", "true"))
    supervisor = service.start()
    wait_for(lambda: service.events("run_finished"))
    supervisor.send_signal(signal.SIGSTOP)
    late = tickpool(service, "audit", "--at", "2100-01-01T00:00:00Z")
    assert late.returncode == 1
    assert "of `every` has no verdict" in late.stdout
    assert tickpool(service, "audit").returncode == 0


def test_what_is_open_in_older_segments_must_be_in_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log"
    long_story(path, 2)
    lines = lines_of(path)
    kept = [line for line in lines if b'"event":"checkpoint"' not in line or b'"run":{' not in line]
    assert len(kept) < len(lines)
    events = [decode_line(line) or {} for line in kept]
    assert any("is open only in the older segments" in line for line in said(events, tmp_path / "one"))


def test_lines_of_another_hand_and_a_torn_tail_are_told_and_are_no_violation(
    short: list[Event], tmp_path: Path
) -> None:
    path = write_anew(tmp_path / "log", short)
    with path.open("ab") as file:
        file.write(b'{"event":"note","timestamp":"2026-03-01T13:00:00Z","by":"hand"}\n\n{"event":"torn')
    report = audit(path, START, final=True)
    assert report.is_clean
    assert [note for note in report.notes if "has no end yet" in note]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"\0\xff garbage\n", "G4: this line is no event"),
        (b'{"event":"run_started","timestamp":"2026-03-01T13:00:00Z"}\n', "G4: this event cannot be used: KeyError"),
        (b'{"event":"run_started","run_id":[],"timestamp":"2026-03-01T13:00:00Z"}\n', "G4: this event cannot be used"),
        (b'{"event":"x","timestamp":12}\n', "G4: this event cannot be used"),
        (b'{"event":"x","timestamp":"2026-03-01T13:00:00Z","seq":99999}\n', "lines missing before it"),
        (b"[" * 3_000_000 + b"\n", "G4: this line is no event"),
    ],
    ids=["bytes", "no fields", "wrong type", "no time", "seq", "endless"],
)
def test_a_line_that_cannot_be_used_is_a_violation_and_stops_nothing(
    short: list[Event], tmp_path: Path, line: bytes, text: str
) -> None:
    path = write_anew(tmp_path / "log", short)
    with path.open("ab") as file:
        file.write(line)
    assert [found for found in audit(path, START, final=True).violations if text in str(found)]


@pytest.mark.parametrize(
    ("effects", "text"),
    [
        ("skips.20260301T1200Z\n", "'skips.20260301T1200Z' is no line `RUN_ID ATTEMPT`"),
        ("skips.20260301T1200Z 1\n" * 2, "has a second effect; the first: "),
        ("skips.20260301T1200Z 2\n", "attempt 2 has an effect, and no start on record"),
        ("", "is success, and has no effect"),
    ],
)
def test_effects_that_do_not_fit(short: list[Event], tmp_path: Path, effects: str, text: str) -> None:
    file = tmp_path / "effects"
    file.write_text(effects, "ascii")
    assert any(text in line for line in said(short, tmp_path / "log", effects=file))
    other = said(short, tmp_path / "log", effects=file, effects_of=["another"])
    assert not [line for line in other if "has no effect" in line]


# -- the command --------------------------------------------------------------------------------------------------


def test_the_command_names_each_violation_and_exits_with_1(service: Service, short: list[Event]) -> None:
    service.log.parent.mkdir()
    place = at(short, "run_started")
    write_anew(service.log, [*short[: place + 1], short[place], *short[place + 1 :]])
    audited = tickpool(service, "audit", "--final")
    assert audited.returncode == 1
    assert f"orchestrator_state.jsonl:{place + 2}: G1: run `skips.20260301T1200Z` starts attempt 1" in audited.stdout
    assert "  G1        1 WRONG     no attempt starts twice" in audited.stdout
    assert audited.stdout.endswith("\nNOT clean\n")
    assert audited.stderr == ""
    report = json.loads(tickpool(service, "audit", "--final", "--json").stdout)
    assert not report["is_clean"]
    assert report["violations"][0]["guarantee"] == "G1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audit"], "logs/orchestrator_state.jsonl: cannot be read: there is no such log"),
        (["audit", "--log", "schedules"], "schedules: cannot be read: not a regular file"),
        (["audit", "--log", "log", "--effects", "none"], "none: cannot be read: No such file or directory"),
        (["audit", "--log", "log", "--at", "tomorrow"], "--at 'tomorrow': write an ISO 8601 time with its zone"),
        (["audit", "--log", "log", "--lateness", "soon"], "soon"),
    ],
)
def test_what_cannot_be_audited_is_one_line_and_exit_code_2(service: Service, words: list[str], said: str) -> None:
    (service.root / "log").touch()
    audited = tickpool(service, *words)
    assert (audited.returncode, audited.stdout) == (2, "")
    assert said in audited.stderr
    assert audited.stderr.count("\n") == 1


def test_a_copy_is_judged_as_it_was_when_it_was_made(service: Service, wait_for: WaitFor) -> None:
    service.schedule("every", "@every 1s", service.dag("d", "true"))
    service.start()
    wait_for(lambda: service.events("run_finished"))
    shutil.copy(service.log, service.root / "copy")
    last = service.events()[-1]["timestamp"]
    audited = tickpool(service, "audit", "--log", "copy", "--at", last)
    assert audited.returncode == 0, audited.stdout
