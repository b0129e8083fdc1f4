"""The book of fire times: what a schedule's expression demands, against the verdicts on record, in both directions."""

from __future__ import annotations

from typing import Any

from scheduler.business_days import days_id, days_of_record
from scheduler.history import epoch
from scheduler.schedule_model import timing_of
from scheduler.text import counted
from scheduler.verdicts import calendar_of
from workers.events import Event

from .account import Account, Records, Shared
from .report import Ledger
from .services import Services

__all__ = ["FireBook"]


class FireBook:
    """What each schedule was, and which of its fire times have their verdict. Times are whole seconds since the epoch.

    Nothing is remembered of a verdict that came in order but its time: what is due is walked along with the log.
    """

    def __init__(self, ledger: Ledger, services: Services, on_time_s: float) -> None:
        self._accounts: dict[str, Account] = {}
        self._calendars: Records = {}
        self._ledger = ledger
        self._services = services
        self._on_time_s = on_time_s
        self._enqueued = self._skipped = self._missed = 0

    def load(self, event: Event, now: float) -> None:
        """Take in a `schedules_loaded`: what an old expression still owed must be on record by now."""
        since = epoch(event["since"]) if event.get("since") else None
        shared: Shared = {}
        for schedule_id, spec in event["specs"].items():
            account = self._account(schedule_id, since)
            if since is not None:
                account.close(since)
                account.begin(spec, since, shared, self._calendars)
            elif timing_of(account.spec) != timing_of(spec):
                self._ledger.violate("G3", f"schedule `{schedule_id}` fires at other times, and since when is not said")
                account.begin(spec, int(now), shared, self._calendars)
            else:
                account.spec = spec
        for schedule_id in event.get("removed", ()):
            if schedule_id in self._accounts:
                self._accounts[schedule_id].close(int(now) - 60)
                self._accounts[schedule_id].remove()

    def load_calendars(self, calendars: Records) -> None:
        """Take in a `calendars_loaded`, or what a checkpoint says of them; the name of each is made of its days."""
        for name, record in calendars.items():
            if days_id(days_of_record(record)) != name:
                self._ledger.violate("G3", f"the days of calendar `{name}` are not those for which that name stands")
            self._calendars[name] = record

    def judge(self, event: Event, now: float) -> None:
        """Take in that a fire time was enqueued or skipped; by a service, in time unless it says `catchup`."""
        schedule_id, fire = event["schedule_id"], epoch(event["minute"])
        is_enqueued = event["event"] == "schedule_enqueued"
        self._enqueued += is_enqueued
        self._skipped += not is_enqueued
        account = self._account(schedule_id, fire - 1)
        if is_enqueued and account.spec and event.get("dag") != account.spec.get("dag"):
            self._ledger.violate(
                "G3", f"schedule `{schedule_id}` asks for {event.get('dag')!r:.80}, which is not its DAG"
            )
        by_service = self._services.leads(event)
        if by_service:
            self._services.judge(fire)
            self._check_time(event, fire, now)
        account.judge(fire, by_service=by_service)
        account.check_closed([fire], None if is_enqueued else str(event.get("reason")))

    def miss(self, event: Event) -> None:
        """Take in a range of missed fire times."""
        schedule_id, first, last = event["schedule_id"], epoch(event["from"]), epoch(event["to"])
        if last < first or event["count"] < 1 or not event.get("reason"):
            self._ledger.violate("G3", f"schedule `{schedule_id}` missed {event['count']} from {first} to {last}")
            return
        self._missed += int(event["count"])
        account = self._account(schedule_id, first - 1)
        account.miss(first, last, int(event["count"]), str(event["reason"]), is_more=bool(event.get("is_more")))

    def set_clock(self, event: Event) -> None:
        """Take in a `clock_jumped`: what only a wrong clock had called missed may come again."""
        self._ledger.count("G11", "jumps")
        since = epoch(event["to"]) // 60 * 60 - 1
        judged_to = self._services.judged_to
        self._services.set_clock(since)
        for account in self._accounts.values():
            account.close(max(account.watermark, judged_to))
            account.set_back(since)
            if self._services.leader is None:
                account.lead()

    def lead(self) -> None:
        """Take in that another service begins to lead."""
        for account in self._accounts.values():
            account.lead()

    def restore(self, row: list[Any]) -> None:
        """Take a schedule from the checkpoint with which a log begins whose older part is gone."""
        name, watermark, latest, newest, missed, settled, spec = row
        account = self._account(name, watermark)
        account.begin(spec, watermark, {}, self._calendars)
        account.latest = latest
        account.judged.update(newest)
        account.missed = [(first, last) for first, last in missed]
        account.before = sorted([(first, last) for first, last in settled])

    def restore_points(self, name: str, times: list[int]) -> None:
        """Take single verdicts from such a checkpoint."""
        self._accounts[name].judged.update(times)

    def compare(self, rows: list[list[Any]], calendars: Records) -> None:
        """Compare with the schedules of a checkpoint: nothing may get lost between two segments."""
        used = {name for row in rows if (name := calendar_of(row[-1])) is not None}
        for name in sorted(used.union(calendars)):
            if self._calendars.get(name) != calendars.get(name):
                self._ledger.violate("G5", f"calendar `{name}` is another in the checkpoint than in the older segments")
        kept = {row[0]: row for row in rows}
        for name in sorted(kept.keys() ^ self._accounts.keys()):
            self._ledger.violate("G5", f"schedule `{name}` is on one side of a checkpoint only")
        for name in sorted(kept.keys() & self._accounts.keys()):
            _, watermark, _, newest, _, _, spec = kept[name]
            account = self._accounts[name]
            if spec != account.spec or watermark != account.watermark or not account.judged.issuperset(newest):
                self._ledger.violate("G5", f"schedule `{name}` is another in the checkpoint than in the older segments")

    def conclude(self, until: int) -> None:
        """Demand the verdicts on all fire times up to `until`."""
        verdicts = {"enqueued": self._enqueued, "skipped": self._skipped, "missed": self._missed}
        for what, number in {"schedules": len(self._accounts), **verdicts}.items():
            self._ledger.count("G3", what, number)
        unknown = [name for name, account in self._accounts.items() if not account.was_known]
        if unknown:
            names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
            self._ledger.notes.append(f"no definition of {counted(len(unknown), 'schedule')} is on record ({names})")
        for account in self._accounts.values():
            account.close(max(until, account.watermark))

    def _account(self, schedule_id: str, since: int | None) -> Account:
        account = self._accounts.get(schedule_id)
        if account is None:
            account = self._accounts[schedule_id] = Account(schedule_id, since or 0, self._ledger)
        return account

    def _check_time(self, event: Event, fire: int, now: float) -> None:
        text = f"fire time {event['minute']} of `{event['schedule_id']}` is judged"
        if fire > now + 1:
            self._ledger.violate("lateness", f"{text} {fire - now:.1f} s before it has come")
        elif now - fire > self._on_time_s and event["event"] == "schedule_enqueued" and "catchup" not in event:
            self._ledger.violate("lateness", f"{text} {now - fire:.1f} s late, and not as caught up")
