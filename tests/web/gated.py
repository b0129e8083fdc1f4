"""The real application behind its gate, on a log of its own, and who asks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from scheduler.web.app import build_app
from scheduler.web.gate import COOKIE
from scheduler.web.tokens import Tokens, User
from workers.settings import Settings

OPERATOR, VIEWER = "operator-token-0123456789", "viewer-token-0123456789"
USERS = {OPERATOR: User("ann", "operator"), VIEWER: User("bob", "viewer")}
HERE = "http://dash.test:8400"
HTML = {"accept": "text/html"}
SESSION = f"{COOKIE}_8400"


def app_in(directory: Path, *, is_secure: bool = False) -> Starlette:
    """Return a dashboard that is called dash.test:8400."""
    (directory / "schedules").mkdir(exist_ok=True)
    settings = Settings(
        state_path=str(directory / "logs" / "state.jsonl"),
        events_path=str(directory / "logs" / "events.jsonl"),
        run_logs_dir=str(directory / "logs" / "runs"),
    )
    return build_app(settings, directory / "schedules", Tokens(USERS), ["dash.test:8400"], is_secure=is_secure)


def asking(app: Starlette, address: str = "192.0.2.1", url: str = HERE) -> TestClient:
    """Return who asks from an address."""
    return TestClient(app, base_url=url, follow_redirects=False, client=(address, 50000), raise_server_exceptions=False)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def paths(routes: list[BaseRoute], before: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield every path of the route table, with something in place of its parameters, and its methods."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes or [], before + route.path)
        elif isinstance(route, Route):
            yield before + re.sub(r"{[^}]*}", "x", route.path), route.methods or set()


def login(client: TestClient, token: str = OPERATOR, **headers: str) -> str:
    """Log in, and return the session."""
    answer = client.post("/login", data={"token": token, "next": "/"}, headers={"origin": HERE, **headers})
    assert answer.status_code == 303
    return str(answer.cookies[SESSION])
