"""Logging in and out: what a session is worth, where a login leads, and who has to wait."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from gated import HERE, HTML, OPERATOR, SESSION, USERS, VIEWER, app_in, asking, bearer, login
from starlette.applications import Starlette
from starlette.testclient import TestClient

from scheduler.web.lockout import Locked, Lockout
from scheduler.web.tokens import Tokens


def asks(client: TestClient, value: str) -> int:
    """Ask with these bytes as the cookies; return the status."""
    client.cookies.clear()
    return int(client.get("/api/v1/now", headers={"cookie": value.encode("latin-1")}).status_code)


def fail(client: TestClient, times: int = 10) -> None:
    for _ in range(times):
        assert client.post("/login", data={"token": "wrong"}, headers={"origin": HERE}).status_code == 403


def test_a_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(client: TestClient) -> None:
    answer = client.post("/login", data={"token": OPERATOR, "next": "/health?x=1"}, headers={"origin": HERE})
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert (name, rest.partition("; ")[2].lower()) == (SESSION, "httponly; path=/; samesite=strict")
    assert answer.headers["location"] == "/health?x=1"
    assert OPERATOR not in str(answer.headers)
    client.cookies.set(SESSION, answer.cookies[SESSION])
    assert "ann" in client.get("/", headers=HTML).text


def test_where_tls_is_spoken_the_cookie_travels_in_nothing_else(tmp_path: Path) -> None:
    here = HERE.replace("http:", "https:")
    answer = asking(app_in(tmp_path, is_secure=True), url=here).post(
        "/login", data={"token": OPERATOR}, headers={"origin": here}
    )
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_a_session_that_was_altered_or_that_nobody_was_given_is_none(client: TestClient) -> None:
    value = login(client)
    for altered in (value[:-1], f"{value}x", value.upper(), "x", "", value[::-1], "é", "\xff.x", f"{OPERATOR}"):
        assert asks(client, f"{SESSION}={altered}") == 401, altered
    for name in ("tickpool_session", SESSION.upper(), "tickpool_session_8401", "__Host-" + SESSION):
        assert asks(client, f"{name}={value}") == 401, name


def test_a_session_is_found_among_whatever_cookies_others_on_this_host_have_set(client: TestClient) -> None:
    value = login(client)
    for others in (
        'a={"x": [1]}',
        "b[c]=d",
        "=",
        ";;",
        "\xff=\xff",
        'q="un;closed',
        f"tickpool_session_8401={'x' * 40}",
    ):
        assert asks(client, f"{others}; {SESSION}={value}") == 200, others
        assert asks(client, f"{SESSION}={value}; {others}") == 200, others
    assert asks(client, f'{SESSION}="{value}"') == 200


def test_every_login_gives_another_session_whatever_cookie_it_comes_with(client: TestClient) -> None:
    planted = "planted-by-somebody-else"
    first = login(client, cookie=f"{SESSION}={planted}")
    second = login(client, cookie=f"{SESSION}={first}")
    assert len({planted, first, second}) == 3
    assert [asks(client, f"{SESSION}={each}") for each in (planted, first, second)] == [401, 401, 200]


def test_a_session_is_over_for_everybody_who_has_its_cookie_when_its_owner_logs_out(client: TestClient) -> None:
    value = login(client)
    client.cookies.clear()  # another browser
    other = login(client)
    client.cookies.clear()
    answer = client.post("/logout", headers={"cookie": f"{SESSION}={value}", "x-tickpool": "1", "origin": HERE})
    assert (answer.status_code, answer.json()["location"]) == (200, "/login")
    assert f'{SESSION}=""' in answer.headers["set-cookie"]
    assert [asks(client, f"{SESSION}={each}") for each in (value, other)] == [401, 200]


def test_a_person_who_logs_out_without_a_script_comes_to_the_login(client: TestClient) -> None:
    value = login(client)
    for _ in range(2):  # who logs out twice, too, and then comes to a page that there is
        answer = client.post("/logout", headers={**HTML, "cookie": f"{SESSION}={value}", "origin": HERE})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert asks(client, f"{SESSION}={value}") == 401


def test_a_session_ends_after_twelve_hours_and_no_other_process_knows_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, moment = Tokens(USERS), time.monotonic()
    value = tokens.session_for(USERS[OPERATOR])
    monkeypatch.setattr(time, "monotonic", lambda: moment + 11.9 * 3600)
    assert tokens.user_of_session(value) == USERS[OPERATOR]
    assert Tokens(USERS).user_of_session(value) is None
    monkeypatch.setattr(time, "monotonic", lambda: moment + 12.1 * 3600)
    assert tokens.user_of_session(value) is None


ELSEWHERE = (
    "https://evil.test/", "//evil.test", "/\\evil.test", "\\\\evil.test", "javascript:alert(1)", "/x\r\ny: z",
    "evil.test", "/\t/evil.test", "", "/x\n", " //evil.test", "/ /evil.test", "http:evil.test", "/" + "x" * 600,
    "/\u2028", "/é",
)  # fmt: skip


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_login_leads_to_a_path_of_this_server_only(client: TestClient, where: str) -> None:
    answer = client.post("/login", data={"token": OPERATOR, "next": where}, headers={"origin": HERE})
    assert (answer.headers["location"], "y" in answer.headers) == ("/", False)
    assert 'name="next" value="/"' in client.get("/login", params={"next": where}, headers=HTML).text


@pytest.mark.parametrize(
    "path",
    ["/", "/history?status=failed&q=a+b", "/runs/a.1?task=load%5B2%5D&attempt=1", "/history?since=2026-11-23T09:00"],
)
def test_who_has_to_log_in_comes_to_the_page_that_was_asked_for(client: TestClient, path: str) -> None:
    form = client.get(client.get(path, headers=HTML).headers["location"], headers=HTML).text
    where = form.partition('name="next" value="')[2].partition('"')[0].replace("&amp;", "&")
    answer = client.post("/login", data={"token": OPERATOR, "next": where}, headers={"origin": HERE})
    assert answer.headers["location"] == path


def test_a_login_does_not_come_from_another_site(client: TestClient) -> None:
    for headers in ({"origin": "http://evil.test"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        answer = client.post("/login", data={"token": OPERATOR}, headers=headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_who_fails_to_log_in_ten_times_has_to_wait_by_whichever_way(app: Starlette, client: TestClient) -> None:
    fail(client)
    answer = client.post("/login", data={"token": OPERATOR, "next": "/health"}, headers={"origin": HERE})
    assert (answer.status_code, "set-cookie" in answer.headers) == (429, False)
    assert 'value="/health"' in answer.text
    # A guess that is right is told from a wrong one by nothing.
    answers = [client.get("/api/v1/now", headers=bearer(each)) for each in (OPERATOR, "wrong")]
    assert {each.status_code for each in answers} == {429}
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["retry-after"] == "300"
    assert client.get("/api/v1/now").status_code == 401
    assert asking(app, "192.0.2.2").get("/api/v1/now", headers=bearer(OPERATOR)).status_code == 200


def test_wrong_tokens_of_programs_count_as_failed_logins(client: TestClient) -> None:
    codes = [client.get("/api/v1/now", headers=bearer(f"guess-{number}")).status_code for number in range(12)]
    assert codes == [401] * 10 + [429] * 2
    assert client.post("/login", data={"token": OPERATOR}, headers={"origin": HERE}).status_code == 429


def test_whom_a_token_let_in_before_is_not_locked_out_by_others_at_the_same_address(client: TestClient) -> None:
    session = login(client, VIEWER)
    assert client.get("/api/v1/now", headers=bearer(OPERATOR)).status_code == 200
    fail(client)
    assert client.get("/api/v1/now", headers=bearer(OPERATOR)).status_code == 200
    assert asks(client, f"{SESSION}={session}") == 200
    login(client, VIEWER)


def test_a_header_that_names_another_address_is_not_believed(client: TestClient) -> None:
    for number in range(10):
        headers = {"origin": HERE, "x-forwarded-for": f"198.51.100.{number}", "forwarded": f"for=198.51.100.{number}"}
        assert client.post("/login", data={"token": "wrong"}, headers=headers).status_code == 403
    headers = {"origin": HERE, "x-forwarded-for": "198.51.100.99"}
    assert client.post("/login", data={"token": OPERATOR}, headers=headers).status_code == 429


def test_a_network_of_ipv6_is_one_address_and_others_are_not() -> None:
    lockout = Lockout(Tokens(USERS))
    for number in range(10):
        assert lockout.user_of("wrong", f"2001:db8:0:1::{number:x}") is None
    with pytest.raises(Locked):
        lockout.user_of(OPERATOR, "2001:db8:0:1:ffff:ffff:ffff:ffff")
    for other in ("2001:db8:0:2::1", "::ffff:192.0.2.1", "::1", "somewhere"):
        assert lockout.user_of(OPERATOR, other) == USERS[OPERATOR]


def test_an_address_under_its_ipv6_name_is_the_same() -> None:
    lockout = Lockout(Tokens(USERS))
    for number in range(10):
        lockout.user_of("wrong", ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201")[number % 3])
    with pytest.raises(Locked):
        lockout.user_of(OPERATOR, "192.0.2.1")


def test_failures_from_many_addresses_do_not_free_one_that_is_locked() -> None:
    lockout = Lockout(Tokens(USERS))
    for number in range(5000):
        lockout.user_of("wrong", f"198.18.{number >> 8}.{number & 255}")
    for _ in range(10):
        lockout.user_of("wrong", "192.0.2.1")
    for number in range(5000, 14_900):
        lockout.user_of("wrong", f"198.18.{number >> 8}.{number & 255}")
    with pytest.raises(Locked):
        lockout.user_of(OPERATOR, "192.0.2.1")


def test_the_lock_lasts_five_minutes_from_the_tenth_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lockout, moment = Lockout(Tokens(USERS)), time.monotonic()
    for number in range(10):
        monkeypatch.setattr(time, "monotonic", lambda number=number: moment + 20 * number)
        lockout.user_of("wrong", "192.0.2.1")
    monkeypatch.setattr(time, "monotonic", lambda: moment + 180 + 299)
    with pytest.raises(Locked):
        lockout.user_of(OPERATOR, "192.0.2.1")
    monkeypatch.setattr(time, "monotonic", lambda: moment + 180 + 301)
    assert lockout.user_of("wrong", "192.0.2.1") is None
    assert lockout.user_of(OPERATOR, "192.0.2.1") == USERS[OPERATOR]
