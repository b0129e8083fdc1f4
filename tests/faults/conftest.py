"""Fixtures of the fault tests: how often each attacks, and the figure that it reached."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

FULL = os.environ.get("TICKPOOL_TEST_FULL") == "1"


@pytest.fixture
def count() -> Callable[[int, int], int]:
    """Choose between a reduced count and the full one, which `scripts/test.sh --full` asks for."""
    return lambda reduced, full: full if FULL else reduced


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note what the test reached; the summary at the end of the session shows it."""
    return lambda text: request.node.user_properties.append(("figure", text))
