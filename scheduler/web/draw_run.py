"""The graph and the gantt of a run as SVG: a column for each depth, tasks as links to their rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from urllib.parse import quote

from markupsafe import Markup, escape

from scheduler.task_view import TryFacts
from scheduler.text import span
from workers.terminal import clean

from .views.run import TaskView

__all__ = ["MOST_TASKS", "bar", "graph", "layers_of"]

MOST_TASKS = 300
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 172, 40, 44, 12, 6
_NAME_CHARS = 18


def graph(tasks: Sequence[TaskView], signs: Mapping[str, str]) -> Markup:
    """Draw the tasks of a DAG and what they need; nothing where they are too many, or only one.

    It is whole as it stands. Boxes and edges name their tasks, by which `static/graph.js` moves them.
    """
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
    edges = [_edge(shown[need], shown[name], places) for name in needs for need in needs[name]]
    boxes = [_box(shown[name], places[name], signs, _items(name, tasks)) for name in places]
    width = len(layers) * (_WIDTH + _GAP_X) - _GAP_X + 2 * _EDGE
    height = tallest * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _EDGE
    told = f"{len(shown)} tasks in {len(layers)} steps; each is a link to its row below"
    return Markup(
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group"'
        f' aria-label="{told}">{"".join(edges)}{"".join(boxes)}</svg>'
    )


def layers_of(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the tasks by depth."""
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        return [list(needs)]
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = max((depth[need] + 1 for need in needs[name]), default=0)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in needs:
        layers[depth[name]].append(name)
    return layers


def bar(task: TaskView, whole_s: float) -> Markup:
    """Draw when a task was at work, within the time of its attempt: a bar a try."""
    bars = [_try(each, number, task.tries, whole_s) for number, each in enumerate(task.tries_at, 1)]
    if task.after_s is None or task.duration_s is None:
        return Markup("")
    tries = f", {task.tries} tries" if task.tries > 1 else ""
    told = f"began after {span(task.after_s)}, took {span(task.duration_s)}{tries}"
    return Markup(
        f'<svg class="chart gantt" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f"{''.join(bars)}</svg>"
    )


def _try(each: TryFacts, number: int, tries: int, whole_s: float) -> str:
    if each.after_s is None or each.duration_s is None:
        return ""
    start = min(1000 * each.after_s / whole_s, 996.0)
    length = min(max(4.0, 1000 * each.duration_s / whole_s), 1000 - start)
    of = f"try {number} of {tries}, " if tries > 1 else ""
    told = f"{of}{each.status.replace('_', ' ')}: began after {span(each.after_s)}, took {span(each.duration_s)}"
    return (
        f'<rect class="{escape(each.status)}" x="{start:.1f}" y="0" width="{length:.1f}" height="10">'
        f"<title>{escape(told)}</title></rect>"
    )


def _edge(need: TaskView, task: TaskView, places: Mapping[str, tuple[int, int]]) -> str:
    (x1, y1), (x2, y2) = places[need.task_id], places[task.task_id]
    middle, half = (x1 + _WIDTH + x2) // 2, _HEIGHT // 2
    line = f"M{x1 + _WIDTH} {y1 + half}C{middle} {y1 + half} {middle} {y2 + half} {x2} {y2 + half}"
    between = f'data-from="{escape(need.task_id)}" data-to="{escape(task.task_id)}"'
    return f'<path class="edge {escape(need.status)}" {between} d="{line}"/>'


def _box(task: TaskView, place: tuple[int, int], signs: Mapping[str, str], items: str) -> str:
    name = clean(task.task_id)
    short = name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"
    told = task.status.replace("_", " ")
    facts = [told, *([items] if items else []), *([span(task.duration_s)] if task.duration_s is not None else [])]
    return (
        f'<a href="#task-{quote(task.task_id)}" class="box {escape(task.status)}" data-task="{escape(task.task_id)}"'
        f' transform="translate({place[0]} {place[1]})" aria-label="{escape(name)}: {escape(", ".join(facts))}">'
        f"<title>{escape(name)}: {escape(', '.join(facts))}</title>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="7"/>'
        f'<text class="sign" x="17" y="25">{escape(signs.get(task.status, "·"))}</text>'
        f'<text class="name" x="32" y="17">{escape(short)}</text>'
        f'<text class="fact" x="32" y="32">{escape(" · ".join(facts))}</text></a>'
    )


def _items(name: str, tasks: Sequence[TaskView]) -> str:
    items = [task for task in tasks if task.is_instance and task.base_id == name]
    return f"{sum(task.status in ('success', 'kept') for task in items)} of {len(items)}" if items else ""
