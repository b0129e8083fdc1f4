"""The model of a schedule: its keys, and what follows from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from workers.convert import read_duration
from workers.dag_model import Retries
from workers.units import Duration

from .blackout import Blackout, Deferring, Period, Repeated, Windows, is_in
from .business_days import Days, Moved, NthDays, Only, Open, days_id, days_of_record, moving
from .calendar_model import CalendarRule
from .cron import Cron, parse_cron
from .cron_times import EPOCH
from .triggers import AnyOf, Every, Never, Times, Trigger, read_time

__all__ = [
    "CLOSED",
    "ON_TIME",
    "After",
    "OnFile",
    "Repeat",
    "Schedule",
    "by_tag",
    "compiled",
    "schedule_from_spec",
    "tags_of",
    "timing_of",
    "zone_of",
]

# A fire time is on time through its minute, as cron judges the current minute; after that it is late.
ON_TIME = timedelta(seconds=60)
# Why a schedule does not run at one of its fire times.
CLOSED = ("holiday", "blackout", "deferred")
_STEPS = {"next_business_day": 1, "previous_business_day": -1}


class Repeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`every` with an anchor: the period is counted from it."""

    period: Duration
    anchor: str | None = None


class After(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One schedule whose runs another one follows, and the ends of them that count."""

    schedule: str
    status: str | list[str] = "success"


class OnFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file to wait for, from the project directory; it counts once it has not changed for `stable_for`."""

    path: str
    stable_for: Duration = Duration(seconds=5)


class Schedule(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """When to run which DAG, and what to do when that cannot be.

    `file` and `line` say where it was read, `project` is the directory its paths start from. `matrix_of` is the id of
    the entry whose `matrix` made it, `days` are those that its calendar comes to.
    """

    id: str
    cron: str | list[str] | None
    dag: str
    every: str | float | Repeat | None = None
    at: list[str] = []
    after: str | After | list[str | After] | None = None
    on_file: OnFile | None = None
    calendar: str | CalendarRule | None = None
    blackout: Blackout | list[Blackout] = []
    timezone: str = "UTC"
    tenant: str = "default"
    tags: list[str] = []
    enabled: bool = True
    description: str = ""
    params: dict[str, Any] = {}
    matrix: dict[str, list[Any]] = {}
    overlap: Literal["skip", "queue", "replace", "allow"] = "skip"
    max_queued: int | None = None
    catchup: Literal["none", "latest", "all"] = "none"
    catchup_window: Duration | None = None
    catchup_max: int | None = None
    jitter: Duration | None = None
    start_deadline: Duration | None = None
    deadline: Duration | None = None
    on_deadline: str | None = None
    timeout: Duration | None = None
    retries: Retries = Retries()
    retry_on_crash: bool = False
    priority: int = 0
    pool: str | None = None
    project: str = "."
    matrix_of: str = ""
    days: Days | None = None
    file: str = ""
    line: int = 0

    @functools.cached_property
    def fires(self) -> Trigger:
        """The fire times, in the zone of the datetime that is asked about. Raises InvalidCron, ValueError."""
        fires, days, rule = self._raw_fires(), self.days, self.calendar_rule
        if days is not None and rule.numbers:
            fires = Only(fires, NthDays(days, tuple(rule.numbers)))
        elif days is not None and rule.on_holiday in _STEPS:
            fires = moving(fires, days, _STEPS[rule.on_holiday])
        defers = self._windows("defer") if self.blackout else ()
        if not defers:
            return fires
        # What is skipped as a holiday's is not deferred.
        if (skipped := self._skipped_days) is not None:
            return AnyOf((fires, Deferring(Only(fires, Open(skipped)), defers)))
        return Deferring(fires, defers)

    def _raw_fires(self) -> Trigger:
        if self.upstream or self.on_file is not None:
            return Never(self._awaited())
        if isinstance(self.cron, str) and self.every is None and not self.at:
            return compiled(self.cron, self.seed)
        triggers: list[Trigger] = [compiled(expr, self.seed) for expr in self.expressions]
        if (repeat := self.repeat) is not None:
            triggers.append(Every(repeat.period, EPOCH if repeat.anchor is None else self.moment(repeat.anchor)))
        if self.at:
            triggers.append(Times(tuple(sorted(map(self.moment, self.at)))))
        return triggers[0] if len(triggers) == 1 else AnyOf(tuple(triggers))

    @property
    def expressions(self) -> list[str]:
        """The cron expressions, in order."""
        return [self.cron] if isinstance(self.cron, str) else list(self.cron or ())

    @functools.cached_property
    def upstream(self) -> dict[str, list[str]]:
        """The schedules that it follows, each with the ends that count."""
        after = self.after if isinstance(self.after, list) else [self.after] if self.after is not None else []
        each = [After(one) if isinstance(one, str) else one for one in after]
        return {one.schedule: [one.status] if isinstance(one.status, str) else one.status for one in each}

    def _awaited(self) -> str:
        if self.on_file is not None:
            return f"when another file lies at {self.on_file.path}"
        texts = [f"`{name}` ({' or '.join(statuses)})" for name, statuses in self.upstream.items()]
        return f"after {' and '.join(texts)}"

    @property
    def repeat(self) -> Repeat | None:
        """What `every` says. Raises InvalidDuration."""
        return self.every if isinstance(self.every, Repeat | None) else Repeat(Duration.parse(self.every))

    @functools.cached_property
    def calendar_rule(self) -> CalendarRule:
        """What `calendar` says; nothing where there is none."""
        rule = self.calendar
        return rule if isinstance(rule, CalendarRule) else CalendarRule(name=rule)

    @functools.cached_property
    def _on_holiday(self) -> str | None:
        """What becomes of fire times on holidays; None where there are none."""
        rule = self.calendar_rule
        return None if rule.numbers else rule.on_holiday or "skip"

    @property
    def _skipped_days(self) -> Days | None:
        """The calendar at whose holidays it does not run."""
        return self.days if self.days is not None and self._on_holiday == "skip" else None

    def moved_from(self, fire: datetime) -> list[date]:
        """Return the holidays whose fire times have been moved to this one."""
        step = _STEPS.get(self.calendar_rule.on_holiday or "")
        if step is None or self.days is None:
            return []
        return Moved(self._raw_fires(), self.days, step).sources(fire.astimezone(self.zone))

    @property
    def can_close(self) -> bool:
        """Say whether there may be fire times at which it does not run."""
        return bool(self.blackout) or self._skipped_days is not None

    def closed(self, fire: datetime) -> str | None:
        """Say why the schedule does not run at one of its fire times, by one of CLOSED; None when it does."""
        skipped = self._skipped_days
        if skipped is not None and fire.astimezone(self.zone).date() in skipped.holidays:
            return "holiday"
        if not self.blackout:
            return None
        if is_in(self._windows("skip"), fire):
            return "blackout"
        return "deferred" if is_in(self._windows("defer"), fire) else None

    @property
    def blackouts(self) -> list[Blackout]:
        """The rules of its blackout windows."""
        return [self.blackout] if isinstance(self.blackout, Blackout) else self.blackout

    def _windows(self, then: str) -> tuple[Windows, ...]:
        return tuple(windows for kind, windows in self._all_windows if kind == then)

    @functools.cached_property
    def _all_windows(self) -> list[tuple[str, Windows]]:
        return [(each.then, self.window(each)) for each in self.blackouts]

    def window(self, rule: Blackout) -> Windows:
        """Return the windows of one rule. Raises InvalidCron, ValueError."""
        if rule.cron is not None and rule.duration is not None:
            return Repeated(compiled(rule.cron, self.seed), self.zone, rule.duration)
        return Period(self.moment(rule.from_ or ""), self.moment(rule.to or ""))

    @property
    def seed(self) -> str:
        """What `H` hashes: the id that its entry has in the file."""
        return self.matrix_of or self.id

    def moment(self, text: str) -> datetime:
        """Read a time of one of its keys, in its zone where the text names none. Raises ValueError."""
        return read_time(text, self.zone)

    @functools.cached_property
    def zone(self) -> ZoneInfo:
        """The zone that the expression is written in."""
        return zone_of(self.timezone)

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """What decides the fire times: the part of a schedule that the log keeps, to account for them later.

        Its `tenant` is there for pauses, which may be of a tenant, its `tags` for who looks for them.
        """
        spec: dict[str, Any] = {"cron": self.cron, "timezone": self.timezone, "enabled": self.enabled, "dag": self.dag}
        if self.tenant != "default":
            spec["tenant"] = self.tenant
        if self.tags:
            spec["tags"] = self.tags
        if self.matrix_of:
            spec["matrix_of"] = self.matrix_of
        if (repeat := self.repeat) is not None:
            spec["every"] = {"period": str(repeat.period), "anchor": repeat.anchor}
        if self.at:
            spec["at"] = self.at
        if self.upstream:
            spec["after"] = self.upstream
        if self.on_file is not None:
            spec["on_file"] = {"path": self.on_file.path, "stable_for": str(self.on_file.stable_for)}
        if self.days is not None:
            rule = self.calendar_rule
            spec["calendar"] = {"days": days_id(self.days)}
            spec["calendar"] |= {"business_day": rule.numbers} if rule.numbers else {"on_holiday": self._on_holiday}
        if self.blackout:
            spec["blackout"] = [msgspec.to_builtins(each, enc_hook=str) for each in self.blackouts]
        return spec


def timing_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a spec that decides the fire times; where it changes, a schedule begins anew."""
    return {key: value for key, value in spec.items() if key not in ("dag", "tenant", "tags")}


def tags_of(spec: Mapping[str, Any]) -> list[str]:
    """Return the tags that a spec on record tells; what another hand wrote and is no text is none."""
    tags = spec.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def by_tag(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return each tag of these specs, which are by id, with the ids that have it."""
    found: dict[str, set[str]] = {}
    for name, spec in specs.items():
        for tag in tags_of(spec):
            found.setdefault(tag, set()).add(name)
    return found


def schedule_from_spec(
    schedule_id: str, spec: Mapping[str, Any], calendars: Mapping[str, Mapping[str, Any]] | None = None
) -> Schedule:
    """Return the schedule that a spec on record tells of, as far as its fire times go.

    `calendars` are those on record. It, or `fires` of it, raises TickpoolError, LookupError, ValueError or OSError
    where the spec is of another version, or of a machine with other time zones.
    """
    keys = ("timezone", "enabled", "matrix_of", "every", "at", "on_file", "blackout", "tenant")
    known = {key: spec[key] for key in keys if key in spec}
    entry = {"id": schedule_id, "cron": spec.get("cron"), "dag": str(spec.get("dag")), **known}
    if spec.get("after"):
        entry["after"] = [{"schedule": name, "status": statuses} for name, statuses in dict(spec["after"]).items()]
    calendar = dict(spec.get("calendar", ()))
    days = None if not calendar else days_of_record((calendars or {})[calendar.pop("days")])
    if calendar:
        entry["calendar"] = calendar
    return msgspec.structs.replace(msgspec.convert(entry, Schedule, dec_hook=read_duration), days=days)


# Schedules share what they write alike: 100,000 of them have few different expressions and zones.
def compiled(expr: str, schedule_id: str) -> Cron:
    return _seeded(expr, schedule_id if "H" in expr or "h" in expr else "")


@functools.lru_cache(4096)
def _seeded(expr: str, seed: str) -> Cron:
    return parse_cron(expr, seed=seed)


@functools.lru_cache(1024)
def zone_of(name: str) -> ZoneInfo:
    return ZoneInfo(name)
