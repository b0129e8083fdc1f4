"""Fixtures of the whole suite. The only sleep of the tests is in `wait_for`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import Outside
from hypothesis import HealthCheck, settings
from service import Service, WaitFor
from web import Web

# A machine that is loaded is slow, and no fault of a test; a test that takes a directory clears it for each example.
settings.register_profile(
    "tickpool", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("tickpool")


@pytest.fixture(scope="session")
def wait_for() -> WaitFor:
    """Wait until `predicate()` is true, or fail after `timeout` seconds naming what never came."""

    def wait(predicate: Callable[[], object], timeout: float = 10.0, what: str = "the condition") -> None:
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not come true within {timeout} s")
            time.sleep(0.005)

    return wait


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A directory in which real services can be started; whatever still works in it at the end is killed."""
    place = Service(tmp_path)
    yield place
    place.end()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    """A tree outside the project `tmp_path / "project"`; whoever opens or changes a file of it fails the test."""
    for name in ("dags", "schedules"):
        (tmp_path / "project" / name).mkdir(parents=True)
    tree = Outside(tmp_path / "outside")
    yield tree
    touched = tree.touched()
    tree.close()
    assert not touched


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server of this process that answers as it is told to."""
    server = Web()
    yield server
    server.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that the fault tests reached."""
    passed = terminalreporter.stats.get("passed", [])
    figures = [(report.nodeid, text) for report in passed for key, text in report.user_properties if key == "figure"]
    if figures:
        terminalreporter.section("figures")
    for nodeid, text in sorted(figures):
        terminalreporter.write_line(f"{nodeid.rpartition('::')[2]}: {text}")
