"""The dashboard by the keyboard alone, as a person uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from lively import Lively
from playwright.sync_api import Browser, Page, expect

from scheduler.web.pages import MENU

# What Tab should reach, in the order of the page.
REACHABLE = """() => {
  const all = 'a[href], button:not(:disabled), input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
  return [...document.querySelectorAll(all)].filter((each) => each.checkVisibility({visibilityProperty: true})).length;
}"""
AT = re.compile(r"\bat\b")
# Who has the focus: where it stands among all elements, and whether that can be seen.
FOCUSED = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const styles = [at, ...at.querySelectorAll("rect")].map((each) => getComputedStyle(each));
  const box = at.getBoundingClientRect();
  const seen = styles.some((each) => each.outlineStyle !== "none" && parseFloat(each.outlineWidth) >= 2 ||
    parseFloat(each.strokeWidth) >= 3);
  return [[...document.querySelectorAll("*")].indexOf(at), seen && box.width > 0 && box.right > 0, at.outerHTML];
}"""
# What a page asks for to stay up to date.
LIVE = ("eventsource", "fetch")


@pytest.fixture
def page(lively: Lively, browser: Browser) -> Iterator[Page]:
    """A page of the operator, on Now."""
    page = lively.dashboard.page(browser)
    yield page
    assert page.errors == []  # type: ignore[attr-defined]
    page.context.close()


def opened(page: Page, lively: Lively, name: str) -> None:
    page.goto(f"{lively.dashboard.url}{lively.paths[name]}")
    expect(page.locator("svg.graph:not(.laid)")).to_have_count(0)


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.tagName"))


@pytest.mark.parametrize(
    "name", ["now", "schedules", "schedule", "run", "run-approval", "forecast", "history-filtered", "health", "error"]
)
def test_tab_reaches_all_in_order_and_shows_where_it_is(page: Page, lively: Lively, name: str) -> None:
    # What comes or goes while one walks through it would be counted wrongly: the page stays as it is.
    page.route("**/*", lambda route: route.abort() if route.request.resource_type in LIVE else route.continue_())
    opened(page, lively, name)
    page.locator("summary").evaluate_all("all => all.forEach((each) => each.parentElement.open = true)")
    count, reached = page.evaluate(REACHABLE), []
    # A field of a date takes a Tab for each of its parts.
    for _ in range(count + 30):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found is None:
            break
        place, is_seen, element = found
        assert is_seen, element
        if place not in reached:
            assert not reached or place > max(reached), element
            reached.append(place)
    assert len(reached) == count


def test_the_skip_link_leads_behind_the_menu(page: Page, lively: Lively) -> None:
    opened(page, lively, "schedules")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == "f-q"


def test_g_and_a_letter_lead_to_each_page(page: Page, lively: Lively) -> None:
    for where, title, key in MENU:
        opened(page, lively, "history" if title != "History" else "health")
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"{lively.dashboard.url}{where}")
        expect(page.locator("h1")).to_have_text(title)


@pytest.mark.parametrize("name", ["now", "schedules", "schedule", "run", "forecast", "history", "health"])
def test_a_slash_leads_to_the_search_and_what_is_typed_there_is_no_key(page: Page, lively: Lively, name: str) -> None:
    opened(page, lively, name)
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("jk?g/gs")
    expect(page.locator("#search")).to_have_value("jk?g/gs")
    assert page.locator("dialog[open], .at").count() == 0
    assert page.url == f"{lively.dashboard.url}{lively.paths[name]}"


@pytest.mark.parametrize("name", ["now", "schedules", "run", "history"])
def test_j_and_k_walk_through_rows_and_enter_opens_one(page: Page, lively: Lively, name: str) -> None:
    opened(page, lively, name)
    rows = page.locator("[data-row]")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(rows.nth(1)).to_have_class(AT)
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(rows.nth(0)).to_have_class(AT)
    link = rows.nth(0).locator("a").first
    expect(link).to_be_focused()
    target = str(link.evaluate("each => each.href"))
    page.keyboard.press("Enter")
    page.wait_for_url(target)


def test_j_goes_on_from_where_tab_has_led(page: Page, lively: Lively) -> None:
    opened(page, lively, "schedules")
    page.locator("[data-row] a").nth(3).focus()
    page.keyboard.press("j")
    expect(page.locator("[data-row] a").nth(4)).to_be_focused()


def test_the_list_of_keys_opens_and_closes_and_gives_the_focus_back(page: Page, lively: Lively) -> None:
    opened(page, lively, "schedules")
    link = page.locator("[data-row] a").first
    link.focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("g")
    page.keyboard.press("h")
    assert page.locator(".at").count() == 0
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(link).to_be_focused()


def test_keys_with_control_or_alt_are_left_to_the_browser(page: Page, lively: Lively) -> None:
    opened(page, lively, "schedules")
    for held in ("Control", "Alt", "Meta"):
        for key in ("j", "/", "g", "s"):
            page.keyboard.press(f"{held}+{key}")
    assert page.locator(".at, dialog[open]").count() == 0
    assert focused(page) == "BODY"
    assert page.url.endswith("/schedules")


def test_keys_can_be_turned_off_and_stay_so(page: Page, lively: Lively) -> None:
    opened(page, lively, "schedules")
    page.get_by_role("button", name="Keys").press("Enter")
    page.get_by_label("Use these keys").press("Space")
    page.keyboard.press("Escape")
    opened(page, lively, "history")
    for key in ("/", "j", "?"):
        page.keyboard.press(key)
    assert page.locator(".at, dialog[open]").count() == 0
    assert focused(page) == "BODY"
    page.get_by_role("button", name="Keys").press("Enter")
    page.get_by_label("Use these keys").press("Space")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert focused(page) == "search"


def test_the_focus_stays_where_it_is_when_the_page_is_made_anew(page: Page, lively: Lively) -> None:
    opened(page, lively, "history")
    page.keyboard.press("j")
    known = page.locator("[data-row] a").first.inner_text()
    new = lively.trigger("database_backup", "success")
    expect(page.locator("[data-row] a").first).to_have_text(new)
    expect(page.locator(f"[data-row] a:text-is('{known}')")).to_be_focused()
    expect(page.locator(".at a").first).to_have_text(known)
    page.keyboard.press("k")
    expect(page.locator(f"[data-row] a:text-is('{new}')")).to_be_focused()


def test_a_run_is_triggered_and_a_schedule_paused_by_the_keyboard_alone(page: Page, lively: Lively) -> None:
    opened(page, lively, "now")
    page.keyboard.type("/orders_import")
    page.keyboard.press("Enter")
    page.wait_for_url("**/schedules/orders_import")
    page.locator("summary", has_text="Trigger").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("kiosk")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/orders_import.manual.*")
    event = lively.service.events("run_requested")[-1]
    assert (event["by"], event["params"]["shop"]) == ("ann@dashboard", "kiosk")
    page.goto(f"{lively.dashboard.url}/schedules/vendor_export.kone")
    page.locator("summary", has_text="Pause").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("2h")
    page.keyboard.press("Tab")
    page.keyboard.type("they move")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#alerts")).to_contain_text("ann@dashboard: they move")
    page.get_by_role("button", name="Resume").press("Enter")
    expect(page.locator("#head .status")).to_contain_text("active")


def test_a_question_is_answered_by_the_keyboard_alone(page: Page, lively: Lively) -> None:
    run_id = lively.trigger("release_web", "parked")
    page.goto(f"{lively.dashboard.url}/runs/{run_id}")
    page.get_by_label("Comment").focus()
    page.keyboard.type("agreed")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Approve")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#head .status")).to_contain_text("success", timeout=20_000)
    event = lively.service.events("task_approved", run_id)[0]
    assert (event["by"], event["comment"]) == ("ann@dashboard", "agreed")
