"""The pages of schedules: read without a script, used as a person would, hostile names shown as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from dashboard import VIEWER
from playwright.sync_api import Browser, expect
from schedule_world import World, browser_page, world_of
from service import Service, WaitFor

from scheduler.state_store import record_event

HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture
def world(service: Service, wait_for: WaitFor) -> Iterator[World]:
    """A schedule `daily` of two tasks, whose second fails; nothing runs yet."""
    service.tasks("d", {"id": "load", "run": "true"}, {"id": "send", "run": "exit 3", "needs": ["load"]})
    dag = service.root / "dags" / "d.yaml"
    dag.write_text(json.dumps({**json.loads(dag.read_text()), "params": {"region": "eu", "full": False, "n": 2}}))
    (service.root / "schedules" / "all.yaml").write_text(
        "# All of them.\n"
        "- id: daily\n"
        f"  description: '{HOSTILE}'\n"
        '  cron: "30 6 * * *"\n'
        "  timezone: Europe/Berlin\n"
        "  dag: dags/d.yaml\n"
        "- id: weekly\n"
        '  cron: "0 4 * * 1"\n'
        "  dag: dags/d.yaml\n"
        "  enabled: false\n"
    )
    with world_of(service, wait_for) as found:
        yield found


def started(world: World) -> World:
    world.serve()
    world.open()
    world.wait_for(world.shows("/schedules", "/schedules/weekly"), 20, "the schedules")
    return world


def fire(name: str, number: int) -> dict[str, str]:
    minute = f"2026-11-{number:02}T05:30:00Z"
    return {"schedule_id": name, "minute": minute, "run_id": f"{name}.{number}", "timestamp": minute}


def test_the_list_is_complete_without_a_script(browser: Browser, world: World) -> None:
    started(world)
    with browser_page(browser, world, has_scripts=False) as page:
        page.goto("/schedules")
        row = page.locator("tr", has=page.locator("a", has_text="daily"))
        assert "06:30" in row.inner_text()
        assert "Europe/Berlin" in row.inner_text()
        assert "disabled" in page.locator("tr", has=page.locator("a", has_text="weekly")).inner_text()
        page.select_option("#f-status", "disabled")
        page.click("text=Show")
        assert "status=disabled" in page.url
        assert page.locator("tbody tr").count() == 1


def record_tagged(world: World, tags: list[str]) -> None:
    """Record twenty schedules with two of the tags each, and one that has none."""
    spec = {"cron": "0 5 * * *", "timezone": "UTC", "enabled": True, "dag": "d"}
    size = len(tags)
    specs = {f"t{n:02}": {**spec, "tags": [tags[n % size], tags[(n + 1) % size]]} for n in range(20)}
    record_event({"event": "schedules_loaded", "specs": {**specs, "plain": spec}}, world.service.log)


def test_a_tag_in_a_row_and_on_a_page_leads_to_all_that_have_it(browser: Browser, world: World) -> None:
    record_tagged(world, ["billing", "nightly", "ops", "east"])
    world.open()
    with browser_page(browser, world, has_scripts=False) as page:
        page.goto("/schedules")
        expect(page.locator("tr", has=page.locator("a", has_text="plain")).locator(".tags")).to_have_count(0)
        page.locator("tr", has=page.locator("a", has_text="t03")).get_by_role("link", name="billing").click()
        expect(page.locator("#head .facts")).to_have_text("10 of 21 schedules")
        assert page.url.endswith("/schedules?tag=billing")
        assert page.input_value("#f-tag") == "billing"
        assert [each.split()[0] for each in page.locator("tbody th").all_inner_texts()[:3]] == ["t00", "t03", "t04"]
        page.select_option("#f-tag", "nightly")
        page.fill("#f-q", "t00")
        page.click("text=Show")
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="t00").click()
        page.locator("#head").get_by_role("link", name="nightly").click()
        expect(page.locator("tbody tr")).to_have_count(10)
        page.click("text=Show all")
        expect(page.locator("tbody tr")).to_have_count(21)


def test_many_tags_are_typed_and_offered(browser: Browser, world: World) -> None:
    tags = [f"tag-{number}" for number in range(40)]
    record_tagged(world, tags)
    more = {f"more{n}": {"cron": "0 5 * * *", "dag": "d", "tags": [f"{n}.{m}" for m in range(20)]} for n in range(40)}
    record_event({"event": "schedules_loaded", "specs": more}, world.service.log)
    world.open()
    with browser_page(browser, world) as page:
        page.goto("/schedules")
        expect(page.locator("datalist#tags option")).to_have_count(500)
        expect(page.locator("datalist#tags option", has_text=re.compile("^tag-3$"))).to_have_count(1)
        page.fill("#f-tag", "tag-3")
        page.click("text=Show")
        expect(page.locator("tbody tr")).to_have_count(2)
        assert page.input_value("#f-tag") == "tag-3"
        page.fill("#f-tag", "none")
        page.click("text=Show")
        expect(page.locator("#list .none")).to_have_text("No schedule is so.")


def test_ten_hundred_rows_come_a_hundred_a_page(world: World) -> None:
    specs = {
        f"s{number:04}": {"cron": "0 5 * * *", "timezone": "UTC", "enabled": True, "dag": "d"} for number in range(250)
    }
    for part in (list(specs.items())[:125], list(specs.items())[125:]):
        record_event({"event": "schedules_loaded", "specs": dict(part)}, world.service.log)
    world.open()
    page = world.page("/schedules")
    assert page.count("data-row") == 100
    assert "1–100 of 250" in page
    (following,) = re.findall(r'href="([^"]*)" rel="next"', page)
    assert "101–200 of 250" in world.page(following.replace("&amp;", "&"))
    last = world.page("/schedules?page=3&q=s0")
    assert last.count("data-row") == 50
    assert 'rel="next"' not in last
    assert world.get("/schedules?page=none").status_code == 400


def test_a_schedule_shows_its_tasks_by_run_its_reasons_and_its_file(world: World) -> None:
    record_event(
        {"event": "schedule_skipped", **fire("daily", 1), "reason": "overlap", "open_run": "daily.0"}, world.service.log
    )
    started(world)
    run_id = world.post("/schedules/daily/trigger").json()["run_id"]
    world.wait_for(lambda: world.service.has_ended(run_id), 30, "the run")
    world.wait_for(world.shows("/schedules/daily", 'class="cell failed" title="failed"'), 20, "the task in the grid")
    page = world.page("/schedules/daily")
    assert f'href="/runs/{run_id}"' in page
    assert re.search(r'<th scope="row">load</th><td><span class="cell success"', page)
    assert "a run of it was open" in page
    assert '1 failed on 1 day"' in page
    assert "schedules/all.yaml:2" in page
    assert "cron: &#34;30 6 * * *&#34;" in page
    assert "id: weekly" not in page
    assert page.count("data-until") >= 10


def test_what_its_file_says_is_shown_as_it_stands_there_now(world: World) -> None:
    started(world)
    world.page("/schedules/daily")
    file = world.service.root / "schedules" / "all.yaml"
    file.write_text(file.read_text().replace("30 6", "45 7"))
    assert "45 7 * * *" in world.page("/schedules/daily")


def test_hostile_names_and_reasons_are_shown_as_text(browser: Browser, world: World) -> None:
    spec = {"cron": HOSTILE, "timezone": HOSTILE, "enabled": True, "dag": HOSTILE, "tenant": HOSTILE, "tags": [HOSTILE]}
    record_event({"event": "schedules_loaded", "specs": {HOSTILE: spec, "b'?&": spec}}, world.service.log)
    record_event(
        {"event": "schedule_skipped", **fire(HOSTILE, 1), "reason": HOSTILE, "open_run": HOSTILE}, world.service.log
    )
    record_event({"event": "schedule_paused", "tenant": HOSTILE, "by": HOSTILE, "reason": HOSTILE}, world.service.log)
    record_event(
        {"event": "schedule_invalid", "file": HOSTILE, "line": 1, "col": 1, "reason": HOSTILE}, world.service.log
    )
    world.open()
    for path in (
        "/schedules",
        "/schedules?status=paused",
        "/schedules?tag=%3Cimg%20src=x",
        "/schedules/%3Cimg%20src=x%20onerror=%22document.title=1%22%3E",
    ):
        page = world.page(path)
        assert "<img src=x" not in page, path
        assert "&lt;img src=x" in page, path
    with browser_page(browser, world) as page:
        page.goto("/schedules")
        assert page.title() == "Schedules · tickpool"
        page.click("th a >> nth=0")
        assert "by <img src=x" in page.locator("#alerts").inner_text()


def test_a_run_is_triggered_by_a_form_made_from_the_params(browser: Browser, world: World) -> None:
    started(world)
    with browser_page(browser, world) as page:
        page.goto("/schedules/daily")
        page.click("summary:has-text('Trigger')")
        assert page.input_value("[name='param.n']") == "2"
        page.fill("[name='param.region']", "us")
        page.select_option("[name='param.full']", "true")
        page.click("button:has-text('Trigger a run')")
        page.wait_for_url("**/runs/daily.*")
    (event,) = world.service.events("run_requested")
    assert (event["by"], event["params"]) == ("ann@dashboard", {"region": "us", "full": True, "n": 2})


def test_a_schedule_is_paused_and_resumed_and_the_page_follows(browser: Browser, world: World) -> None:
    started(world)
    with browser_page(browser, world) as page:
        page.goto("/schedules/daily")
        page.click("summary:has-text('Pause')")
        page.fill("#pause-until", "3h")
        page.fill("#pause-reason", "new disk")
        page.click(".form button:has-text('Pause')")
        page.wait_for_selector("#alerts :text('ann@dashboard: new disk')")
        assert "paused" in page.locator("#head").inner_text()
        page.click("button:has-text('Resume')")
        page.wait_for_selector("#head .status:has-text('active')")
    assert [each["by"] for each in world.service.events("schedule_resumed")] == ["ann@dashboard"]


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_backfill_is_done_only_after_its_count_was_agreed_to(
    browser: Browser, world: World, *, is_wanted: bool
) -> None:
    started(world)
    asked: list[str] = []
    with browser_page(browser, world) as page:
        page.on(
            "dialog", lambda dialog: (asked.append(dialog.message), dialog.accept() if is_wanted else dialog.dismiss())
        )
        page.goto("/schedules/daily")
        page.click("summary:has-text('Backfill')")
        page.fill("#b-from", "2026-01-01")
        page.fill("#b-until", "2026-01-04")
        page.click("button:has-text('Count the runs')")
        page.wait_for_selector("button:has-text('Count the runs'):enabled")
        if is_wanted:
            page.wait_for_selector("#toasts p:has-text('Backfill of 3 runs begins')")
    assert asked
    assert asked[0].startswith("3 runs of daily")
    assert [each["total"] for each in world.service.events("backfill_requested")] == ([3] if is_wanted else [])


def test_a_refusal_is_told_on_the_page(browser: Browser, world: World) -> None:
    started(world)
    with browser_page(browser, world) as page:
        page.goto("/schedules/daily")
        page.click("summary:has-text('Pause')")
        page.fill("#pause-until", "soon")
        page.click(".form button:has-text('Pause')")
        page.wait_for_selector("#toasts p.bad:has-text('write a duration such as 7d')")


def test_a_viewer_sees_no_form(world: World) -> None:
    started(world)
    page = world.dashboard.client(VIEWER).get("/schedules/daily", headers={"Accept": "text/html"}).text
    assert 'data-action="/api/' not in page
    assert "06:30" in page


def test_a_fire_time_within_a_pause_is_said_not_to_run(world: World) -> None:
    started(world)
    assert "it is paused" not in world.page("/schedules/daily")
    assert world.post("/schedules/daily/pause", until="60h").status_code == 200
    world.wait_for(world.shows("/schedules/daily", "not run: it is paused"), 20, "the pause")
    assert world.page("/schedules/daily").count("not run: it is paused") in (2, 3)


def test_a_grid_says_how_many_tasks_it_leaves_out(world: World) -> None:
    dag = world.service.root / "dags" / "d.yaml"
    dag.write_text(json.dumps({"id": "d", "tasks": [{"id": f"t{number}", "run": "true"} for number in range(82)]}))
    started(world)
    record_event(
        {"event": "schedule_enqueued", **fire("daily", 1), "attempt": 1, "dag": "dags/d.yaml"}, world.service.log
    )
    world.wait_for(world.shows("/schedules/daily", "2 further tasks not shown"), 20, "the run")
    assert "in the last 1 run <" in world.page("/schedules/daily")


@pytest.mark.parametrize("width", [360, 1280])
def test_names_that_are_too_long_for_a_row_are_broken(browser: Browser, world: World, width: int) -> None:
    spec = {"cron": "0 5 * * *", "timezone": "UTC", "dag": "d", "tenant": "t" * 100, "tags": ["g" * 100]}
    record_event({"event": "schedules_loaded", "specs": {"n" * 120: spec}}, world.service.log)
    world.open()
    with browser_page(browser, world, width=width) as page:
        page.goto("/schedules")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("td.words").evaluate("each => each.clientWidth") > 200


def test_a_long_reason_has_two_lines_in_the_list_and_all_of_it_in_its_title(browser: Browser, world: World) -> None:
    started(world)
    reason = "new disk, " * 99
    assert world.post("/schedules/daily/pause", until="3h", reason=reason).status_code == 200
    world.wait_for(world.shows("/schedules", "new disk"), 20, "the pause")
    with browser_page(browser, world) as page:
        page.goto("/schedules")
        told = page.locator("tr", has_text="daily").locator(".reason")
        height = told.evaluate("each => each.clientHeight / parseFloat(getComputedStyle(each).lineHeight)")
        assert round(height) == 2
        assert reason.strip() in (told.get_attribute("title") or "")
        assert told.inner_text().startswith("until 20")


@pytest.mark.parametrize("path", ["/schedules", "/schedules/daily", "/forecast", "/health"])
def test_a_narrow_page_does_not_scroll_sideways(browser: Browser, world: World, path: str) -> None:
    started(world)
    with browser_page(browser, world, width=360) as page:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
