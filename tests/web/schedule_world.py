"""A project, its service and its dashboard, as the tests of schedules' pages use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from dashboard import OPERATOR, VIEWER, Dashboard
from playwright.sync_api import Browser, Page
from service import Service, WaitFor

_TOKENS = {"ann": OPERATOR, "vic": VIEWER}


class World:
    """What an operator and a viewer see and ask of a dashboard."""

    def __init__(self, service: Service, wait_for: WaitFor) -> None:
        self.service = service
        self.wait_for = wait_for
        self.dashboard = Dashboard(service, wait_for)

    def serve(self) -> None:
        """Start the service and wait until it serves."""
        self.service.start()
        self.wait_for(self.service.is_ready, 30, "a service")

    def open(self) -> None:
        """Start the dashboard and wait until it has read all."""
        self.dashboard.start()

    def get(self, path: str, name: str = "ann") -> httpx.Response:
        """Read a page or a part of the API."""
        return self.dashboard.client(_TOKENS[name]).get(path)

    def page(self, path: str) -> str:
        """Return the text of a page, which there is."""
        answer = self.dashboard.client().get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, name: str = "ann", /, **values: Any) -> httpx.Response:
        """Ask for a change by the API."""
        return self.dashboard.client(_TOKENS[name]).post(f"/api/v1{path}", json=values)

    def shows(self, path: str, text: str) -> Callable[[], bool]:
        """Return what says whether a page shows a text."""
        return lambda: text in self.page(path)


@contextmanager
def world_of(service: Service, wait_for: WaitFor) -> Iterator[World]:
    """Give the block a world in which nothing runs yet."""
    world = World(service, wait_for)
    try:
        yield world
    finally:
        world.dashboard.end()


@contextmanager
def browser_page(browser: Browser, world: World, *, has_scripts: bool = True, width: int = 1280) -> Iterator[Page]:
    """Give the block a page in which the operator is logged in."""
    viewport = {"width": width, "height": 800}
    page = world.dashboard.page(
        browser, java_script_enabled=has_scripts, viewport=viewport, base_url=world.dashboard.url
    )
    try:
        yield page
    finally:
        page.context.close()
