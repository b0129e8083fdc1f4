"""Links: which schedule follows which, seen over a whole configuration."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import msgspec

from workers.errors import Fault, did_you_mean
from workers.yamlfile import Document

from .schedule_model import After, Schedule

__all__ = ["Place", "link"]

# The file that a schedule was read from, and the number of its entry.
Place = tuple[Document, int]


def link(schedules: Mapping[str, Schedule], places: Mapping[str, Place]) -> tuple[dict[str, Schedule], list[Fault]]:
    """Return the schedules with `after` resolved, and what is wrong: a name that nobody has, a circle.

    An entry with a matrix stands for all its combinations. `places` are those of the schedules with `after`; what is
    wrong is left out.
    """
    linked, faults = dict(schedules), list[Fault]()
    if not places:
        return linked, faults
    groups: dict[str, list[str]] = {}
    for schedule in schedules.values():
        if schedule.matrix_of:
            groups.setdefault(schedule.matrix_of, []).append(schedule.id)
    for name, (document, index) in places.items():
        schedule = schedules[name]
        found: list[str | After] = []
        for other, statuses in schedule.upstream.items():
            members = [other] if other in schedules else groups.get(other, [])
            found += [After(member, statuses) for member in members]
            if not members:
                near = did_you_mean(other, [*schedules, *groups])
                message = f"schedule `{name}`: `after` names `{other[:128]}`, and no schedule has that id{near}"
                faults.append(document.fault((index, "after"), message))
                linked.pop(name, None)
        if name in linked:
            linked[name] = msgspec.structs.replace(schedule, after=found)
    while circle := _circle(linked):
        document, index = places[circle[0]]
        path = " after ".join(f"`{name}`" for name in [*circle, circle[0]])
        message = f"schedule `{circle[0]}`: `after` leads in a circle: {path}; none of them would ever run"
        faults.append(document.fault((index, "after"), message))
        for name in circle:
            del linked[name]
    return linked, faults


def _circle(schedules: Mapping[str, Schedule]) -> list[str]:
    """Return schedules of which each follows the next, and the last the first; none when there are none."""
    try:
        TopologicalSorter(
            {name: schedule.upstream for name, schedule in schedules.items() if schedule.upstream}
        ).prepare()
    except CycleError as error:
        first, *others = error.args[1][:-1]
        return [first, *reversed(others)]
    return []
