"""The server of the dashboard under requests that nobody means well with: a real process, and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from dashboard import OPERATOR, VIEWER, Dashboard
from raw import Raw, status_of
from service import Service, WaitFor

from scheduler.state_store import record_event
from scheduler.web.connection import MOST_CONNECTIONS
from scheduler.web.gate import MAX_BODY, MAX_STREAMS, MAX_STREAMS_OF_ONE

TOKEN = f"Authorization: Bearer {OPERATOR}\r\nX-Tickpool: 1\r\n"


@contextmanager
def connected(dashboard: Dashboard, text: str = "") -> Iterator[Raw]:
    with closing(Raw(dashboard.port, text.replace("HOST", f"127.0.0.1:{dashboard.port}").encode("latin-1"))) as raw:
        yield raw


def said(dashboard: Dashboard, text: str) -> bytes:
    """Return all that is answered to a text, with the host in place of HOST."""
    with connected(dashboard, text) as raw:
        return raw.all()


HOST, END = "Host: HOST\r\n", "Connection: close\r\n\r\n"
ODD = [
    (f"GET /api/v1/now HTTP/1.1\r\n{HOST}{TOKEN}{END}", {200}),
    (f"GET /api/v1/now HTTP/1.0\r\n{HOST}{TOKEN}\r\n", {200}),
    (f"GET /api/v1/now HTTP/1.0\r\n{TOKEN}\r\n", {421}),
    (f"GET /api/v1/now HTTP/1.1\r\n{TOKEN}{END}", {400}),
    (f"GET /api/v1/now HTTP/1.1\r\n{HOST}Host: evil.test\r\n{TOKEN}{END}", {400}),
    (f"GET /api/v1/now HTTP/1.1\r\nHost: evil.test\r\n{HOST}{TOKEN}{END}", {400}),
    (f"GET /api/v1/now HTTP/1.1\r\nHost: HOST, evil.test\r\n{TOKEN}{END}", {421}),
    (f"GET /api/v1/now HTTP/1.1\r\nHost : HOST\r\n{TOKEN}{END}", {400}),
    (f"GET http://evil.test/api/v1/now HTTP/1.1\r\n{HOST}{TOKEN}{END}", {404}),
    (f"GET http://HOST/static/app.css HTTP/1.1\r\nHost: evil.test\r\n{TOKEN}{END}", {421}),
    (f"GET http://evil.test/static/../api/v1/now HTTP/1.1\r\n{HOST}{END}", {401}),
    (f"GET /static/../api/v1/now HTTP/1.1\r\n{HOST}{END}", {404}),
    (f"GET //api/v1/now HTTP/1.1\r\n{HOST}{END}", {401}),
    (f"GET * HTTP/1.1\r\n{HOST}{END}", {401}),
    (f"OPTIONS * HTTP/1.1\r\n{HOST}{END}", {401}),
    (f"CONNECT evil.test:80 HTTP/1.1\r\n{HOST}{END}", {403}),
    (f"TRACE /login HTTP/1.1\r\n{HOST}Cookie: a=secret\r\n{END}", {405}),
    (f"GET /history?q=a%0d%0aX-Evil:1 HTTP/1.1\r\n{HOST}Accept: text/html\r\n{TOKEN}{END}", {200}),
    (f"GET /x%0d%0aX-Evil:1 HTTP/1.1\r\n{HOST}Accept: text/html\r\n{END}", {404}),
    (f"GET /x?a%0d%0aX-Evil:1 HTTP/1.1\r\n{HOST}Accept: text/html\r\n{END}", {303}),
    (f"POST /logout HTTP/1.1\r\n{HOST}{TOKEN}Content-Length: {'9' * 19}\r\n{END}", {413}),
    (f"POST /logout HTTP/1.1\r\n{HOST}{TOKEN}Content-Length: -1\r\n{END}", {400}),
    (f"POST /logout HTTP/1.1\r\n{HOST}{TOKEN}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", {400}),
    (f"GET /api/v1/now HTTP/1.1\r\n{HOST}{TOKEN}X: {'x' * 1_000_000}\r\n\r\n", {400}),
    (f"GET /stream HTTP/1.1\r\n{HOST}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: x\r\nConnection: close, Upgrade\r\n\r\n", {401}),
    (f"GET /api/v1/now HTTP/1.1\r\n{HOST}{TOKEN}Upgrade: websocket\r\nConnection: close, Upgrade\r\n\r\n", {200}),
    ("\x16\x03\x01\x02\x00\x01\x00", {400}),
]  # fmt: skip


def test_a_request_that_no_browser_sends_gets_nothing_that_another_would_not(dashboard: Dashboard) -> None:
    dashboard.start()
    for text, codes in ODD:
        answer = said(dashboard, text)
        assert status_of(answer) in codes, (text[:200], answer[:300])
        assert b"\r\nx-evil" not in answer.partition(b"\r\n\r\n")[0].lower()
        assert b"secret" not in answer
    told = dashboard.service.err()
    assert set(told.splitlines()) == {"WARNING:  Invalid HTTP request received."}


def test_a_body_beyond_the_bound_is_refused_however_it_is_sent(dashboard: Dashboard) -> None:
    dashboard.start()
    head = f"POST /api/v1/runs/x/retry HTTP/1.1\r\nHost: HOST\r\n{TOKEN}Connection: close\r\n"
    login = "POST /login HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"
    whole = f"Content-Length: {MAX_BODY + 1}\r\n\r\n" + "x" * (MAX_BODY + 1)
    chunks = "Transfer-Encoding: chunked\r\n\r\n" + f"1000\r\n{'x' * 4096}\r\n" * 40 + "0\r\n\r\n"
    for text in (head + whole, login + whole, login + chunks):
        answer = said(dashboard, text)
        assert status_of(answer) == 413
        assert b"default-src 'none'" in answer
    # One that the handler does not ask for is not read either.
    assert status_of(said(dashboard, head + chunks)) in (404, 413)
    assert dashboard.client().get("/api/v1/now").status_code == 200


def test_who_goes_while_it_sends_its_body_leaves_no_trace(dashboard: Dashboard, wait_for: WaitFor) -> None:
    dashboard.start()
    for _ in range(3):
        with connected(dashboard, "POST /login HTTP/1.1\r\nHost: HOST\r\nContent-Length: 100\r\n\r\ntoken=") as raw:
            raw.send(b"x")
    wait_for(lambda: dashboard.client().get("/api/v1/health").json()["listeners"] == 0)
    assert dashboard.service.err() == ""


def test_who_is_slow_to_ask_is_cut_off_and_who_only_listens_is_not(dashboard: Dashboard, wait_for: WaitFor) -> None:
    dashboard.start()
    slow = {
        "nothing": "",
        "a line": "GET /login HTTP/1.1\r\n",
        "a head": f"GET /api/v1/now HTTP/1.1\r\nHost: HOST\r\n{TOKEN}",
        "a body": "POST /login HTTP/1.1\r\nHost: HOST\r\nContent-Length: 100\r\n\r\ntoken=",
        "chunks": "POST /login HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        "a second": "GET /login HTTP/1.1\r\nHost: HOST\r\n\r\nGET /login HTTP/1.1\r\n",
    }
    with ExitStack() as stack:
        listening = stack.enter_context(connected(dashboard, f"GET /stream HTTP/1.1\r\nHost: HOST\r\n{TOKEN}\r\n"))
        left = {name: stack.enter_context(connected(dashboard, text)) for name, text in slow.items()}

        def are_cut() -> bool:
            for name in list(left):
                left[name].send(b"x")  # byte by byte, for ever
                if left[name].is_closed():
                    left.pop(name)
            return not left

        wait_for(are_cut, 25, "the end of the slow ones")
        assert not listening.is_closed()
    assert "Traceback" not in dashboard.service.err()


def test_so_many_connections_are_kept_and_no_more(dashboard: Dashboard, wait_for: WaitFor) -> None:
    dashboard.start()
    ask = f"GET /api/v1/now HTTP/1.1\r\nHost: HOST\r\n{TOKEN}Connection: close\r\n\r\n"
    with ExitStack() as stack:
        many = [stack.enter_context(connected(dashboard)) for _ in range(MOST_CONNECTIONS)]
        assert status_of(said(dashboard, ask)) == 503
        many += [stack.enter_context(connected(dashboard)) for _ in range(200)]
        wait_for(lambda: sum(raw.is_closed() for raw in many) >= 150, what="the end of those too many")
        assert sum(not raw.is_closed() for raw in many) >= MOST_CONNECTIONS // 2
    wait_for(lambda: status_of(said(dashboard, ask)) == 200, what="an answer")


def test_so_many_streams_are_open_for_one_user_and_room_is_left_for_others(dashboard: Dashboard) -> None:
    dashboard.start()
    ask = f"GET /stream HTTP/1.1\r\nHost: HOST\r\n{TOKEN}\r\n"
    other = ask.replace(OPERATOR, VIEWER)
    with ExitStack() as stack:
        streams = [stack.enter_context(connected(dashboard, ask)) for _ in range(MAX_STREAMS_OF_ONE)]
        assert {status_of(each.head()) for each in streams} == {200}
        answer = said(dashboard, ask.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
        assert status_of(answer) == 503
        assert b"retry-after: 30" in answer.lower()
        others = [stack.enter_context(connected(dashboard, other)) for _ in range(MAX_STREAMS - MAX_STREAMS_OF_ONE)]
        assert {status_of(each.head()) for each in others} == {200}
        assert status_of(said(dashboard, other.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))) == 503
    assert "Traceback" not in dashboard.service.err()


def test_a_stream_ends_with_its_session(dashboard: Dashboard, service: Service, wait_for: WaitFor) -> None:
    dashboard.start()
    client = dashboard.client()
    del client.headers["authorization"]
    cookie = client.post("/login", data={"token": OPERATOR}).headers["set-cookie"].partition(";")[0]
    ask = f"GET /stream HTTP/1.1\r\nHost: HOST\r\nCookie: {cookie}\r\n\r\n"
    with connected(dashboard, ask) as gone, connected(dashboard, ask.replace("Cookie", f"{TOKEN}X")) as kept:
        assert (status_of(gone.head()), status_of(kept.head())) == (200, 200)
        assert client.post("/logout").status_code == 200

        def is_over() -> bool:
            record_event({"event": "news"}, service.log)
            return gone.has_ended()

        wait_for(is_over, what="the end of the stream")
        assert not kept.has_ended()
    assert "Traceback" not in service.err()
