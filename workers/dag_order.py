"""The order `needs` gives: cycles in it, and what is upstream of what. Pure functions of {task id: needs}."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

__all__ = ["find_cycles", "upstream_test"]

_MOST_CYCLES = 5


def find_cycles(needs: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return up to five cycles, each as a path in the direction of `needs` that ends where it began.

    Names that are not keys, and tasks that need themselves, are left out: they are faults of their own.
    """
    edges = {name: {each for each in needs[name] if each in needs and each != name} for name in needs}
    cycles: list[list[str]] = []
    while len(cycles) < _MOST_CYCLES:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            # graphlib gives it from a task to the one that waits for it.
            path = list(reversed(error.args[1]))[:-1]
            # Begun with the task that comes first in the file, so that the message does not depend on hashing.
            start = min(range(len(path)), key=lambda n: list(needs).index(path[n]))
            cycle = path[start:] + path[: start + 1]
            edges[cycle[0]].discard(cycle[1])
            cycles.append(cycle)
        else:
            break
    return cycles


def upstream_test(needs: Mapping[str, Iterable[str]]) -> Callable[[str, str], bool]:
    """Return a function that tells whether its first task is waited for, near or far, by its second.

    Where there is a cycle or an unknown name, the function always says yes: those are faults of their own.
    """
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        order = []
    if len(order) != len(needs):
        return lambda other, task: True
    # One bit a task: as sets, a chain of 5,000 tasks would take half a gigabyte.
    bit = {name: 1 << number for number, name in enumerate(order)}
    upstream: dict[str, int] = {}
    for name in order:
        upstream[name] = 0
        for each in needs[name]:
            upstream[name] |= bit[each] | upstream[each]
    return lambda other, task: bool(upstream[task] & bit.get(other, 0))
