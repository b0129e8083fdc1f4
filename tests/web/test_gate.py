"""The gate of the dashboard: who may ask, under which name, and for what. The application is the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from gated import HERE, HTML, OPERATOR, SESSION, VIEWER, app_in, asking, bearer, login, paths
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

OPEN_PATHS = ("/login", "/static/")
PROGRAM = {"x-tickpool": "1"}

BODIES = {"backfill": {"from": "2026-11-01"}, "approvals": {"answer": "approve"}}


def test_no_route_answers_without_a_token_but_the_login_and_what_it_looks_like(
    app: Starlette,
) -> None:
    table = [(path, methods) for path, methods in paths(app.routes) if not path.startswith(OPEN_PATHS)]
    assert {"/", "/stream", "/history", "/api/v1/now", "/api/v1/runs/x/cancel"} <= {path for path, _ in table}
    for number, (path, methods) in enumerate(table):
        nobody = asking(app, f"192.0.2.{number}")
        for method in methods:
            for headers in ({}, HTML, bearer("x"), {"cookie": f"{SESSION}=x"}):
                answer = nobody.request(method, path, headers={**PROGRAM, **headers})
                is_page = headers is HTML and not path.startswith("/api/")
                assert answer.status_code == (303 if is_page else 401), (method, path, headers)
                assert answer.headers.get("location", "/login").startswith("/login")


def test_what_is_open_is_the_form_and_the_static_files_and_nothing_below_another_name(client: TestClient) -> None:
    for path in ("/login/", "/login/x", "/loginx", "/static", "/staticx", "/LOGIN", "/api/v1/../login", "/%2e/login"):
        assert client.get(path).status_code in (401, 404), path
    assert client.get("/login", headers=HTML).status_code == 200
    assert client.get("/static/app.css").status_code == 200


def test_a_route_that_is_added_is_behind_the_gate_by_being_a_route(tmp_path: Path) -> None:
    async def added(_request: Request) -> Response:
        return Response("ticks 1")

    app = app_in(tmp_path)
    app.routes.append(Route("/added", added))
    app.routes.append(Mount("/deep", routes=[Route("/er", added)]))
    for path in ("/added", "/deep/er"):
        assert asking(app).get(path).status_code == 401
        assert asking(app).get(path, headers=bearer(VIEWER)).text == "ticks 1"


@pytest.mark.parametrize("token", ["", "x", OPERATOR[:-1], f"{OPERATOR} ", OPERATOR.upper(), "\xff" * 20])
def test_only_a_token_of_the_file_opens_the_gate(client: TestClient, token: str) -> None:
    expected = 200 if token.strip() == OPERATOR else 401
    head = f"Bearer {token}".encode("latin-1")
    assert client.get("/api/v1/now", headers={"authorization": head}).status_code == expected
    assert client.get("/api/v1/now", headers={"authorization": head.replace(b"Bearer", b"Basic")}).status_code == 401
    assert client.get("/api/v1/now", params={"token": token, "access_token": token}).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.test", "127.0.0.1", "dash.test", "dash.test:8401", "", "dash.test:8400.evil.test", "dash.test.:8400",
        "evil@dash.test:8400", "dash.test:8400@evil", "dash.test:08400", "[::1]:8400", "dash.test:8400, evil.test",
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_lead_here_is_not_answered(client: TestClient, host: str) -> None:
    for path in ("/api/v1/now", "/login", "/static/app.css", "/nothing"):
        answer = client.get(path, headers={**bearer(OPERATOR), "host": host})
        assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json"), path
    assert client.get("/api/v1/now", headers={**bearer(OPERATOR), "host": "DASH.test:8400"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 403),
        ({"x-tickpool": "1"}, 200),
        ({"x-tickpool": "1", "origin": HERE}, 200),
        ({"x-tickpool": "1", "origin": HERE, "sec-fetch-site": "same-origin"}, 200),
        ({"x-tickpool": "1", "origin": "http://evil.test"}, 403),
        ({"x-tickpool": "1", "origin": "null"}, 403),
        ({"x-tickpool": "1", "origin": ""}, 403),
        ({"x-tickpool": "1", "origin": "http://dash.test:8400.evil.test"}, 403),
        ({"x-tickpool": "1", "origin": "http://dash.test"}, 403),
        ({"x-tickpool": "1", "origin": "x-http://dash.test:8400"}, 403),
        ({"x-tickpool": "1", "sec-fetch-site": "cross-site"}, 403),
        ({"x-tickpool": "1", "sec-fetch-site": "same-site"}, 403),
        ({"origin": HERE}, 403),
    ],
)
def test_a_change_comes_from_a_page_of_this_server_with_a_header_that_no_form_sends(
    client: TestClient, headers: dict[str, str], code: int
) -> None:
    client.cookies.set(SESSION, login(client))
    # What passes the gate finds no such schedule.
    passed = {403: 403, 200: 404}[code]
    assert client.post("/api/v1/schedules/x/pause", headers=headers, json={}).status_code == passed
    # The form of a page without a script logs out, and no form of another page.
    is_ours = not {"origin", "sec-fetch-site"} & set(headers) or headers.get("origin") == HERE
    assert client.post("/logout", headers=headers).status_code == (200 if is_ours else 403)


def test_where_tls_is_spoken_a_page_without_it_changes_nothing(tmp_path: Path) -> None:
    client = asking(app_in(tmp_path, is_secure=True))
    for origin, code in ((HERE, 403), (HERE.replace("http:", "https:"), 200)):
        assert client.post("/logout", headers={**PROGRAM, **bearer(OPERATOR), "origin": origin}).status_code == code


def test_a_viewer_reads_all_and_changes_nothing(app: Starlette, client: TestClient) -> None:
    for path, methods in paths(app.routes):
        # Streams do not end, and those two start a process of their own.
        if "GET" in methods and not path.endswith(("/stream", "/events", "/forecast", "/health")):
            answer = client.get(path, headers=bearer(VIEWER))
            assert answer.status_code in (200, 400, 404, 503), path
            assert answer.status_code == client.get(path, headers=bearer(OPERATOR)).status_code, path
    posts = [path for path, methods in paths(app.routes) if "POST" in methods and path not in ("/login", "/logout")]
    assert len(posts) >= 9
    session = {"cookie": f"{SESSION}={login(client, VIEWER)}"}
    for path in posts:
        for who in (bearer(VIEWER), session):
            answer = client.post(path, headers={**who, **PROGRAM}, json={})
            assert (answer.status_code, answer.json()["title"]) == (403, "A viewer changes nothing"), path


def test_a_change_is_a_post_and_no_other_method_is_taken_by_any_route(app: Starlette, client: TestClient) -> None:
    for path, methods in paths(app.routes):
        assert methods in ({"GET", "HEAD"}, {"POST"}), path
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"):
            if method in methods or path == "/login":
                continue
            answer = client.request(method, path, headers={**bearer(OPERATOR), **PROGRAM})
            assert answer.status_code in (404, 405), (method, path)
            assert client.request(method, path, headers=PROGRAM).status_code == 401, (method, path)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"):
        answer = client.request(method, "/api/v1/now", headers={**bearer(OPERATOR), **PROGRAM})
        assert (answer.status_code, sorted(answer.headers["allow"].split(", "))) == (405, ["GET", "HEAD"]), method
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "X"])
def test_what_is_not_safe_is_taken_for_a_change_whichever_method_it_has(client: TestClient, method: str) -> None:
    for path in ("/", "/api/v1/now", "/static/app.css"):
        assert client.request(method, path, headers=bearer(OPERATOR)).status_code == 403
        evil = {**bearer(OPERATOR), **PROGRAM, "origin": "http://evil.test"}
        assert client.request(method, path, headers=evil).status_code == 403
    viewer = client.request(method, "/api/v1/now", headers={**bearer(VIEWER), **PROGRAM})
    assert (viewer.status_code, viewer.json()["title"]) == (403, "A viewer changes nothing")


@pytest.mark.parametrize(
    "path",
    ["/", "/login", "/api/v1/now", "/static/app.css", "/nothing", "/api/v1/nothing", "/broken", "/api/v1/runs/x"],
)
def test_every_answer_says_what_a_page_may_load_and_who_may_frame_it(
    app: Starlette, client: TestClient, path: str
) -> None:
    async def broken(_request: Request) -> Response:
        raise RuntimeError("of the handler")

    app.routes.append(Route("/broken", broken))
    for headers in ({}, bearer(OPERATOR), {**bearer(OPERATOR), **HTML}, {"host": "evil.test"}):
        answer = client.get(path, headers=headers).headers
        assert answer["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in answer["content-security-policy"]
        assert "frame-ancestors 'none'" in answer["content-security-policy"]
        assert (answer["x-content-type-options"], answer["x-frame-options"]) == ("nosniff", "DENY")
        assert "server" not in answer
        assert "strict-transport-security" not in answer
        assert "access-control-allow-origin" not in answer


def test_that_a_handler_failed_is_told_without_a_word_of_why(app: Starlette, client: TestClient) -> None:
    async def broken(_request: Request) -> Response:
        raise RuntimeError("secret of the handler")

    app.routes.append(Route("/broken", broken))
    answer = client.get("/broken", headers=bearer(OPERATOR))
    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")
    assert "secret" not in answer.text


def test_only_where_tls_is_spoken_a_browser_is_told_to_insist_on_it(tmp_path: Path) -> None:
    answer = asking(app_in(tmp_path, is_secure=True)).get("/login")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_what_is_told_stays_in_no_cache_but_the_files_that_tell_nothing(client: TestClient) -> None:
    for path in ("/", "/history", "/schedules", "/login"):
        assert client.get(path, headers={**bearer(OPERATOR), **HTML}).headers["cache-control"] == "no-store"
    assert client.get("/api/v1/now", headers=bearer(OPERATOR)).headers["cache-control"] == "private, no-cache"
    assert "no-store" not in client.get("/static/app.css").headers.get("cache-control", "")


def test_that_an_answer_has_not_changed_is_told_to_nobody_without_a_token(client: TestClient) -> None:
    tag = client.get("/api/v1/schedules", headers=bearer(OPERATOR)).headers["etag"]
    assert client.get("/api/v1/schedules", headers={**bearer(OPERATOR), "if-none-match": tag}).status_code == 304
    for wrong in ({}, bearer("x")):
        assert client.get("/api/v1/schedules", headers={**wrong, "if-none-match": tag}).status_code == 401


def test_a_fault_of_the_dashboard_itself_is_told_without_what_is_inside(app: Starlette) -> None:
    app.state.desk = None
    client = TestClient(app, base_url=HERE, raise_server_exceptions=False)
    answer = client.get("/api/v1/me", headers=bearer(OPERATOR))
    assert answer.status_code == 200
    answer = client.get("/api/v1/health", headers=bearer(OPERATOR))
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["detail"] == "its own log says more"


@pytest.mark.parametrize(
    "path", ["/static/../tokens.py", "/static/%2e%2e/tokens.py", "/static/..%2ftokens.py", "/static//etc/passwd",
             "/static/%2e%2e%2f%2e%2e%2fgate.py", "/static/..%5ctokens.py", "/static/%00", "/static/app.css%00.png"]
)  # fmt: skip
def test_no_path_leads_out_of_the_static_files(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (401, 404)


@pytest.mark.parametrize(
    "name",
    ["%2e%2e", "..%2f..%2fetc", "%252e%252e%252f", "x%00", "x%0a", "a%20b", "%3Cb%3E", "-x", "x" * 201, "%ff", "é"],
)
def test_an_id_is_judged_after_it_was_decoded(app: Starlette, client: TestClient, name: str) -> None:
    for path, methods in paths(app.routes):
        if "/x" not in path:
            continue
        for method in methods & {"GET", "POST"}:
            asked = path.replace("/x", f"/{name}")
            # Bodies that could be used: it is the id that is refused.
            body = next((each for word, each in BODIES.items() if word in path), {})
            answer = client.request(method, asked, headers={**bearer(OPERATOR), **PROGRAM, **HTML}, json=body)
            assert answer.status_code in (404, 307), (method, asked)
            assert answer.headers.get("location", HERE).startswith(HERE)
            assert "<b>" not in answer.text or answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("end", ["%0a", "%0d", "%09", "%00", "%7f", "%c2%85", "%e2%80%a8"])
def test_no_path_with_a_control_character_matches_a_route(client: TestClient, end: str) -> None:
    for path in ("/login", "/stream", "/api/v1/now", "/log\tin".replace("\t", "%09")):
        assert client.get(f"{path}{end}", headers=bearer(OPERATOR)).status_code == 404, path
