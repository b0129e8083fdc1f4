"""The audit: reads a whole log once and proves or refutes, guarantee by guarantee, that nothing was lost or run twice.

It trusts none of the folds it judges: the books of runs and of fire times are kept here anew, from the lines alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from scheduler.checkpoint import RUN_PARTS
from scheduler.text import counted
from workers.events import Event, decode_line, is_intact, iso
from workers.numbered_lines import Block, numbered_lines

from .arrivals import ArrivalBook
from .backfills import BackfillBook
from .effects import EffectsUnreadable, compare_effects
from .fires import FireBook
from .holds import HoldBook
from .report import TITLES, Finding, Ledger, Report, Violation, shown
from .runs import RunBook
from .services import Services
from .times import seconds

__all__ = ["TITLES", "EffectsUnreadable", "Finding", "Report", "Violation", "audit"]

# As the ticker has it: a fire time is on time through its minute.
_ON_TIME_S = 60.0


def audit(
    path: Path,
    now: datetime,
    *,
    effects: Path | None = None,
    effects_of: Collection[str] = (),
    final: bool = False,
    lateness_s: float = 60.0,
    on_read: Callable[[int, int], object] = lambda _done, _all: None,
) -> Report:
    """Judge the log at `path` as it is at `now` (aware).

    What came due less than `lateness_s` before is not demanded yet. With `final` nothing may be open: the system was
    quiet. `effects` is compared for the runs of the schedules `effects_of`, or of all. An absent log is a clean one.
    Raises LogUnreadable, EffectsUnreadable.
    """
    began = time.monotonic()
    auditor = _Auditor(lateness_s, keeps_outcomes=effects is not None)
    for block in numbered_lines(path, on_read):
        auditor.take(block)
    auditor.conclude(path, now, final=final)
    if effects is not None:
        compare_effects(effects, auditor.runs, auditor.ledger, effects_of)
    return Report(
        log=str(path),
        read_at=iso(now),
        lines=auditor.lines,
        first_seq=auditor.first_seq,
        last_seq=auditor.seq,
        seconds=round(time.monotonic() - began, 3),
        findings=auditor.ledger.findings(),
        violations=auditor.ledger.violations,
        notes=auditor.ledger.notes,
    )


class _Auditor:
    """The walk over the lines: each is judged as a line, then as an event by the book that it belongs to."""

    def __init__(self, lateness_s: float, *, keeps_outcomes: bool) -> None:
        self.ledger = Ledger()
        self.services = Services()
        self.holds = HoldBook(self.ledger)
        self.runs = RunBook(self.ledger, self.services, self.holds, lateness_s, keeps_outcomes=keeps_outcomes)
        self.fires = FireBook(self.ledger, self.services, _ON_TIME_S + lateness_s)
        self.arrivals = ArrivalBook(self.ledger)
        self.backfills = BackfillBook(self.ledger)
        self.lines = self.first_seq = self.seq = 0
        self._lateness_s = lateness_s
        self._is_sealed = False
        # The events of the checkpoint that is being read; None when none is.
        self._checkpoint: list[Event] | None = None
        self._steps: dict[str, Callable[[Event, float], None]] = {
            "schedule_enqueued": self._enqueued,
            "schedule_skipped": self._skipped,
            "schedule_missed": self._missed,
            "schedule_paused": self.holds.pause,
            "schedule_resumed": self.holds.resume,
            "drain_started": lambda *_: self.holds.start_drain(),
            "drain_ended": lambda *_: self.holds.end_drain(),
            "run_requested": self._requested,
            "backfill_requested": lambda event, _: self.backfills.request(event),
            "backfill_cancelled": lambda event, _: self.backfills.cancel(event),
            "backfill_finished": lambda event, _: self.backfills.finish(event),
            "run_started": self.runs.start,
            "run_parked": self.runs.park,
            "run_resumed": self.runs.resume,
            "approval_requested": lambda event, _: self.runs.parks.ask(event),
            "task_approved": self.runs.parks.answer,
            "task_rejected": self.runs.parks.answer,
            "run_finished": self._finished,
            "cancel_requested": self._cancelled,
            "deadline_missed": self.runs.policies.miss_deadline,
            "schedules_loaded": self._loaded,
            "calendars_loaded": lambda event, _: self.fires.load_calendars(event["calendars"]),
            "limits_loaded": self.runs.limits.load,
            "worker_exited": self.runs.workers.bury,
            "clock_jumped": self._clock_jumped,
            "supervisor_started": self._supervisor_started,
            "supervisor_stopped": self._supervisor_stopped,
            "log_repaired": lambda *_: self.ledger.count("G4", "repaired"),
            "segment_started": self._segment_started,
        }

    def take(self, block: Block) -> None:
        """Judge some lines."""
        ledger = self.ledger
        ledger.path = block.path
        if block.is_torn:
            ledger.line = block.first
            ledger.notes.append(
                f"{shown(ledger.place)}: the last line has no end yet; nobody was told that it is written"
            )
            return
        for ledger.line, line in enumerate(block.lines, block.first):
            if not line or line.isspace():
                continue
            self.lines += 1
            self.seq += 1
            event = decode_line(line)
            if event is None:
                damage = (
                    "is no event" if is_intact(line) is None else "is not as it was written: its checksum does not hold"
                )
                ledger.violate("G4", f"this line {damage}: {line[:60]!r}")
                continue
            if event.get("seq") != self.seq:
                self._take_seq(event.get("seq"))
            self.first_seq = self.first_seq or self.seq
            if "crc" in event:
                self._is_sealed = True
            elif self._is_sealed and type(event.get("seq")) is int:
                ledger.violate("G4", "this line has lost its checksum")
            self._apply(event)

    def conclude(self, path: Path, now: datetime, *, final: bool) -> None:
        """Judge what is open at the end."""
        self._use(self._compare_checkpoint)
        self.ledger.line = 0
        self.ledger.path = path
        self.ledger.count("G4", "lines", self.lines)
        until = self.services.demanded_to(now.timestamp(), self._lateness_s)
        looked_s = until if self.services.leader is not None else 0
        self._use(lambda: self.runs.conclude(final=final))
        self._use(lambda: self.runs.policies.conclude(looked_s))
        self._use(lambda: self.runs.children.conclude(looked_s))
        self._use(lambda: self.fires.conclude(until))
        self._use(lambda: self.arrivals.conclude(until))
        self._use(lambda: self.backfills.conclude(final=final))

    def _take_seq(self, seq: object) -> None:
        """Go on from a line that has another number than the one that follows; a line of another hand has none."""
        if type(seq) is not int:
            return
        if self.first_seq:
            what = f"{counted(seq - self.seq, 'line')} missing before it" if seq > self.seq else "it was there before"
            self.ledger.violate("G4", f"this line has the seq {seq}, and {self.seq} is due: {what}")
        self.seq = seq

    def _use(self, step: Callable[[], None]) -> None:
        """Take a step; what another hand wrote may come to nothing that can be judged, and is told."""
        try:
            step()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            self.ledger.violate("G4", f"this event cannot be used: {type(error).__name__}: {error}")

    def _apply(self, event: Event) -> None:
        self._use(lambda: self._take_event(event))

    def _take_event(self, event: Event) -> None:
        name = event["event"]
        now = seconds(event["timestamp"])
        if self._checkpoint is not None:
            if name == "checkpoint":
                self._checkpoint.append(event)
                return
            self._compare_checkpoint()
        if self.services.leader is not None:
            self.services.pass_time(event, now, is_held=self.holds.is_draining)
            self.runs.limits.pass_time()
            if self.services.leads(event) and name != "clock_jumped":  # by that the clock has moved, not time
                self.runs.policies.look(now)
                self.runs.children.look(now)
        if self.runs.workers.dead:
            self.runs.workers.look_after_the_dead(now)
        step = self._steps.get(name)
        if step is not None:
            step(event, now)

    def _missed(self, event: Event, now: float) -> None:
        self.fires.miss(event)
        self.holds.miss(event, now)

    def _enqueued(self, event: Event, now: float) -> None:
        self.holds.judge(event, now)
        if "trigger" in event:
            self.arrivals.judge(event)
        elif event.get("schedule_id") and event.get("minute"):
            self.fires.judge(event, now)
        self.runs.ask(event)

    def _requested(self, event: Event, _now: float) -> None:
        self.backfills.ask(event)
        self.runs.ask(event)

    def _skipped(self, event: Event, now: float) -> None:
        self.holds.judge(event, now)
        if "trigger" in event:
            self.arrivals.judge(event)
        else:
            self.fires.judge(event, now)
        self.runs.skip(event, now)

    def _loaded(self, event: Event, now: float) -> None:
        self.fires.load(event, now)
        self.holds.load(event)
        self.arrivals.load(event)

    def _finished(self, event: Event, now: float) -> None:
        run = self.runs.open.get(event["run_id"])
        self.runs.finish(event, now)
        if run is not None and event["run_id"] not in self.runs.open:
            self.backfills.end(run.request)
            self.arrivals.end(str(run.request.get("schedule_id") or ""), event, int(now))

    def _cancelled(self, event: Event, _now: float) -> None:
        self.runs.policies.cancel(event)
        self.runs.children.cancel(event["run_id"])

    def _clock_jumped(self, event: Event, _now: float) -> None:
        self.fires.set_clock(event)
        self.runs.set_clock()

    def _supervisor_started(self, event: Event, now: float) -> None:
        self.services.lead(event, now)
        self.runs.lead()
        self.fires.lead()

    def _supervisor_stopped(self, event: Event, _now: float) -> None:
        if self.services.leads(event):
            self.runs.stop()
            self.services.stop()

    def _segment_started(self, _event: Event, _now: float) -> None:
        self._checkpoint = []

    def _compare_checkpoint(self) -> None:
        """Compare the checkpoint that has just ended with the books, or begin the books with it."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return
        runs = {event["run"]["run_id"]: event["run"] for event in checkpoint if "run" in event}
        for event in checkpoint:
            for part in event.keys() & set(RUN_PARTS):
                run_id, facts = event[part]
                runs[run_id][part].update(facts)
        limits: Event = next(
            (event["limits"] for event in checkpoint if "limits" in event), {"pools": {}, "tenants": {}}
        )
        rows = [row for event in checkpoint for row in event.get("schedules", ())]
        calendars = {name: days for event in checkpoint for name, days in event.get("calendars", {}).items()}
        waits = [row for event in checkpoint for row in event.get("arrivals", ())]
        is_first = self.lines <= len(checkpoint) + 2 and self.first_seq > 1
        if not is_first:
            self.runs.compare(list(runs.values()))
            self.runs.limits.compare(limits)
            self.fires.compare(rows, calendars)
            self.arrivals.compare(waits)
            return
        self.ledger.notes.append(f"what was before seq {self.first_seq} is gone; its checkpoint is taken for it")
        for event in checkpoint:
            if "supervisor" in event:
                self.services.lead(event["supervisor"], seconds(event["timestamp"]))
        self.runs.limits.load(limits, 0.0)
        self.fires.load_calendars(calendars)
        for event in checkpoint:
            self.holds.restore(event.get("pauses", []))
            self.backfills.restore(event)
            if "drain" in event:
                self.holds.start_drain()
        for row in rows:
            self.fires.restore(row)
            self.holds.know(row[0], row[-1])
            self.arrivals.know(row[0], row[-1])
        for row in waits:
            self.arrivals.restore(row)
        for event in checkpoint:
            for kind in {"judged", "others"} & event.keys():
                self.fires.restore_points(*event[kind])
        for run in runs.values():
            self.runs.restore(run, runs)
