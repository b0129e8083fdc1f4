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


def check(events: Iterable[Mapping[str, Any]], effects: Iterable[str], asked: Collection[str]) -> Verdict:
    """Judge a log in full, from its first line, after everything has come to rest.

    `effects` are lines `RUN_ID ATTEMPT` that the runs wrote themselves; `asked` are the runs whose requests the log
    has acknowledged.
    """
    requests: Counter[str] = Counter()
    fires: Counter[Key] = Counter()
    starts: Counter[Key] = Counter()
    parks: Counter[Key] = Counter()
    ends: Counter[Key] = Counter()
    done: Counter[Key] = Counter((tuple(line.split(" "))) for line in effects)
    final: Counter[str] = Counter()
    fruitful: list[Key] = []
    # Who asked for it ended before it began, or went on.
    unstarted: set[Key] = set()
    lost, odd = [], []
    seq = 0
    for event in events:
        name, run_id = event["event"], str(event.get("run_id"))
        key = (run_id, str(event.get("attempt")))
        if event["seq"] != seq + 1:
            lost.append(f"lines {seq + 1} to {event['seq'] - 1} of the log")
        seq = event["seq"]
        if name == "schedule_enqueued":
            fires[event["schedule_id"], event["minute"]] += 1
            requests[run_id] += 1
        elif name == "run_requested":
            requests[run_id] += 1
        elif name == "run_started":
            # Each park allows for one more.
            starts[key] += 1
            if not requests[run_id]:
                odd.append(f"run {run_id} started, and nobody had asked for it")
        elif name == "run_parked":
            parks[key] += 1
        elif name == "run_finished":
            ends[key] += 1
            final[run_id] += not event.get("next_attempt")
            if event["status"] == "success":
                fruitful.append(key)
            elif event["status"] == "cancelled" and starts[key] == parks[key]:
                unstarted.add(key)
    lost += [f"the request for run {run_id} was acknowledged and is gone" for run_id in asked if not requests[run_id]]
    lost += [f"run {run_id} was asked for and has no end" for run_id, n in requests.items() if n and not final[run_id]]
    lost += [f"{_name(key)} started and has no end" for key in starts if not ends[key]]
    twice = [f"fire time {minute} of {of} was enqueued {n} times" for (of, minute), n in fires.items() if n > 1]
    twice += [f"run {run_id} was asked for {n} times" for run_id, n in requests.items() if n > 1]
    twice += [f"{_name(key)} started {n} times" for key, n in starts.items() if n > parks[key] + 1]
    lost += [
        f"{_name(key)} was parked and never went on"
        for key, n in parks.items()
        if starts[key] <= n and key not in unstarted
    ]
    twice += [f"{_name(key)} ended {n} times" for key, n in ends.items() if n > 1]
    twice += [f"{_name(key)} had its effect {n} times" for key, n in done.items() if n > 1]
    odd += [f"{_name(key)} is success without an effect" for key in fruitful if not done[key]]
    odd += [f"{_name(key)} had an effect and no start" for key in done if not starts[key]]
    odd += [f"{_name(key)} ended and had no start" for key in ends if not starts[key] and key not in unstarted]
    return Verdict(lost, twice, odd)


def _name(key: Key) -> str:
    return f"run {key[0]} attempt {' '.join(key[1:])}"
