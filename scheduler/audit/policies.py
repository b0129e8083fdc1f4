"""The book of policies: what a run's own terms demand of its start and its end, and what stood in a fire time's way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from scheduler.schedule_model import CLOSED
from workers.events import Event

from .report import Ledger, Place
from .services import Services
from .times import seconds

__all__ = ["PolicyBook"]

# Times that a request names are compared with those of other processes on one machine, and a clock may be slewed.
_SLACK_S = 1.0
# What a request says of moments.
_TERMS = ("not_before", "start_by", "deadline")
# How the reason of an end begins for which somebody has asked.
_ASKED = (
    *("cancelled: replaced by ", "cancelled: asked for by ", "cancelled: task `"),
    "cancelled: the run that asked for it has ended",
)
_SKIPS = ("overlap", "max_queued", "start_deadline", "paused", *CLOSED)


class _Terms(msgspec.Struct):
    """The moments of an open run, seconds since the epoch, and whether somebody has asked for its end.

    `noticed_s` is when the leader was first heard of after the deadline.
    """

    place: Place
    request: Event
    not_before_s: float | None
    start_by_s: float | None
    deadline_s: float | None
    noticed_s: float | None = None
    cancel: Event | None = None
    is_told: bool = False


class PolicyBook:
    """The terms of the runs that are open: cancels, deadlines, times before and by which to start."""

    def __init__(self, ledger: Ledger, services: Services, lateness_s: float) -> None:
        self._ledger = ledger
        self._services = services
        self._lateness_s = lateness_s
        self._terms: dict[str, _Terms] = {}
        # Runs with a deadline that nobody has told of yet; the runs that a `replace` has to cancel, and for which one;
        # the runs that are to tell of a deadline.
        self._untold: dict[str, None] = {}
        self._to_cancel: dict[str, tuple[str, Place]] = {}
        self._to_tell: dict[str, tuple[object, Place]] = {}
        self._missed = 0

    def ask(self, event: Event, others: Mapping[str, bool]) -> float:
        """Take in a request; `others` are the open runs of its schedule, and whether each of them waits.

        Return the time before which it may not start, seconds since the epoch.
        """
        run_id, limit = event["run_id"], event.get("max_queued")
        if event.get("for_run") and self._to_tell.pop(run_id, (None,))[0] != event.get("dag"):
            self._ledger.violate("deadline", f"run `{run_id}` tells of a deadline that nobody has missed")
        terms = self._open(run_id, event)
        self._check_terms(run_id, event, terms)
        if event.get("overlap") == "replace":
            place = self._ledger.place
            self._to_cancel.update((name, (run_id, place)) for name in others if self._terms[name].cancel is None)
        if limit is not None and (waiting := sum(others.values())) >= limit:
            self._ledger.violate("overlap", f"run `{run_id}` is enqueued behind {waiting}, with `max_queued: {limit}`")
        return terms.not_before_s or 0.0

    def restore(self, run: Event) -> None:
        """Take an open run from a checkpoint."""
        terms = self._open(run["run_id"], run["request"])
        terms.cancel = run.get("cancel")
        if run.get("is_deadline_told"):
            self._tell(run["run_id"], terms)

    def skip(self, event: Event, now: float, others: Mapping[str, bool]) -> None:
        """Take in a `schedule_skipped`: what it says stood in its way must have done so."""
        name, reason = event["schedule_id"], event.get("reason")
        text = f"schedule `{name}` is skipped at {event['minute']}"
        if reason == "overlap" and event.get("open_run") not in self._terms:
            what = f"schedule `{name}` is skipped for run `{event.get('open_run')}`, which is not open"
            self._ledger.violate("overlap", what)
        elif reason == "max_queued" and not 0 < event["waiting"] == sum(others.values()):
            self._ledger.violate("overlap", f"{text} behind {event['waiting']}, and {sum(others.values())} wait")
        elif reason == "start_deadline" and not seconds(event["minute"]) < seconds(event["start_by"]) <= now + _SLACK_S:
            self._ledger.violate("lateness", f"{text} as too late, and it had until {event['start_by']}")
        elif reason not in (*_SKIPS, "redefined" if "trigger" in event else None):
            self._ledger.violate("G3", f"{text}, and its reason is none: {reason!r:.80}")

    def cancel(self, event: Event) -> None:
        """Take in a `cancel_requested`; of a run that is not open it means nothing."""
        run_id, terms = event["run_id"], self._terms.get(event["run_id"])
        if terms is None:
            return
        terms.cancel = terms.cancel or event
        demanded = self._to_cancel.get(run_id)
        if demanded is not None and (event.get("reason"), event.get("by")) == ("replaced", demanded[0]):
            del self._to_cancel[run_id]
        elif event.get("reason") == "replaced":
            self._ledger.violate(
                "overlap", f"run `{run_id}` is cancelled for `{event.get('by')}`, which replaces it not"
            )

    def start(self, run_id: str, attempt: int, now: float, *, is_again: bool = False) -> None:
        """Take in a start; `is_again` says that the attempt was parked."""
        terms, ledger = self._terms[run_id], self._ledger
        if terms.not_before_s is not None and terms.not_before_s > now + _SLACK_S:
            early_s = terms.not_before_s - now
            ledger.violate("lateness", f"run `{run_id}` starts {early_s:.1f} s before its `not_before`")
        if terms.start_by_s is not None and attempt == 1 and not is_again and now > terms.start_by_s + self._lateness_s:
            late_s = now - terms.start_by_s
            ledger.violate("lateness", f"run `{run_id}` starts {late_s:.1f} s after its `start_by`")
        if terms.cancel is not None:
            ledger.violate("overlap", f"run `{run_id}` starts after it was cancelled")

    def end_unstarted(self, event: Event, attempt: int, now: float) -> bool:
        """Say whether an attempt may end without a start: it was cancelled, or too late to start."""
        terms = self._terms[event["run_id"]]
        if event.get("status") != "cancelled" or not event.keys().isdisjoint(("next_attempt", "tasks")):
            return False
        if event.get("reason") == "start_deadline":
            return attempt == 1 and terms.start_by_s is not None and terms.start_by_s <= now + _SLACK_S
        return self._is_asked(event, terms)

    def end(self, event: Event, now: float) -> None:
        """Take in an end, whatever follows."""
        run_id, reason = event["run_id"], str(event.get("reason"))
        terms = self._terms[run_id]
        if reason.startswith(_ASKED) and not self._is_asked(event, terms):
            self._ledger.violate("overlap", f"run `{run_id}` ends as {reason!r:.200}, and nobody has asked for that")
        if not event.get("next_attempt"):
            self._look_at(run_id, terms, now)
            del self._terms[run_id]
            self._untold.pop(run_id, None)

    def miss_deadline(self, event: Event, now: float) -> None:
        """Take in a `deadline_missed`."""
        run_id, ledger = event["run_id"], self._ledger
        terms = self._terms.get(run_id)
        self._missed += 1
        if terms is None:
            ledger.violate("deadline", f"run `{run_id}` misses its deadline, and is not open")
        elif terms.is_told:
            ledger.violate("deadline", f"run `{run_id}` misses its deadline again")
        elif terms.deadline_s is None or event.get("deadline") != terms.request.get("deadline"):
            ledger.violate("deadline", f"run `{run_id}` misses a deadline that its request has not")
        elif any(event.get(name) != terms.request.get(name) for name in ("schedule_id", "minute")):
            ledger.violate("deadline", f"run `{run_id}` misses the deadline of another run")
        elif terms.deadline_s > now + _SLACK_S:
            ledger.violate("deadline", f"run `{run_id}` misses its deadline {terms.deadline_s - now:.1f} s before it")
        if terms is not None and not terms.is_told:
            self._tell(run_id, terms)
            if terms.request.get("on_deadline"):
                self._to_tell[f"{run_id}.deadline"] = terms.request["on_deadline"], ledger.place

    def look(self, now: float) -> None:
        """Take in that the leader is heard of: deadlines that have passed for a while must be on record."""
        for run_id in list(self._untold):
            self._look_at(run_id, self._terms[run_id], now)

    def lead(self) -> None:
        """Take in that another service begins to lead: what the one before was slow to tell, it had no time for."""
        for run_id in self._untold:
            self._terms[run_id].noticed_s = None

    def set_clock(self) -> None:
        """Take in that the clock was set: the moments that requests name are those of the clock before."""
        for terms in self._terms.values():
            terms.not_before_s = terms.noticed_s = None

    def conclude(self, now: float) -> None:
        """Judge what is owed where the log ends, by which a leader that lives has looked until `now`."""
        for run_id in list(self._untold):
            terms = self._terms[run_id]
            if terms.deadline_s is not None and now > terms.deadline_s + self._lateness_s:
                self._violate_untold(run_id, terms, now)
        for name, (run_id, place) in self._to_cancel.items():
            self._ledger.violate("overlap", f"run `{run_id}` replaces `{name}`, and nobody has cancelled that", place)
        for run_id, (_, place) in self._to_tell.items():
            self._ledger.violate("deadline", f"run `{run_id}`, which tells of a deadline, is not asked for", place)
        self._ledger.count("deadline", "missed", self._missed)

    def _open(self, run_id: str, request: Event) -> _Terms:
        not_before, start_by, deadline = (
            None if request.get(name) is None else seconds(request[name]) for name in _TERMS
        )
        terms = self._terms[run_id] = _Terms(self._ledger.place, request, not_before, start_by, deadline)
        if deadline is not None:
            self._untold[run_id] = None
            self._ledger.count("deadline", "deadlines")
        return terms

    def _check_terms(self, run_id: str, event: Event, terms: _Terms) -> None:
        """They begin with the fire time, and are in order."""
        given = [each for each in (terms.not_before_s, terms.start_by_s, terms.deadline_s) if each is not None]
        if not given or event["event"] != "schedule_enqueued" or not event.get("minute"):
            return
        if given != sorted(given) or seconds(event["minute"]) > given[0]:
            self._ledger.violate("lateness", f"the times of run `{run_id}` are not in order")

    def _tell(self, run_id: str, terms: _Terms) -> None:
        terms.is_told = True
        self._untold.pop(run_id, None)

    def _look_at(self, run_id: str, terms: _Terms, now: float) -> None:
        """A leader may have been held up; between two signs of its life after the deadline it has told of it."""
        if run_id not in self._untold or terms.deadline_s is None or now < terms.deadline_s:
            return
        if terms.noticed_s is None:
            terms.noticed_s = now if self._services.leader is not None else None
        elif now > terms.noticed_s + self._lateness_s:
            self._violate_untold(run_id, terms, now)

    def _violate_untold(self, run_id: str, terms: _Terms, now: float) -> None:
        late_s = now - (terms.deadline_s or now)
        text = f"run `{run_id}` is open {late_s:.1f} s after its deadline, and nobody has told of it"
        self._ledger.violate("deadline", text, terms.place)
        self._tell(run_id, terms)

    @staticmethod
    def _is_asked(event: Event, terms: _Terms) -> bool:
        """Say whether the end names the reason for which somebody has asked for it."""
        cancel: dict[str, Any] = terms.cancel or {}
        reason = str(event.get("reason"))
        return terms.cancel is not None and all(
            str(cancel[key])[:200] in reason for key in ("reason", "by") if key in cancel
        )
