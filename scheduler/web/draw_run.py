"""The graph and the gantt of a run as SVG: a column for each depth, tasks as links to their rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from urllib.parse import quote

from markupsafe import Markup, escape

from scheduler.text import span
from workers.terminal import clean

from .views.run import TaskView

__all__ = ["MOST_TASKS", "bar", "graph", "layers_of"]

MOST_TASKS = 300
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 172, 40, 44, 12, 6
_NAME_CHARS = 20
_SWEEPS = 4


def graph(tasks: Sequence[TaskView], signs: Mapping[str, str]) -> Markup:
    """Draw the tasks of a DAG and what they need; nothing where they are too many, or only one."""
    shown = {task.task_id: task for task in tasks if not task.is_instance and not task.is_hook}
    if not 1 < len(shown) <= MOST_TASKS:
        return Markup("")
    needs = {name: [each for each in task.needs if each in shown] for name, task in shown.items()}
    layers = layers_of(needs)
    tallest = max(len(layer) for layer in layers)
    places = {
        name: (
            _EDGE + column * (_WIDTH + _GAP_X),
            _EDGE + row * (_HEIGHT + _GAP_Y) + (tallest - len(layer)) * (_HEIGHT + _GAP_Y) // 2,
        )
        for column, layer in enumerate(layers)
        for row, name in enumerate(layer)
    }
    edges = [_edge(places[need], places[name], shown[need].status) for name in needs for need in needs[name]]
    boxes = [_box(shown[name], places[name], signs, _items(name, tasks)) for name in places]
    width = len(layers) * (_WIDTH + _GAP_X) - _GAP_X + 2 * _EDGE
    height = tallest * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _EDGE
    told = f"{len(shown)} tasks in {len(layers)} steps; each is a link to its row below"
    return Markup(
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group"'
        f' aria-label="{told}">{"".join(edges)}{"".join(boxes)}</svg>'
    )


def layers_of(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the tasks by depth, those of one depth in an order in which few edges cross."""
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        return [list(needs)]
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = max((depth[need] + 1 for need in needs[name]), default=0)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    followers: dict[str, list[str]] = {name: [] for name in needs}
    for name in needs:
        layers[depth[name]].append(name)
        for need in needs[name]:
            followers[need].append(name)
    for sweep in range(_SWEEPS):
        near = needs if sweep % 2 == 0 else followers
        place = {name: row / len(layer) for layer in layers for row, name in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _sort(layer, near, place)
    return layers


def _sort(layer: list[str], near: Mapping[str, Sequence[str]], place: dict[str, float]) -> None:
    """Put each task as high as those are on average that it is bound to."""
    means = {
        name: sum(place[each] for each in near[name]) / len(near[name]) if near[name] else place[name] for name in layer
    }
    layer.sort(key=means.__getitem__)
    place.update((name, row / len(layer)) for row, name in enumerate(layer))


def bar(task: TaskView, whole_s: float) -> Markup:
    """Draw when a task was at work, within the time of its attempt."""
    if task.after_s is None or task.duration_s is None:
        return Markup("")
    start, length = 1000 * task.after_s / whole_s, max(4.0, 1000 * task.duration_s / whole_s)
    start = min(start, 996.0)
    told = f"began after {span(task.after_s)}, took {span(task.duration_s)}"
    return Markup(
        f'<svg class="chart gantt" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f'<rect class="{escape(task.status)}" x="{start:.1f}" y="0" width="{min(length, 1000 - start):.1f}"'
        ' height="10"/></svg>'
    )


def _edge(start: tuple[int, int], end: tuple[int, int], status: str) -> str:
    x1, y1, x2, y2 = start[0] + _WIDTH, start[1] + _HEIGHT // 2, end[0], end[1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    return f'<path class="edge {escape(status)}" d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"/>'


def _box(task: TaskView, place: tuple[int, int], signs: Mapping[str, str], items: str) -> str:
    x, y = place
    name = clean(task.task_id)
    short = name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"
    told = task.status.replace("_", " ")
    facts = [told, *([items] if items else []), *([span(task.duration_s)] if task.duration_s is not None else [])]
    return (
        f'<a href="#task-{quote(task.task_id)}" class="box {escape(task.status)}"'
        f' aria-label="{escape(name)}: {escape(", ".join(facts))}">'
        f"<title>{escape(name)}: {escape(', '.join(facts))}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="7"/>'
        f'<text class="sign" x="{x + 17}" y="{y + 25}">{escape(signs.get(task.status, "·"))}</text>'
        f'<text class="name" x="{x + 32}" y="{y + 17}">{escape(short)}</text>'
        f'<text class="fact" x="{x + 32}" y="{y + 32}">{escape(" · ".join(facts))}</text></a>'
    )


def _items(name: str, tasks: Sequence[TaskView]) -> str:
    items = [task for task in tasks if task.is_instance and task.base_id == name]
    return f"{sum(task.status in ('success', 'kept') for task in items)} of {len(items)}" if items else ""
