"""The libraries of the pages: unchanged, licensed, inside the wheel, and all that a page loads."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from dashboard import Dashboard
from playwright.sync_api import Browser, expect
from service import REPOSITORY, Service, WaitFor

WEB = REPOSITORY / "scheduler" / "web"
VENDORED = WEB / "static" / "vendor"


def listed() -> dict[str, str]:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (VENDORED / "README.md").read_text(), re.MULTILINE)
    return dict(rows)


def test_every_file_of_a_library_is_the_one_of_its_package() -> None:
    found = {each.name for each in VENDORED.iterdir()} - {"README.md"}
    assert found == set(listed())
    for name, digest in listed().items():
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == digest, name


def test_every_library_has_its_licence_beside_it() -> None:
    libraries = {name.partition(".")[0] for name in listed()}
    for name in libraries:
        assert "Permission is hereby granted" in (VENDORED / f"{name}.LICENSE").read_text(), name


def test_the_wheel_has_all_that_the_pages_load(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    wanted = [each for part in ("static", "templates") for each in (WEB / part).rglob("*") if each.is_file()]
    assert {str(each.relative_to(REPOSITORY)) for each in wanted} <= names
    assert any(name.endswith("licenses/scheduler/web/static/vendor/uPlot.LICENSE") for name in names)


def test_pages_load_nothing_from_elsewhere_and_break_no_rule_of_theirs(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    dag = service.tasks("d", {"id": "a", "run": "true"}, {"id": "b", "run": "true", "needs": ["a"]})
    service.schedule("daily", "0 5 * * *", dag)
    service.start()
    dashboard.start()
    answer = dashboard.client().post("/api/v1/schedules/daily/trigger", json={})
    run_id = answer.json()["run_id"]
    wait_for(lambda: dashboard.has_seen(run_id, "success"), timeout=30, what="the run")
    page = dashboard.page(browser)
    asked: list[str] = []
    told: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    for path in ("/", "/schedules", "/schedules/daily", f"/runs/{run_id}", "/history", "/forecast", "/health"):
        page.goto(f"{dashboard.url}{path}")
        page.wait_for_load_state("load")
        if path.startswith("/runs/"):
            expect(page.locator("svg.graph.laid")).to_be_visible()
    assert [url for url in asked if not url.startswith(f"{dashboard.url}/")] == []
    assert any(url.endswith("dagre.min.js") for url in asked)
    assert any(url.endswith("uPlot.iife.min.js") for url in asked)
    assert told == []
    assert page.errors == []  # type: ignore[attr-defined]
