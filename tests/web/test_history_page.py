"""The page History, as a person reads and uses it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dashboard import Dashboard
from playwright.sync_api import Browser, expect
from service import Service, WaitFor

EVIL = "<b onclick=alert(1)>reason</b>"


def test_every_run_is_there_a_page_at_a_time(service: Service, dashboard: Dashboard, browser: Browser) -> None:
    for number in range(120):
        service.ask("dags/d.yaml", f"run.{number}", tenant="red" if number % 3 else "blue", by="x")
    dashboard.start()
    page = dashboard.page(browser, java_script_enabled=False)
    page.goto(f"{dashboard.url}/history")
    expect(page.locator("#history-count")).to_have_text("120 runs")
    expect(page.locator("tr[data-row]")).to_have_count(50)
    expect(page.locator("tr[data-row]").first).to_contain_text("run.119")
    page.click("text=Older")
    expect(page.locator("tr[data-row]").first).to_contain_text("run.69")
    page.click("text=Older")
    expect(page.locator("tr[data-row]")).to_have_count(20)
    assert page.locator("text=Older").count() == 0
    page.select_option("#f-tenant", "blue")
    page.fill("#f-q", "RUN.1")
    page.click("text=Show >> nth=0")
    assert "q=RUN.1" in page.url
    assert "tenant=blue" in page.url
    expect(page.locator("#history-count")).to_have_text("9 runs")
    page.goto(page.url)
    expect(page.locator("#f-q")).to_have_value("RUN.1")
    page.click("text=queued 9")
    expect(page.locator("tr[data-row]")).to_have_count(9)
    page.click("text=Clear")
    expect(page.locator("#history-count")).to_have_text("120 runs")


def test_the_search_of_the_head_leads_to_a_run_or_a_schedule_or_to_what_holds_the_text(
    service: Service, dashboard: Dashboard, browser: Browser
) -> None:
    service.ask("dags/d.yaml", "nightly.1", for_schedule="nightly", by="x")
    dashboard.start()
    api = dashboard.client()
    assert api.get("/history", params={"q": "nightly.1"}).headers["location"] == "/runs/nightly.1"
    assert api.get("/history", params={"q": "nightly"}).headers["location"] == "/schedules/nightly"
    assert api.get("/history", params={"q": "nightly", "status": ""}).status_code == 200
    page = dashboard.page(browser)
    page.keyboard.press("/")
    page.keyboard.type("night")
    page.keyboard.press("Enter")
    page.wait_for_url("**/history?q=night")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/nightly.1")


def test_new_runs_come_by_themselves_and_reasons_are_text(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    dashboard.start()
    page = dashboard.page(browser)
    page.goto(f"{dashboard.url}/history")
    expect(page.locator("#runs")).to_contain_text("No run is like that.")
    run_id = service.ask(service.dag("d", "exit 3"), by=EVIL)
    expect(page.locator("tr[data-row]")).to_contain_text(run_id)
    expect(page.locator("tr[data-row] .status")).to_contain_text("failed", timeout=20_000)
    assert page.locator("main b").count() == 0
    assert page.errors == []  # type: ignore[attr-defined]


def test_a_past_moment_is_shown_by_the_field_and_by_the_slider(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    run_id = service.ask(service.dag("d", "while [ ! -e go ]; do sleep 0.02; done"))
    dashboard.start()
    wait_for(lambda: dashboard.has_seen(run_id, "running"), what="the run")
    began = datetime.now(UTC)
    wait_for(lambda: datetime.now(UTC) > began + timedelta(seconds=2), what="a later moment")
    then = datetime.now(UTC)
    wait_for(lambda: datetime.now(UTC) > then + timedelta(seconds=2), what="a still later one")
    (service.root / "go").touch()
    wait_for(lambda: dashboard.has_seen(run_id, "success"), what="its end")
    page = dashboard.page(browser)
    page.goto(f"{dashboard.url}/history?at={then.timestamp()}")
    expect(page.locator("#past .columns > div").first).to_contain_text(run_id)
    slide, shown = page.locator("#past-slide"), page.url
    slide.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    told = page.locator("#past-told").inner_text()
    # Many keys lead to a moment: the page is the same until one goes there.
    assert (page.url, page.evaluate("document.activeElement.id")) == (shown, "past-slide")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\?at=\d+#past"))
    expect(page.locator("#past-facts, #past .none").first).to_be_visible()
    expect(page.locator("#past-told")).to_have_text(told)
    drawn = page.url
    slide.click()
    page.wait_for_url(lambda url: url != drawn)
    expect(page.locator("#past-facts, #past .none").first).to_be_visible()
    page.fill("#past-at", "2001-01-01T00:00")
    page.click("#past form >> nth=0 >> text=Show")
    expect(page.locator("#past")).to_contain_text("nothing is on record")
    assert page.errors == []  # type: ignore[attr-defined]


def test_a_page_that_nobody_sees_asks_for_nothing_and_is_up_to_date_once_it_is_seen(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    dashboard.start()
    page = dashboard.page(browser)
    page.goto(f"{dashboard.url}/history")
    expect(page.locator("#live")).to_have_text("live")
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show = "(isHidden) => { Object.defineProperty(document, 'hidden', {configurable: true, get: () => isHidden}); }"
    page.evaluate(show, True)
    page.evaluate("new EventSource('/stream').addEventListener('change', () => { window.told = true; })")
    service.ask("dags/d.yaml", "unseen.1", by="x")
    # Not by `wait_for_function`, which looks again by an `eval` that the page forbids.
    wait_for(lambda: page.evaluate("window.told"), what="the news")
    assert asked == [f"{dashboard.url}/stream"]
    page.evaluate(show, False)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#runs")).to_contain_text("unseen.1")
