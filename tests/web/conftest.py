"""Fixtures of the dashboard's tests: a real one on the directory of `service`, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dashboard import CHROMIUM, Dashboard
from playwright.sync_api import Browser, sync_playwright
from service import Service, WaitFor


@pytest.fixture
def dashboard(service: Service, wait_for: WaitFor) -> Iterator[Dashboard]:
    """A dashboard that a test starts when its service is as it wants it."""
    place = Dashboard(service, wait_for)
    yield place
    place.end()


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
