"""The dashboard's pictures: a real service lives for a while, and every page is shot.

`scripts/screenshots` calls it with the directory for the pictures, and for how many seconds the service lives.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dashboard import CHROMIUM, Dashboard
from lively import Lively
from playwright.sync_api import Browser, sync_playwright
from service import Service, kill9

DAYS = 330
# The page, how it is called by `Lively.live`.
PAGES = {
    "now": "now",
    "schedule": "schedule",
    "run": "run-approval",
    "forecast": "forecast",
    "history": "history",
    "schedules": "schedules",
    "health": "health",
}
LOOKS = {"light": ("light", 1280, 1320), "dark": ("dark", 1280, 1320), "narrow": ("light", 360, 1100)}


def main(place: Path, lives_s: float) -> None:
    """Let a project live, and shoot its dashboard."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tickpool-") as directory:
        service = Service(Path(directory))
        dashboard = Dashboard(service, wait_for)
        try:
            _shoot_all(Lively(service, dashboard, wait_for, is_busy=True), place, lives_s)
        finally:
            dashboard.end()
            service.end()


def wait_for(predicate: Callable[[], object], timeout: float = 10.0, what: str = "the condition") -> None:
    """Wait until it is so, or end naming what never came."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not come true within {timeout} s")
        time.sleep(0.05)


def _shoot_all(lively: Lively, place: Path, lives_s: float) -> None:
    began = time.monotonic()
    paths = lively.live(days=DAYS).paths
    time.sleep(max(0.0, began + lives_s - time.monotonic()))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        _shoot(browser, lively.dashboard, place, "login", "/login")
        for name, key in PAGES.items():
            if name == "schedules":  # a fault is something to see there, and leaves no forecast
                _break(lively)
            # Of a day nobody would see what has lived for two minutes.
            _shoot(browser, lively.dashboard, place, name, paths[key] + ("?window=1h" if name == "now" else ""))
        browser.close()


def _break(lively: Lively) -> None:
    """Kill a worker, and write a fault into a file."""
    worker = next(each for each in lively.get("/now")["workers"] if not each["run_id"])  # type: ignore[attr-defined]
    kill9(next(each for each in lively.service.workers(lively.supervisor) if each.pid == worker["pid"]))
    lively.break_file()
    lively.audit()


def _shoot(browser: Browser, dashboard: Dashboard, place: Path, name: str, path: str) -> None:
    for look, (scheme, width, height) in LOOKS.items():
        page = dashboard.page(browser, color_scheme=scheme)
        if name == "login":
            page.context.clear_cookies()
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{dashboard.url}{path}")
        page.evaluate("document.fonts.ready.then(() => true)")
        tall = min(height, page.evaluate("document.documentElement.scrollHeight"))
        page.screenshot(
            path=place / f"dashboard-{name}-{look}.png",
            full_page=True,
            animations="disabled",
            clip={"x": 0, "y": 0, "width": width, "height": tall},
        )
        page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
