"""A second judge, small enough to be read at a glance: it shares no code with the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Verdict", "check"]

Key = tuple[Any, ...]


class Verdict(NamedTuple):
    """What is wrong, a line each: runs and lines that were lost, what was done twice, and the rest."""

    lost: list[str]
    twice: list[str]
    odd: list[str]


class _Tally:
    """What the lines of a log come to, counted."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.fires: Counter[Key] = Counter()
        self.starts: Counter[Key] = Counter()
        self.parks: Counter[Key] = Counter()
        self.resumes: Counter[Key] = Counter()
        self.ends: Counter[Key] = Counter()
        self.final: Counter[str] = Counter()
        self.fruitful: list[Key] = []
        # Who asked for it ended before it began, or went on.
        self.unstarted: set[Key] = set()
        self.lost: list[str] = []
        self.odd: list[str] = []
        self._seq = 0

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in a line."""
        name, run_id = event["event"], str(event.get("run_id"))
        key = (run_id, str(event.get("attempt")))
        if event["seq"] != self._seq + 1:
            self.lost.append(f"lines {self._seq + 1} to {event['seq'] - 1} of the log")
        self._seq = event["seq"]
        if name == "schedule_enqueued":
            self.fires[event["schedule_id"], event["minute"]] += 1
        if name in ("schedule_enqueued", "run_requested"):
            self.requests[run_id] += 1
        elif name == "run_started":
            # Each resume allows for one more.
            self.starts[key] += 1
            if not self.requests[run_id]:
                self.odd.append(f"run {run_id} started, and nobody had asked for it")
        elif name == "run_parked":
            self.parks[key] += 1
        elif name == "run_resumed":
            self.resumes[key] += 1
        elif name == "run_finished":
            self._end(key, event)

    def _end(self, key: Key, event: Mapping[str, Any]) -> None:
        self.ends[key] += 1
        self.final[key[0]] += not event.get("next_attempt")
        if event["status"] == "success":
            self.fruitful.append(key)
        elif event["status"] == "cancelled" and self.starts[key] == self.parks[key]:
            self.unstarted.add(key)


def check(events: Iterable[Mapping[str, Any]], effects: Iterable[str], asked: Collection[str]) -> Verdict:
    """Judge a log in full, from its first line, after everything has come to rest.

    `effects` are lines `RUN_ID ATTEMPT` that the runs wrote themselves; `asked` are the runs whose requests the log
    has acknowledged.
    """
    told = _Tally()
    for event in events:
        told.take(event)
    done: Counter[Key] = Counter((tuple(line.split(" "))) for line in effects)
    starts, parks, ends = told.starts, told.parks, told.ends
    lost = [
        f"the request for run {run_id} was acknowledged and is gone" for run_id in asked if not told.requests[run_id]
    ]
    lost += [f"run {run_id} was asked for and has no end" for run_id in told.requests if not told.final[run_id]]
    lost += [f"{_name(key)} started and has no end" for key in starts if not ends[key]]
    lost += [
        f"{_name(key)} was parked and never went on"
        for key, n in parks.items()
        if starts[key] <= n and key not in told.unstarted
    ]
    twice = [f"fire time {minute} of {of} was enqueued {n} times" for (of, minute), n in told.fires.items() if n > 1]
    twice += [f"run {run_id} was asked for {n} times" for run_id, n in told.requests.items() if n > 1]
    twice += [f"{_name(key)} started {n} times" for key, n in starts.items() if n > told.resumes[key] + 1]
    twice += [f"{_name(key)} ended {n} times" for key, n in ends.items() if n > 1]
    twice += [f"{_name(key)} had its effect {n} times" for key, n in done.items() if n > 1]
    odd = [f"{_name(key)} is success without an effect" for key in told.fruitful if not done[key]]
    odd += [f"{_name(key)} had an effect and no start" for key in done if not starts[key]]
    odd += [f"{_name(key)} ended and had no start" for key in ends if not starts[key] and key not in told.unstarted]
    return Verdict([*told.lost, *lost], twice, [*told.odd, *odd])


def _name(key: Key) -> str:
    return f"run {key[0]} attempt {' '.join(key[1:])}"
