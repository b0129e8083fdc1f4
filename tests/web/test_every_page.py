"""What holds for every page: axe finds nothing, it is as narrow as a telephone, quiet, and read without a script."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe
from dashboard import OPERATOR
from lively import Lively
from playwright.sync_api import Browser, Page, expect
from service import WaitFor

PAGES = (
    "now", "schedules", "schedules-filtered", "schedule", "schedule-paused", "run", "run-failed", "run-running",
    "run-approval", "run-cancelled", "run-attempts", "forecast", "forecast-pool", "history", "history-filtered",
    "history-nothing", "history-past", "health", "error",
)  # fmt: skip
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Of text in a drawing axe cannot tell the background: it is painted here as the browser paints it, and compared.
FAINT_TEXTS = """() => {
  const brush = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const paint = (colour, opacity) => {
    brush.globalAlpha = opacity; brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, part) => sum + each * [0.2126, 0.7152, 0.0722][part], 0);
  const found = [];
  for (const text of document.querySelectorAll("main svg text")) {
    if (!text.textContent.trim()) continue;
    text.scrollIntoView({block: "center", inline: "center"});
    const box = text.getBoundingClientRect();
    const below = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2).reverse();
    if (!below.includes(text)) continue;
    let back;
    for (const each of below.filter((each) => each.tagName !== "text" && each.tagName !== "svg")) {
      const style = getComputedStyle(each);
      back = paint(each instanceof SVGElement ? style.fill : style.backgroundColor, Number(style.opacity));
    }
    const [low, high] = [light(back), light(paint(getComputedStyle(text).fill, 1))].sort((one, other) => one - other);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) found.push(`${text.textContent}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""
# `wait_for_function` would look again by an `eval`, which a page forbids.
FOLLOWS = "!document.querySelector('[data-live]') || !document.querySelector('#live').hidden"
# The words of a page, without figures that grow with time, and without what a script sends. It may move them.
FACTS = """() => {
  const page = document.querySelector("main").cloneNode(true);
  const times = "time, [data-ago], [data-since], [data-until], output";
  const acts = "[data-action], details:has(> form), button, noscript, [hidden], .follow, #log-told, #past-go";
  page.querySelectorAll(`${times}, ${acts}`).forEach((each) => each.remove());
  const walk = document.createTreeWalker(page, NodeFilter.SHOW_TEXT), texts = [];
  while (walk.nextNode()) texts.push(walk.currentNode.data);
  const figures = /[0-9][0-9.,]*( ?(ms|s|m|h|d|%|KiB|MiB|GiB)\\b)?/g;
  return texts.join(" ").replace(figures, "").split(/\\s+/).filter(Boolean).sort().join(" ");
}"""


@pytest.fixture(scope="module")
def page(lively: Lively, browser: Browser) -> Iterator[Page]:
    """A page of the operator, with what it asked for and what it said in its console."""
    page = lively.dashboard.page(browser)
    page.asked, page.said = [], []  # type: ignore[attr-defined]
    page.on("request", lambda request: page.asked.append(request.url))  # type: ignore[attr-defined]
    page.on("console", lambda line: page.said.append((line.type, line.text, line.location)))  # type: ignore[attr-defined]
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def plain(lively: Lively, browser: Browser) -> Iterator[Page]:
    """A page of the operator in a browser without scripts."""
    page = lively.dashboard.page(browser, java_script_enabled=False)
    yield page
    page.context.close()


def violations(page: Page) -> list[tuple[str, str]]:
    """Return what axe finds on a page, each with the element."""
    if not page.evaluate("window.axe !== undefined"):
        page.evaluate(Axe().axe_script)
    found = page.evaluate("options => axe.run(document, options)", {"runOnly": TAGS, "resultTypes": ["violations"]})
    return [(each["id"], node["html"]) for each in found["violations"] for node in each["nodes"]]


def check(page: Page) -> None:
    """Prove that a page is for everybody, in both themes, wide and narrow."""
    for scheme, width in product(("light", "dark"), (1280, 360)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        where = f"{page.url}, {scheme}, {width} px"
        assert violations(page) == [], where
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        if width == 1280:
            assert page.evaluate(FAINT_TEXTS) == [], where


def test_each_page_is_looked_at(lively: Lively) -> None:
    assert set(PAGES) == set(lively.paths)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_for_everybody_in_both_themes_wide_and_narrow(lively: Lively, page: Page, name: str) -> None:
    page.goto("about:blank")  # or a fragment would be gone to on the page that is there
    page.goto(f"{lively.dashboard.url}{lively.paths[name]}")
    expect(page.locator("svg.graph:not(.laid)")).to_have_count(0)
    check(page)


def test_the_login_its_refusal_and_the_list_of_keys_are_for_everybody(lively: Lively, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{lively.dashboard.url}/login")
    check(page)
    page.fill("#token", "not-the-token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    check(page)
    page.fill("#token", OPERATOR)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Keys").click()
    check(page)
    page.close()


def test_what_is_faint_or_nameless_would_be_found(page: Page, lively: Lively) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(f"{lively.dashboard.url}/forecast")
    page.evaluate("[...document.querySelectorAll('.hours .in')].find((each) => each.textContent).style.fill = 'silver'")
    page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<img src=/static/icon.svg>')")
    assert [name for name, _ in violations(page)] == ["image-alt"]
    assert len(page.evaluate(FAINT_TEXTS)) == 1


def test_pages_ask_no_other_host_and_say_nothing_in_the_console(lively: Lively, page: Page, wait_for: WaitFor) -> None:
    page.asked.clear(), page.said.clear()  # type: ignore[attr-defined]
    for path in lively.paths.values():
        page.goto("about:blank")
        page.goto(f"{lively.dashboard.url}{path}")
        wait_for(lambda: page.evaluate(FOLLOWS), what="the stream")
    asked, said = page.asked, page.said  # type: ignore[attr-defined]
    assert any(url.endswith("/static/app.js") for url in asked)
    assert [url for url in asked if not url.startswith((f"{lively.dashboard.url}/", "about:"))] == []
    # That one page is not there, the browser says by itself.
    missing = f"{lively.dashboard.url}{lively.paths['error']}"
    assert [each for each in said if each[0] in ("error", "warning") and each[2]["url"] != missing] == []
    assert page.errors == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_tells_the_same_without_a_script(lively: Lively, page: Page, plain: Page, name: str) -> None:
    url = f"{lively.dashboard.url}{lively.paths[name]}"
    plain.goto(url)
    page.goto(url)
    told = plain.evaluate(FACTS)
    assert told
    assert page.evaluate(FACTS) == told
    expect(plain.locator("main noscript p")).to_contain_text("to change something")
    assert plain.locator("[data-action]:not([action]) >> visible=true").count() == 0


def test_nothing_moves_where_that_is_not_wanted(lively: Lively, page: Page) -> None:
    moves = """() => {
      document.querySelector("main section").classList.add("changed");
      const styles = [...document.querySelectorAll("*")].map((each) => getComputedStyle(each));
      // The graph's `appear` moves nothing: it waits for the layout.
      const still = ["none", "appear"];
      return styles.filter((each) => !still.includes(each.animationName) || each.transitionDuration !== "0s").length;
    }"""
    for name in ("now", "schedule", "run-running", "history"):
        page.goto(f"{lively.dashboard.url}{lively.paths[name]}")
        page.emulate_media(reduced_motion="reduce")
        assert page.evaluate(moves) == 0
        page.emulate_media(reduced_motion="no-preference")
        assert page.evaluate(moves) == 1


def test_what_is_wrong_with_the_files_is_told_for_everybody(lively: Lively, page: Page) -> None:
    lively.break_file()
    try:
        for name in ("now", "schedules", "forecast", "health"):
            page.goto(f"{lively.dashboard.url}{lively.paths[name]}")
            check(page)
        expect(page.locator("main")).to_contain_text("platform.yaml")
    finally:
        lively.mend_file()
