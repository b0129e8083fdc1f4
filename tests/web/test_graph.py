"""The graph of a run: laid out in the browser, kept while it lives, whole without a script."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dashboard import Dashboard
from playwright.sync_api import Browser, Page, expect
from service import Service, WaitFor

# For each edge the boxes that it runs through, by points along it: those of its own it only touches.
CROSSED = """() => {
  const boxes = [...document.querySelectorAll("svg.graph [data-task]")].map((each) => {
    const {x, y, width, height} = each.querySelector("rect").getBBox();
    const {e, f} = each.transform.baseVal.consolidate().matrix;
    return {task: each.dataset.task, left: x + e, top: y + f, right: x + e + width, bottom: y + f + height};
  });
  const crossed = [];
  for (const edge of document.querySelectorAll("svg.graph [data-from]")) {
    for (let at = 0; at <= edge.getTotalLength(); at += 2) {
      const point = edge.getPointAtLength(at);
      for (const box of boxes) {
        if (point.x > box.left + 1 && point.x < box.right - 1 && point.y > box.top + 1 && point.y < box.bottom - 1)
          crossed.push(`${edge.dataset.from} to ${edge.dataset.to} through ${box.task}`);
      }
    }
  }
  for (const one of boxes) for (const other of boxes) {
    const isBeside = one.left >= other.right || other.left >= one.right;
    if (one !== other && !isBeside && one.top < other.bottom && other.top < one.bottom)
      crossed.push(`${one.task} on ${other.task}`);
  }
  return [...new Set(crossed)];
}"""
PLACES = """() => Object.fromEntries([...document.querySelectorAll("svg.graph [data-task]")]
    .map((each) => [each.dataset.task, each.getAttribute("transform")]))"""


@pytest.fixture
def served(service: Service, wait_for: WaitFor, dashboard: Dashboard) -> Dashboard:
    """A service and a dashboard that run."""
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    return dashboard.start()


def task(name: str, *needs: str, run: str = "true") -> dict[str, Any]:
    return {"id": name, "run": run, "needs": list(needs)} if needs else {"id": name, "run": run}


def opened(served: Dashboard, browser: Browser, run_id: str, **context: Any) -> Page:
    page = served.page(browser, **context)
    page.goto(f"{served.url}/runs/{run_id}")
    if context.get("java_script_enabled", True):
        expect(page.locator("svg.graph.laid")).to_be_visible()
    return page


def test_no_edge_runs_through_a_box_however_far_it_goes(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    tasks = [task("a"), task("b", "a"), task("c", "b"), task("d", "c", "a"), task("e", "d", "b", "a"), task("f", "a")]
    # Names that an object of JavaScript has already.
    tasks += [task("constructor", "a"), task("toString", "constructor", "f")]
    run_id = service.ask(service.tasks("d", *tasks))
    wait_for(lambda: served.has_seen(run_id, "success"), timeout=30, what="the run")
    page = opened(served, browser, run_id)
    assert page.evaluate(CROSSED) == []
    wide = page.evaluate(PLACES)
    page.set_viewport_size({"width": 360, "height": 800})
    wait_for(lambda: page.evaluate(PLACES) != wide, what="the graph from top to bottom")
    assert page.evaluate(CROSSED) == []
    assert page.errors == []  # type: ignore[attr-defined]


def test_a_status_that_changes_moves_no_box_and_takes_no_focus(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    wait = "while [ ! -e go ]; do sleep 0.05; done"
    run_id = service.ask(service.tasks("d", task("a", run=wait), task("b", "a"), task("c", "b", "a")))
    wait_for(lambda: served.has_seen(run_id, "running"), timeout=30, what="the run")
    page = opened(served, browser, run_id)
    box = page.locator("svg.graph [data-task=a]")
    expect(box).to_have_class(re.compile("running"), timeout=20_000)
    box.focus()
    before = page.evaluate(PLACES)
    (service.root / "go").touch()
    expect(page.locator("svg.graph [data-task=c]")).to_have_class(re.compile("success"), timeout=20_000)
    expect(page.locator("#head .status")).to_contain_text("success", timeout=20_000)
    assert page.evaluate(PLACES) == before
    assert page.evaluate(CROSSED) == []
    assert page.evaluate("document.activeElement.dataset.task") == "a"
    page.keyboard.press("Enter")
    assert page.url.endswith("#task-a")


def test_a_large_graph_is_made_smaller_until_it_fits(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    tasks = [task("first"), *(task(f"t{number}", "first") for number in range(100))]
    run_id = service.ask(service.tasks("d", *tasks))
    wait_for(lambda: served.has_seen(run_id, "success"), timeout=60, what="the run")
    page = opened(served, browser, run_id)
    box = "document.getElementById('graph-box')"
    assert page.evaluate(f"{box}.scrollHeight > {box}.clientHeight")
    expect(page.locator("svg.graph [data-task=first]")).to_be_in_viewport()
    page.get_by_role("button", name="Fit").click()
    assert page.evaluate(f"[{box}.scrollWidth <= {box}.clientWidth, {box}.scrollHeight <= {box}.clientHeight]") == [
        True,
        True,
    ]
    height = page.locator("svg.graph").evaluate("each => each.getBoundingClientRect().height")
    page.get_by_role("button", name="Larger").click()
    assert page.locator("svg.graph").evaluate("each => each.getBoundingClientRect().height") > height


def test_the_graph_is_whole_without_a_script(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.tasks("d", task("a"), task("b", "a"), task("c", "b", "a")))
    wait_for(lambda: served.has_seen(run_id, "success"), timeout=30, what="the run")
    page = opened(served, browser, run_id, java_script_enabled=False)
    for name in "abc":
        expect(page.locator(f"svg.graph [data-task={name}]")).to_be_visible()
    expect(page.locator("svg.graph .edge")).to_have_count(3)
    expect(page.get_by_role("button", name="Fit")).to_be_hidden()
