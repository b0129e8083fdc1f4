"""What a person changes with the pages, and what the log has of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard import VIEWER
from lively import Lively
from playwright.sync_api import Browser, Page, expect

ANN = "ann@dashboard"


@pytest.fixture
def page(lively: Lively, browser: Browser) -> Iterator[Page]:
    """A page of the operator, who agrees to what they are asked."""
    page = lively.dashboard.page(browser)
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    assert page.errors == []  # type: ignore[attr-defined]
    page.context.close()


def opened(page: Page, lively: Lively, path: str) -> None:
    page.goto(f"{lively.dashboard.url}{path}")


def last(lively: Lively, name: str) -> dict[str, Any]:
    """Return the newest event of a name."""
    return lively.service.events(name)[-1]


def test_a_wrong_param_is_refused_with_its_reason_and_a_good_one_is_taken(page: Page, lively: Lively) -> None:
    opened(page, lively, "/schedules/orders_import")
    before = len(lively.service.events("run_requested"))
    page.locator("summary", has_text="Trigger").click()
    page.get_by_label("filters").fill("{oops")
    page.get_by_role("button", name="Trigger a run").click()
    refusal = page.locator("#toasts .bad")
    expect(refusal).to_contain_text("filters")
    assert len(lively.service.events("run_requested")) == before
    page.get_by_label("filters").fill('{"min_total": 20}')
    page.get_by_label("limit").fill("10")
    page.get_by_role("button", name="Trigger a run").click()
    page.wait_for_url("**/runs/orders_import.manual.*")
    event = last(lively, "run_requested")
    assert event["by"] == ANN
    assert (event["params"]["filters"], event["params"]["limit"]) == ({"min_total": 20}, 10)
    expect(page.locator("#facts")).to_contain_text(ANN)


def test_a_backfill_is_counted_agreed_to_and_ends(page: Page, lively: Lively) -> None:
    opened(page, lively, "/schedules/morning_report")
    page.locator("summary", has_text="Backfill").click()
    page.get_by_label("From").fill("2026-02-01")
    page.get_by_label("Up to, and without").fill("2026-02-03")
    page.get_by_role("button", name="Count the runs").click()
    expect(page.locator("#toasts")).to_contain_text("Backfill of 2 runs begins")
    event = last(lively, "backfill_requested")
    assert (event["by"], event["total"]) == (ANN, 2)
    lively.wait(lively.has_backfilled, "the backfill")
    expect(page.locator("#year title", has_text="2026-02-02: 1 run, 0 failed")).to_have_count(1)


def test_a_run_is_retried_whole_and_rerun_as_it_was(page: Page, lively: Lively) -> None:
    run_id = lively.trigger("database_backup", "success")
    opened(page, lively, f"/runs/{run_id}")
    page.get_by_role("button", name="Retry all").click()
    expect(page.locator("#attempts")).to_contain_text("Attempt 2", timeout=20_000)
    event = last(lively, "run_requested")
    assert (event["run_id"], event["attempt"], event["by"]) == (run_id, 2, ANN)
    expect(page.locator("#head .status")).to_contain_text("success", timeout=20_000)
    page.get_by_role("button", name="Rerun as it was").click()
    page.wait_for_url(re.compile(r"/runs/(?!" + re.escape(run_id) + ")"))
    event = last(lively, "run_requested")
    assert (event["rerun_of"], event["by"]) == (run_id, ANN)
    expect(page.locator("#facts")).to_contain_text(run_id)


def test_what_failed_is_retried_and_the_log_says_by_whom(page: Page, lively: Lively) -> None:
    run_id = lively.trigger("orders_import", "failed", limit=0)
    opened(page, lively, f"/runs/{run_id}")
    page.get_by_role("button", name="Retry what failed").click()
    lively.wait(lambda: "run_finished 2 failed" in lively.service.story(run_id), "the second attempt")
    event = last(lively, "run_requested")
    assert (event["run_id"], event["by"]) == (run_id, ANN)
    expect(page.locator("#task-fetch .status")).to_contain_text("kept")


def test_a_question_on_the_first_page_is_answered_with_no(page: Page, lively: Lively) -> None:
    run_id = lively.trigger("release_web", "parked", version="9.9.9")
    opened(page, lively, "/")
    question = page.get_by_role("region", name="Approval").filter(has_text="9.9.9")
    question.get_by_label("Comment").fill("not on a Sunday")
    question.get_by_role("button", name="Reject").click()
    expect(question).to_have_count(0)
    lively.wait(lambda: lively.dashboard.has_seen(run_id, "failed"), "its end")
    (event,) = lively.service.events("task_rejected", run_id)
    assert (event["by"], event["comment"]) == (ANN, "not on a Sunday")


def test_a_run_is_cancelled_and_the_page_and_the_log_say_by_whom(page: Page, lively: Lively) -> None:
    run_id = lively.trigger("warehouse_load", "running", pace=600)
    opened(page, lively, f"/runs/{run_id}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#head .status")).to_contain_text("cancelled", timeout=20_000)
    expect(page.locator("#alerts")).to_contain_text(ANN)
    assert [event["by"] for event in lively.service.events("cancel_requested", run_id)] == [ANN]


def test_the_output_is_sifted_as_one_types_searched_by_enter_and_downloaded(page: Page, lively: Lively) -> None:
    opened(page, lively, lively.paths["run-failed"])
    lines = page.locator("#log .line >> visible=true")
    expect(page.locator("#log")).to_contain_text("checking totals")
    page.get_by_label("Find in the output").press_sequentially("checking")
    expect(lines).to_have_count(3)
    page.get_by_label("Find in the output").press("Enter")
    page.wait_for_url("**find=checking**")
    expect(lines).to_have_count(3)
    expect(page.locator("#log-told")).to_contain_text("3 lines")
    page.get_by_label("Task", exact=True).select_option("fetch")
    page.wait_for_url("**task=fetch**")
    page.get_by_label("Find in the output").fill("")
    page.get_by_label("Find in the output").press("Enter")
    expect(page.locator("#log")).to_contain_text("GET /orders")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "4210 orders" in Path(download.value.path()).read_text()


def test_schedules_are_found_by_text_state_and_tenant(page: Page, lively: Lively) -> None:
    opened(page, lively, "/schedules")
    rows = page.locator("[data-row]")
    page.get_by_label("Text").fill("vendor")
    page.get_by_label("Text").press("Enter")
    expect(rows).to_have_count(10)
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("State").select_option("paused")
    page.get_by_role("button", name="Show").click()
    expect(rows.filter(has_text="disk_clean_up")).to_contain_text(f"by {ANN}: the new disks come on Friday")
    page.get_by_label("State").select_option("failing")
    page.get_by_label("Tenant").select_option("acme-corp")
    page.get_by_role("button", name="Show").click()
    expect(rows.filter(has_text="orders_import")).to_have_count(1)
    assert "tenant=acme-corp" in page.url


def test_one_logs_out_and_is_asked_for_the_token_again(lively: Lively, browser: Browser) -> None:
    page = lively.dashboard.page(browser)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    assert page.context.cookies() == []
    opened(page, lively, "/history")
    expect(page.get_by_label("Token")).to_be_focused()
    page.context.close()


def test_a_viewer_sees_no_button_that_changes_anything_and_may_not_send_it(lively: Lively, browser: Browser) -> None:
    page = lively.dashboard.page(browser, VIEWER)
    before = len(lively.service.events())
    for path in lively.paths.values():
        opened(page, lively, path)
        assert page.locator("[data-action]:not([data-action='/logout'])").count() == 0, path
    post = """async (path) => (await fetch(path, {
      method: "POST", headers: {"Content-Type": "application/json", "X-Tickpool": "1"}, body: "{}",
    })).status"""
    for path in ("schedules/orders_import/trigger", "schedules/orders_import/pause", "health/audit"):
        assert page.evaluate(post, f"/api/v1/{path}") == 403
    wanted = {"run_requested", "schedule_paused"}
    assert not [event for event in lively.service.events()[before:] if event["event"] in wanted]
    page.context.close()
