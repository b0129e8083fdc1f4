"""Fixtures of the dashboard's tests: a real one on the directory of `service`, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard import CHROMIUM, Dashboard
from gated import app_in, asking
from lively import Lively
from playwright.sync_api import Browser, sync_playwright
from service import Service, WaitFor
from starlette.applications import Starlette
from starlette.testclient import TestClient


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    """The application on a log of its own, without a server."""
    return app_in(tmp_path)


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    """Who asks that application."""
    with asking(app) as client:
        yield client


@pytest.fixture
def dashboard(service: Service, wait_for: WaitFor) -> Iterator[Dashboard]:
    """A dashboard that a test starts when its service is as it wants it."""
    place = Dashboard(service, wait_for)
    yield place
    place.end()


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory, wait_for: WaitFor) -> Iterator[Lively]:
    """A project with a history, for all tests that look at pages; what they ask for is of no harm to others."""
    service = Service(tmp_path_factory.mktemp("lively"))
    dashboard = Dashboard(service, wait_for)
    try:
        yield Lively(service, dashboard, wait_for).live(days=20)
    finally:
        dashboard.end()
        service.end()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser at {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox wants what a container does not give.
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()
