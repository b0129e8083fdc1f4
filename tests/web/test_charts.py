"""The charts of a schedule: they tell the run under the cursor, open it, and are whole without a script."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from schedule_world import World, browser_page, world_of
from service import Service, WaitFor

from scheduler.state_store import record_event

RUNS = 12


def run(world: World, number: int) -> str:
    """Put a run of `daily` on record that took as many seconds as its number; each fourth has failed."""
    day = f"2026-11-{number:02}T05:30"
    name = {"schedule_id": "daily", "run_id": f"daily.{number}", "minute": f"{day}:00Z", "attempt": 1}
    status = "failed" if number % 4 == 0 else "success"
    for at, event in (
        ("00", {"event": "schedule_enqueued", "dag": "dags/d.yaml"}),
        ("02", {"event": "run_started", "pid": 1}),
        ("40", {"event": "run_finished", "status": status, "duration_s": float(number)}),
    ):
        record_event({**event, **name, "timestamp": f"{day}:{at}Z"}, world.service.log)
    return f"daily.{number}"


@pytest.fixture
def world(service: Service, wait_for: WaitFor) -> Iterator[World]:
    """A schedule with twelve runs on record, and its dashboard."""
    service.schedule("daily", "30 5 * * *", service.dag("d", "true"))
    spec = {"cron": "30 5 * * *", "timezone": "UTC", "enabled": True, "dag": "dags/d.yaml"}
    record_event({"event": "schedules_loaded", "specs": {"daily": spec}}, service.log)
    with world_of(service, wait_for) as found:
        for number in range(1, RUNS + 1):
            run(found, number)
        found.open()
        yield found


def point_at(page: Page, number: int) -> tuple[float, float]:
    """Return where the bar of a run stands in the chart of durations."""
    box = page.locator("#duration .u-over").bounding_box()
    assert box is not None
    return box["x"] + box["width"] * (number - 0.5) / RUNS, box["y"] + box["height"] / 2


def test_a_chart_tells_the_run_under_the_cursor_and_a_click_opens_it(browser: Browser, world: World) -> None:
    with browser_page(browser, world) as page:
        page.goto("/schedules/daily")
        page.locator("#duration .u-over").scroll_into_view_if_needed()
        page.mouse.move(*point_at(page, 8))
        told = page.locator("#duration .plot-told")
        expect(told).to_contain_text("daily.8")
        expect(told).to_contain_text("8s · failed")
        expect(told).to_contain_text("2026-11-08")
        page.mouse.move(*point_at(page, 3))
        expect(told).to_contain_text("3s · success")
        page.mouse.click(*point_at(page, 3))
        page.wait_for_url("**/runs/daily.3")


def test_a_drag_shows_a_part_and_opens_nothing(browser: Browser, world: World) -> None:
    with browser_page(browser, world) as page:
        page.goto("/schedules/daily")
        page.locator("#duration .u-over").scroll_into_view_if_needed()
        everything = page.get_by_role("button", name="Show all")
        expect(everything).to_have_count(0)
        page.mouse.move(*point_at(page, 2))
        page.mouse.down()
        page.mouse.move(*point_at(page, 5), steps=4)
        page.mouse.up()
        expect(everything).to_have_count(1)
        assert page.url.endswith("/schedules/daily")
        page.mouse.move(*point_at(page, RUNS))
        expect(page.locator("#duration .plot-told")).to_contain_text("daily.5")
        run(world, RUNS + 1)
        expect(page.locator("#duration .u-over")).to_have_attribute("aria-label", re.compile("last 13 runs"))
        expect(everything).to_have_count(1)
        everything.click()
        expect(everything).to_have_count(0)


def test_a_chart_is_walked_through_by_keys_and_takes_in_a_run_that_ends(browser: Browser, world: World) -> None:
    with browser_page(browser, world) as page:
        page.goto("/schedules/daily")
        page.focus("#duration .u-over")
        page.keyboard.press("End")
        told = page.locator("#duration .plot-told")
        expect(told).to_contain_text("daily.12")
        page.keyboard.press("ArrowLeft")
        expect(told).to_contain_text("daily.11")
        run(world, RUNS + 1)
        expect(page.locator("#duration .u-over")).to_have_attribute("aria-label", re.compile("last 13 runs"))
        page.focus("#duration .u-over")
        page.keyboard.press("End")
        expect(told).to_contain_text("daily.13")
        page.keyboard.press("Enter")
        page.wait_for_url("**/runs/daily.13")


def test_a_schedule_shows_its_charts_without_a_script(browser: Browser, world: World) -> None:
    with browser_page(browser, world, has_scripts=False) as page:
        page.goto("/schedules/daily")
        for name in ("duration", "lateness"):
            expect(page.locator(f"#{name} svg.lengths")).to_be_visible()
        expect(page.locator("#duration .legend")).to_contain_text("p50 6.0s")
        expect(page.locator("#lateness .legend")).to_contain_text("p95 2.0s")
