"""A real service with its dashboard beside it, and the two who use that: an operator and a viewer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from playwright.sync_api import Browser, Page
from service import Service, WaitFor

TOKENS = {"ana": "a" * 24, "vic": "v" * 24}


class World:
    """A project, its service and its dashboard."""

    def __init__(self, service: Service, wait_for: WaitFor) -> None:
        self.service = service
        self.wait_for = wait_for
        self.url = ""
        self._clients: list[httpx.Client] = []

    def serve(self) -> None:
        """Start the service and wait until it serves."""
        self.service.start()
        self.wait_for(self.service.is_ready, 30, "a service")

    def open(self) -> None:
        """Start the dashboard and wait until it has read all."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        tokens = self.service.root / "tokens"
        tokens.write_text(f"ana operator {TOKENS['ana']}\nvic viewer {TOKENS['vic']}\n", "ascii")
        tokens.chmod(0o600)
        self.url = f"http://127.0.0.1:{port}"
        self.service.launch("-m", "scheduler.cli", "dashboard", "--port", str(port), "--tokens", "tokens")
        self.wait_for(self._is_open, 30, "the dashboard")

    def _is_open(self) -> bool:
        with suppress(httpx.TransportError):
            return bool(self.get("/api/v1/now").json()["is_caught_up"])
        return False

    def client(self, name: str = "ana") -> httpx.Client:
        """Return a client with the token of a user."""
        headers = {"Authorization": f"Bearer {TOKENS[name]}", "X-Tickpool": "1"}
        self._clients.append(httpx.Client(base_url=self.url, headers=headers, timeout=30))
        return self._clients[-1]

    def get(self, path: str, name: str = "ana") -> httpx.Response:
        """Read a page or a part of the API."""
        with self.client(name) as client:
            return client.get(path)

    def page(self, path: str) -> str:
        """Return the text of a page, which there is."""
        with self.client() as client:
            answer = client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, name: str = "ana", /, **values: Any) -> httpx.Response:
        """Ask for a change by the API."""
        with self.client(name) as client:
            return client.post(f"/api/v1{path}", json=values)

    def shows(self, path: str, text: str) -> Callable[[], bool]:
        """Return what says whether a page shows a text."""
        return lambda: text in self.page(path)

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()


@contextmanager
def world_of(service: Service, wait_for: WaitFor) -> Iterator[World]:
    """Give the block a world in which nothing runs yet."""
    world = World(service, wait_for)
    try:
        yield world
    finally:
        world.close()


@contextmanager
def browser_page(browser: Browser, world: World, *, has_scripts: bool = True, width: int = 1280) -> Iterator[Page]:
    """Give the block a page in which the operator is logged in."""
    context = browser.new_context(
        java_script_enabled=has_scripts, viewport={"width": width, "height": 800}, base_url=world.url
    )
    page = context.new_page()
    page.goto("/login")
    page.fill("input[name=token]", TOKENS["ana"])
    page.click("form.login button")
    try:
        yield page
    finally:
        context.close()
