"""All times of a page are of one zone, the server's, wherever its reader is, and the page says which that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from dashboard import Dashboard
from playwright.sync_api import Browser, expect
from service import Service, WaitFor

# What is drawn on a canvas is in no element.
LISTEN = """
window.drawn = [];
const fill = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (...all) { drawn.push(all[0]); fill.apply(this, all); };
"""
SAYS = 'i=0; while [ ! -e go ]; do i=$((i+1)); echo "step $i"; sleep 0.1; done'


@pytest.mark.parametrize(
    ("variable", "told", "zone"),
    [
        ("America/New_York", "America/New_York", ZoneInfo("America/New_York")),
        ("XYZ-5:30", "UTC+05:30", timezone(timedelta(hours=5.5))),
    ],
)
def test_what_scripts_tell_is_of_the_zone_of_the_server_and_not_of_the_reader(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor, variable: str, told: str, zone: tzinfo
) -> None:
    def moment(at_s: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        return f"{datetime.fromtimestamp(at_s, zone):{form}}"

    service.environ["TZ"] = variable
    service.schedule("s", "0 0 1 1 *", service.dag("says", SAYS))
    service.start()
    wait_for(service.is_ready, 30, "a service")
    client = dashboard.start().client()
    run_id = client.post("/api/v1/schedules/s/trigger").json()["run_id"]
    page = dashboard.page(browser, timezone_id="Asia/Tokyo")
    page.add_init_script(LISTEN)
    expect(page.locator("#zone")).to_have_text(told)

    wait_for(lambda: len(client.get(f"/api/v1/runs/{run_id}/log").json()["lines"]) > 2, 30, "output")
    page.goto(f"{dashboard.url}/runs/{run_id}")
    shown = page.locator("#log .line").count()
    wait_for(lambda: page.locator("#log .line").count() > shown > 0, 30, "lines that a script adds to the server's")
    (service.root / "go").touch()
    wait_for(lambda: dashboard.has_seen(run_id, "success"), 30, "its end")
    lines = client.get(f"/api/v1/runs/{run_id}/log").json()["lines"]
    times = [moment(each["at_s"], "%H:%M:%S") for each in lines]
    expect(page.locator("#log .line time")).to_have_text(times)

    page.goto(f"{dashboard.url}/schedules/s")
    (point,) = json.loads(page.get_attribute("#duration figure", "data-chart") or "")["points"]
    expect(page.locator("#duration .u-over")).to_be_visible()
    page.focus("#duration .u-over")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#duration .plot-told span").last).to_have_text(moment(point[0]))
    assert moment(point[0], "%H:%M") in page.evaluate("drawn")

    page.goto(f"{dashboard.url}/history")
    slide = page.locator("#past-slide")
    first_s = int(slide.get_attribute("min") or 0)
    slide.evaluate("(it, at) => { it.value = at; it.dispatchEvent(new Event('input')); }", first_s)
    expect(page.locator("#past-told")).to_have_text(moment(first_s))
    assert page.errors == []  # type: ignore[attr-defined]
    page.context.close()


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "+01:00"),
        ("XYZ3:30", "-03:30"),
        ("UTC0", "UTC"),
        ("Etc/UTC", "UTC"),
        ("Nowhere/Town", "UTC"),
        ("../etc/passwd", "UTC"),
    ],
)
def test_the_zone_of_the_server_has_a_name_that_scripts_know_or_is_an_offset(variable: str, name: str) -> None:
    code = (
        "from datetime import UTC, datetime; from scheduler.web.moments import server_zone\n"
        "print(server_zone(datetime(2026, 1, 5, tzinfo=UTC)))"
    )
    environ = os.environ | {"TZ": variable}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == f"{name}\n"
