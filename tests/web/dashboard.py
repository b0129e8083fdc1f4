"""A real dashboard beside a real service, and who asks it: programs with a token, people with a browser."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page
from service import Service, WaitFor

CHROMIUM = Path("/usr/bin/chromium")
OPERATOR, VIEWER = "token-of-the-operator", "token-of-the-viewer"
HEADERS = {"X-Tickpool": "1"}


class Dashboard:
    """`python -m scheduler.cli dashboard` on a service's directory; `ann` is an operator, `vic` a viewer."""

    def __init__(self, service: Service, wait_for: WaitFor) -> None:
        self.service = service
        self._wait_for = wait_for
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, httpx.Client] = {}

    def start(self, *options: str) -> Dashboard:
        """Start it with these further options, and wait until it has read all there was."""
        tokens = self.service.root / "tokens"
        tokens.write_text(f"ann operator {OPERATOR}\nvic viewer {VIEWER}\n", "ascii")
        tokens.chmod(0o600)
        words = ("--port", str(self.port), "--tokens", str(tokens), "--dir", "schedules", *options)
        self.process = self.service.launch("-m", "scheduler.cli", "dashboard", *words)
        self._look = self.client()
        self._wait_for(lambda: _is_caught_up(self._look), timeout=30, what="the dashboard")
        return self

    def client(self, token: str = OPERATOR) -> httpx.Client:
        """Return the program that asks with a token."""
        if token not in self._clients:
            headers = {**HEADERS, "Authorization": f"Bearer {token}"}
            self._clients[token] = httpx.Client(base_url=self.url, headers=headers, timeout=20)
        return self._clients[token]

    def page(self, browser: Browser, token: str = OPERATOR, **context: Any) -> Page:
        """Return a page of a person who has logged in. Whatever the page's own code throws fails the test."""
        inside = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        page = inside.new_page()
        page.set_default_timeout(20_000)
        page.errors = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
        page.goto(f"{self.url}/login")
        page.fill("#token", token)
        page.click("main button")
        page.wait_for_selector("#head")
        return page

    def has_seen(self, run_id: str, *statuses: str) -> bool:
        """Say whether the dashboard knows of a run, with one of these statuses where they are given."""
        answer = self._look.get(f"/api/v1/runs/{run_id}")
        return answer.status_code == 200 and (not statuses or answer.json()["status"] in statuses)

    def end(self) -> None:
        """End it in order."""
        for client in self._clients.values():
            client.close()
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)


def _is_caught_up(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/api/v1/now").json()["is_caught_up"])
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
