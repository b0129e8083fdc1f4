"""What an end of a run says, against itself and against the request."""

from __future__ import annotations

from workers.events import Event
from workers.run_request import next_attempt

from .report import Ledger
from .times import moment_of

__all__ = ["check_end", "check_fields", "check_next"]

_STATUSES = ("success", "failed", "timeout", "cancelled", "crashed")


def check_fields(event: Event, request: Event, ledger: Ledger) -> None:
    """A run keeps its schedule and its minute."""
    if event.get("minute") == request.get("minute") and event.get("schedule_id") == request.get("schedule_id"):
        return
    for name in ("schedule_id", "minute"):
        if (event.get(name) or None) != (request.get(name) or None):
            text = f"run `{event['run_id']}` has another `{name}` than its request: {event.get(name)!r:.80}"
            ledger.violate("G2", text)


def check_end(event: Event, ledger: Ledger) -> None:
    """The status of a run fits what else its end says."""
    status, tasks, reason, run_id = event.get("status"), event.get("tasks"), event.get("reason"), event["run_id"]
    if status not in _STATUSES:
        ledger.violate("G2", f"run `{run_id}` has the status {status!r:.40}; allowed: {', '.join(_STATUSES)}")
    elif tasks is None:
        # Closed by the service because its worker is gone.
        if status not in ("crashed", "cancelled") or not reason:
            ledger.violate("G2", f"run `{run_id}` is {status} ({reason}), and its tasks are not on record")
    elif status == "crashed":
        ledger.violate("G2", f"run `{run_id}` is crashed, and its worker has told the end of its tasks")
    elif (status == "success") != (reason is None or str(reason).startswith("hooks: ")):
        # Tasks may fail in a success, with `continue_on_failure`; what made a run fail is its reason.
        ledger.violate("G2", f"run `{run_id}` is {status}, its tasks {tasks}, its reason {reason!r:.80}")


def check_next(event: Event, request: Event, ledger: Ledger) -> None:
    """Another attempt follows where the request allows one, and only there."""
    given = event.get("next_attempt")
    if given is None and event.get("status") == "success":
        return
    due = next_attempt(request, str(event.get("status")), moment_of(event["timestamp"])).get("next_attempt")
    if given != due:
        text = f"run `{event['run_id']}` goes on with attempt {given}; its request says {due}"
        ledger.violate("G1", text)
