"""The gate of the dashboard: a rule, a test. The application is the real one, on a log of its own."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from scheduler.web.app import build_app
from scheduler.web.gate import COOKIE, OPEN_PATHS
from scheduler.web.tokens import BadTokens, Tokens, User, make_tokens, read_tokens
from workers.settings import Settings

OPERATOR, VIEWER = "operator-token-0123456789", "viewer-token-0123456789"
USERS = {OPERATOR: User("ann", "operator"), VIEWER: User("bob", "viewer")}
HERE = "http://dash.test:8400"
HTML = {"accept": "text/html"}


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    (tmp_path / "schedules").mkdir()
    settings = Settings(
        state_path=str(tmp_path / "logs" / "state.jsonl"),
        events_path=str(tmp_path / "logs" / "events.jsonl"),
        run_logs_dir=str(tmp_path / "logs" / "runs"),
    )
    return build_app(settings, tmp_path / "schedules", Tokens(USERS), ["dash.test:8400"])


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def paths(routes: list[BaseRoute], before: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield every path of the route table, with something in place of its parameters, and its methods."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes or [], before + route.path)
        elif isinstance(route, Route):
            yield before + re.sub(r"{[^}]*}", "x", route.path), route.methods or set()


def login(client: TestClient, token: str = OPERATOR) -> str:
    answer = client.post("/login", data={"token": token, "next": "/"}, headers={"origin": HERE})
    assert answer.status_code == 303
    return str(answer.cookies[COOKIE])


def test_no_route_answers_without_a_token_but_the_login_and_what_it_looks_like(
    app: Starlette, client: TestClient
) -> None:
    seen = 0
    for path, methods in paths(app.routes):
        for method in methods - {"HEAD"}:
            answer = client.request(method, path, headers={"x-tickpool": "1"})
            if path.startswith(OPEN_PATHS):
                continue
            seen += 1
            assert answer.status_code == 401, (method, path)
            assert answer.json()["title"] == "Who are you?"
            page = client.request(method, path, headers={"x-tickpool": "1", **HTML})
            if not path.startswith("/api/") and not path.endswith("/stream"):
                assert (page.status_code, page.headers["location"]) == (303, f"/login?next={path}")
            else:
                assert page.status_code == 401
    assert seen >= 4


@pytest.mark.parametrize("token", ["", "x", OPERATOR[:-1], f"{OPERATOR} ", OPERATOR.upper()])
def test_only_a_token_of_the_file_opens_the_gate(client: TestClient, token: str) -> None:
    expected = 200 if token.strip() == OPERATOR else 401
    assert client.get("/api/v1/now", headers=bearer(token)).status_code == expected
    assert client.get("/api/v1/now", headers={"authorization": f"Basic {token}"}).status_code == 401
    assert client.get(f"/api/v1/now?token={token}").status_code == 401


def test_a_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(client: TestClient) -> None:
    answer = client.post("/login", data={"token": OPERATOR, "next": "/health?x=1"}, headers={"origin": HERE})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.headers["location"] == "/health?x=1"
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert OPERATOR not in cookie
    client.cookies.set(COOKIE, answer.cookies[COOKIE])
    assert "ann" in client.get("/", headers=HTML).text


def test_a_session_that_was_altered_or_is_over_is_none(client: TestClient) -> None:
    value = login(client)
    body, _, sign = value.partition(".")
    for altered in (value[:-1], f"{body}x.{sign}", f"{body}.", "x", "", f"{sign}.{body}", "é", "\xff.x"):
        client.cookies.clear()
        headers = {"cookie": f"{COOKIE}={altered}".encode()}
        assert client.get("/api/v1/now", headers=headers).status_code == 401, altered
    tokens = Tokens(USERS)
    assert tokens.user_of_session(tokens.session_for(USERS[VIEWER])) == USERS[VIEWER]
    assert Tokens({VIEWER + "2": USERS[VIEWER]}).user_of_session(tokens.session_for(USERS[VIEWER])) is None


def test_a_login_leads_to_a_path_of_this_server_only(client: TestClient) -> None:
    for where in ("https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)", "/x\r\ny: z"):
        answer = client.post("/login", data={"token": OPERATOR, "next": where}, headers={"origin": HERE})
        assert answer.headers["location"] == "/", where


def test_who_fails_to_log_in_ten_times_has_to_wait(client: TestClient) -> None:
    for _ in range(10):
        assert client.post("/login", data={"token": "wrong"}, headers={"origin": HERE}).status_code == 403
    answer = client.post("/login", data={"token": OPERATOR}, headers={"origin": HERE})
    assert (answer.status_code, "set-cookie" in answer.headers) == (429, False)
    assert client.get("/api/v1/now").status_code == 429
    # Who has a token already is not kept out by whoever guesses.
    assert client.get("/api/v1/now", headers=bearer(OPERATOR)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1", "dash.test", "dash.test:8401", "", "dash.test:8400.evil.test"]
)
def test_a_name_that_was_made_to_lead_here_is_not_answered(client: TestClient, host: str) -> None:
    answer = client.get("/api/v1/now", headers={**bearer(OPERATOR), "host": host})
    assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
    assert client.get("/api/v1/now", headers={**bearer(OPERATOR), "host": "DASH.test:8400"}).status_code == 200


def changing(client: TestClient, headers: dict[str, str]) -> int:
    return int(client.post("/logout", headers=headers).status_code)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 403),
        ({"x-tickpool": "1"}, 303),
        ({"x-tickpool": "1", "origin": HERE}, 303),
        ({"x-tickpool": "1", "origin": HERE, "sec-fetch-site": "same-origin"}, 303),
        ({"x-tickpool": "1", "origin": "http://evil.test"}, 403),
        ({"x-tickpool": "1", "origin": "null"}, 403),
        ({"x-tickpool": "1", "origin": "http://dash.test:8400.evil.test"}, 403),
        ({"x-tickpool": "1", "sec-fetch-site": "cross-site"}, 403),
        ({"x-tickpool": "1", "sec-fetch-site": "same-site"}, 403),
        ({"origin": HERE}, 403),
    ],
)
def test_a_change_comes_from_a_page_of_this_server_with_a_header_that_no_form_sends(
    client: TestClient, headers: dict[str, str], code: int
) -> None:
    client.cookies.set(COOKIE, login(client))
    assert changing(client, headers) == code


def test_a_viewer_reads_all_and_changes_nothing(app: Starlette, client: TestClient) -> None:
    assert client.get("/api/v1/now", headers=bearer(VIEWER)).status_code == 200
    posts = [path for path, methods in paths(app.routes) if "POST" in methods and path not in ("/login", "/logout")]
    for path in posts:
        answer = client.post(path, headers={**bearer(VIEWER), "x-tickpool": "1"}, json={})
        assert (answer.status_code, answer.json()["title"]) == (403, "A viewer changes nothing"), path


def test_a_change_is_a_post_and_no_route_takes_another_method(app: Starlette, client: TestClient) -> None:
    assert {method for _, methods in paths(app.routes) for method in methods} == {"GET", "HEAD", "POST"}
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"):
        assert client.request(method, "/api/v1/now").status_code == 401, method
        answer = client.request(method, "/api/v1/now", headers=bearer(OPERATOR))
        assert (answer.status_code, sorted(answer.headers["allow"].split(", "))) == (405, ["GET", "HEAD"]), method
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/logout", headers=bearer(OPERATOR)).status_code == 405


@pytest.mark.parametrize("path", ["/", "/login", "/api/v1/now", "/static/app.css", "/nothing", "/api/v1/nothing"])
def test_every_answer_says_what_a_page_may_load_and_who_may_frame_it(client: TestClient, path: str) -> None:
    for headers in ({}, bearer(OPERATOR), {**bearer(OPERATOR), **HTML}):
        answer = client.get(path, headers=headers).headers
        assert answer["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in answer["content-security-policy"]
        assert "frame-ancestors 'none'" in answer["content-security-policy"]
        assert (answer["x-content-type-options"], answer["x-frame-options"]) == ("nosniff", "DENY")
        assert "server" not in answer


def test_what_is_told_stays_in_no_cache_but_the_files_that_tell_nothing(client: TestClient) -> None:
    assert client.get("/", headers={**bearer(OPERATOR), **HTML}).headers["cache-control"] == "no-store"
    assert "private" in client.get("/api/v1/now", headers=bearer(OPERATOR)).headers["cache-control"]
    assert "no-store" not in client.get("/static/app.css").headers.get("cache-control", "")


def test_a_body_beyond_the_bound_is_refused_however_it_is_sent(client: TestClient) -> None:
    assert client.post("/login", content=b"x" * 70_000, headers={"origin": HERE}).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"token=" + b"x" * 10_000

    # The connection is cut off, as if the client had gone.
    with pytest.raises(ClientDisconnect):
        client.post("/login", content=chunks(), headers={"origin": HERE})
    assert client.get("/api/v1/now", headers=bearer(OPERATOR)).status_code == 200


def test_a_fault_of_the_dashboard_itself_is_told_without_what_is_inside(app: Starlette) -> None:
    app.state.desk = None
    client = TestClient(app, base_url=HERE, raise_server_exceptions=False)
    answer = client.get("/api/v1/me", headers=bearer(OPERATOR))
    assert answer.status_code == 200
    answer = client.get("/api/v1/health", headers=bearer(OPERATOR))
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["detail"] == "its own log says more"


@pytest.mark.parametrize(
    "path", ["/static/../tokens.py", "/static/%2e%2e/tokens.py", "/static/..%2ftokens.py", "/static//etc/passwd"]
)
def test_no_path_leads_out_of_the_static_files(client: TestClient, path: str) -> None:
    assert client.get(path, headers=bearer(OPERATOR)).status_code in (307, 401, 404)


def test_the_file_of_tokens_is_made_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    make_tokens(path, "ann")
    text = path.read_text()
    assert os.stat(path).st_mode & 0o777 == 0o600
    make_tokens(path, "bob")
    assert path.read_text() == text
    (token,) = re.findall(r"^ann operator (\S{32})$", text, re.MULTILINE)
    assert read_tokens(path).user_of(token) == User("ann", "operator")


@pytest.mark.parametrize(
    ("text", "mode", "wrong"),
    [
        ("ann operator 0123456789abcdef", 0o644, "others may read it; `chmod 600` it"),
        ("ann boss 0123456789abcdef", 0o600, "1: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
        ("# nobody\nann operator", 0o600, "2: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
        ("ann operator short", 0o600, "1: the token is shorter than 16 characters"),
        ("# nobody", 0o600, "has no token; write `NAME operator TOKEN`"),
        ("<a> operator 0123456789abcdef", 0o600, "1: write `NAME viewer TOKEN` or `NAME operator TOKEN`"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, text: str, mode: int, wrong: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(BadTokens) as caught:
        read_tokens(path)
    assert str(caught.value).endswith(wrong)


def test_it_takes_no_longer_to_refuse_a_token_that_is_nearly_right() -> None:
    tokens = Tokens({f"{number:02}" + "x" * 40: User(f"u{number}", "viewer") for number in range(50)})
    assert tokens.user_of("00" + "x" * 40) == User("u0", "viewer")
    assert tokens.user_of("00" + "x" * 39 + "y") is None


def test_a_session_ends_after_twelve_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, moment = Tokens(USERS), time.time()
    value = tokens.session_for(USERS[OPERATOR])

    def later(seconds: float) -> Any:
        return lambda: moment + seconds

    monkeypatch.setattr(time, "time", later(11.9 * 3600))
    assert tokens.user_of_session(value) == USERS[OPERATOR]
    monkeypatch.setattr(time, "time", later(12.1 * 3600))
    assert tokens.user_of_session(value) is None
