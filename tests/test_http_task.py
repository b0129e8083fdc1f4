"""The task kind `http`, against real servers: what is sent, which answers are good, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import logging
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from service import Service, WaitFor, is_running, kill9
from web import Handler, Web, certificate

from workers.dag import Dag, Retries, Task, load_dag
from workers.dag_model import Http
from workers.runner import RunInfo, run_dag
from workers.tasks import MAX_OUTPUTS_BYTES
from workers.units import Duration

Run = Callable[..., dict[str, Any]]
TOKEN = "tok/3f9c17d2e8b04a65@x"
SOON = Duration(seconds=0.5)


class Ended(dict[str, Any]):
    """The result of task `a`, with its `log` and all `events` of the run."""

    log: str
    events: list[dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run one http task, `a`, that gets the secret API_TOKEN; `given` are the params of its DAG."""
    monkeypatch.setenv("API_TOKEN", TOKEN)

    def run_one(http: str | Http, given: dict[str, Any] | None = None, **fields: Any) -> Ended:
        env = fields.pop("env", {})
        task = Task(id="a", http=http, secrets=("API_TOKEN",), **fields)
        dag = Dag(id="d", tasks=(task,), params=given or {}, env=env, secrets=("API_TOKEN", "OTHER"))
        events: list[dict[str, Any]] = []
        run = run_dag(dag, project=tmp_path, logs_dir=tmp_path / "runs", run=RunInfo("r"), record=events.append)
        ended = Ended(run["tasks"]["a"])
        log = tmp_path / f"runs/r/1/a.{ended['attempts']}.log"
        ended.log, ended.events = log.read_text() if log.exists() else "", events
        assert "Traceback" not in ended.log
        return ended

    return run_one


@pytest.fixture
def other() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def failure(ended: Ended) -> str:
    assert ended["status"] == "failed", ended
    assert "\n" not in ended["reason"]
    return str(ended["reason"])


# --- what is sent, and what comes back ----------------------------------------------------------------------------


def test_an_answer_becomes_status_body_and_json(run: Run, web: Web) -> None:
    url = web.says("/x", b'{"rows": [1, 2.5, null]}', 200, Content_Type="application/json; charset=utf-8")
    ended = run(f"{url}?a=b")
    assert ended["outputs"] == {"status": 200, "body": '{"rows": [1, 2.5, null]}', "json": {"rows": [1, 2.5, None]}}
    assert re.fullmatch(rf"GET {re.escape(url)}\?a=b\n200 OK, 24 bytes, \d+\.\d\d s\n", ended.log)
    (asked,) = web.asked
    assert (asked.method, asked.target, asked.body) == ("GET", "/x?a=b", b"")
    assert asked.headers["Host"] == f"127.0.0.1:{web.port}"


def test_json_is_sent_with_its_references_in_their_own_types(run: Run, web: Web) -> None:
    sent = {"n": "${params.n}", "text": "n=${params.n}", "secret": "${secrets.API_TOKEN}", "list": [True, "é"]}
    url = web.says("/x", b"{}", 201)
    ended = run(Http(url, "POST", {"X-N": "${params.n}"}, json=sent, expect=("201",)), {"n": 3})
    assert ended["status"] == "success"
    (asked,) = web.asked
    assert (asked.method, asked.headers["Content-Type"], asked.headers["X-N"]) == ("POST", "application/json", "3")
    assert json.loads(asked.body) == {"n": 3, "text": "n=3", "secret": TOKEN, "list": [True, "é"]}


def test_a_body_is_sent_as_it_is_under_the_headers_of_the_task(run: Run, web: Web) -> None:
    url = web.says("/x", status=204)
    ended = run(Http(url, "PUT", {"content-type": "text/csv"}, body="a,é\n${params.x}"), {"x": "1,2"})
    assert ended["outputs"] == {"status": 204, "body": ""}
    assert (web.asked[0].headers["content-type"], web.asked[0].body) == ("text/csv", "a,é\n1,2".encode())


def test_the_answer_to_a_head_has_no_body(run: Run, web: Web) -> None:
    url = web.says("/x", b"0123456789")
    ended = run(Http(url, "HEAD"))
    assert ended["outputs"] == {"status": 200, "body": ""}
    assert "200 OK, 0 bytes" in ended.log


@pytest.mark.parametrize(
    ("status", "expect", "reason"),
    [
        (204, ("2xx",), None),
        (404, ("200", "4xx"), None),
        (302, ("3xx",), None),
        (503, ("2xx",), "503 Service Unavailable; expected 2xx"),
        (200, ("201", "3xx"), "200 OK; expected 201 or 3xx"),
        (299, ("200",), "299; expected 200"),
    ],
)
def test_the_status_decides(run: Run, web: Web, status: int, expect: tuple[str, ...], reason: str | None) -> None:
    url = web.says("/x", b"", status, Location="/y")
    ended = run(Http(url, expect=expect))
    assert ended["reason"] == reason
    assert len(web.asked) == 1


def test_the_log_has_the_beginning_of_an_answer_that_is_not_good(run: Run, web: Web) -> None:
    ended = run(web.says("/x", f"no such region; you said {TOKEN}".encode(), 422))
    assert failure(ended) == "422 Unprocessable Entity; expected 2xx"
    assert ended.log.endswith("\nno such region; you said ***\n")
    assert ended["outputs"] == {}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"a": '),
        ("application/json", b"[" * 60_000),
        ("application/json", b"[" * 900 + b"]" * 900),
        ("application/json", b'{"a": 1e999}'),
        ("application/json", b'{"a": "' + b"x" * MAX_OUTPUTS_BYTES + b'"}'),
        ("application/json", b'{"a": 1}' + b" " * 70_000 + b"x"),
        ("text/html", b'{"a": 1}'),
        ("application/jsonlines", b'{"a": 1}'),
    ],
)
def test_what_cannot_be_kept_as_json_stays_a_text(run: Run, web: Web, content_type: str, body: bytes) -> None:
    ended = run(web.says("/x", body, Content_Type=content_type))
    assert ended["status"] == "success"
    assert ended["outputs"].keys() == {"status", "body"}
    assert body.decode().startswith(ended["outputs"]["body"])


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("", "é".encode(), "é"),
        ("; charset=utf-8", b"\xef\xbb\xbfa", "a"),
        ("; charset=utf-8", b"a\xffb", "a\ufffdb"),
        ('; charset="ISO-8859-1"', b"\xe9", "é"),
        ("; charset=utf-16", "é".encode("utf-16"), "é"),
        ("; charset=no-such", "é".encode(), "é"),
        # Names of Python's that are no charsets: of lone surrogates, of bytes from bytes, of quadratic cost.
        ("; charset=unicode_escape", b"\\ud800", "\\ud800"),
        ("; charset=zip", b"x", "x"),
        ("; charset=punycode", b"a-b", "a-b"),
    ],
)
def test_a_body_is_read_in_its_charset(run: Run, web: Web, charset: str, body: bytes, text: str) -> None:
    assert run(web.says("/x", body, Content_Type=f"text/plain{charset}"))["outputs"]["body"] == text


@pytest.mark.parametrize("text", ["a", "é", "\0", "\U0001f600"])
def test_a_long_body_is_cut_to_what_an_event_has_room_for(run: Run, web: Web, text: str) -> None:
    ended = run(web.says("/x", (text * 20_000).encode()))
    kept = ended["outputs"]["body"]
    assert text * len(kept) == kept if len(text) == 1 else True
    assert 16 * 1024 - 12 <= len(json.dumps(kept)) <= 16 * 1024


def test_each_failed_request_is_tried_again(run: Run, web: Web) -> None:
    states = iter([500, 502, 200])
    url = web.does("/x", lambda handler: handler.say(next(states)))
    ended = run(url, retries=Retries(max=3, delay=Duration()))
    assert (ended["status"], ended["attempts"]) == ("success", 3)
    reasons = [event["reason"] for event in ended.events if event["event"] == "task_retried"]
    assert reasons == ["500 Internal Server Error; expected 2xx", "502 Bad Gateway; expected 2xx"]


def test_outputs_pass_on_and_a_hook_may_make_a_request(web: Web, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    first = {"id": "a", "http": web.says("/a", b'{"id": 7}', Content_Type="application/problem+json")}
    second = {"id": "b", "run": "test '${tasks.a.outputs.status}' = 200 && exit 3", "needs": ["a"]}
    hook = {"http": {"url": web.says("/b"), "method": "POST", "body": "${run.id} ${tasks.a.outputs.json}"}}
    dag = {"id": "d", "tasks": [first, second], "on_failure": [hook]}
    (tmp_path / "dags" / "d.yaml").write_text(json.dumps(dag))
    ended = run_dag(load_dag(Path("dags/d.yaml"), tmp_path), project=tmp_path, run=RunInfo("r"))
    assert ended["hooks"]["on_failure"]["status"] == "success"
    assert ended["tasks"]["b"]["exit_code"] == 3
    assert web.asked[-1].body == b'r {"id": 7}'


# --- secrets ------------------------------------------------------------------------------------------------------


def test_a_secret_reaches_the_server_and_nobody_else(run: Run, web: Web, tmp_path: Path) -> None:
    url = web.says("/x", f"you are {TOKEN}".encode(), 403)
    header = {"Authorization": "Bearer ${secrets.API_TOKEN}"}
    ended = run(Http(f"{url}?key=${{secrets.API_TOKEN}}", headers=header, body="${secrets.API_TOKEN}", method="POST"))
    (asked,) = web.asked
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (asked.target, asked.body) == (f"/x?key={TOKEN}", TOKEN.encode())
    assert f"POST {url}?key=***\n" in ended.log
    assert failure(ended) == "403 Forbidden; expected 2xx"
    assert not any(TOKEN in text for text in (ended.log, json.dumps(ended.events)))


def test_a_secret_in_an_address_that_fails_is_masked_in_the_reason(run: Run) -> None:
    ended = run("http://${secrets.API_TOKEN}.invalid:1/")
    assert TOKEN not in failure(ended) + ended.log
    ended = run("http://127.0.0.1:1/", env={"API": "x"})
    assert failure(ended) == "cannot connect to 127.0.0.1:1: Connection refused"


def test_a_secret_that_an_address_must_quote_is_masked_too(run: Run, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "pä+ß/w")
    web.says("/y")
    ended = run(web.says("/x", status=302, Location="/y?p%C3%A4+%C3%9F/w") + "?${secrets.API_TOKEN}")
    assert web.asked[0].target == "/x?p%C3%A4+%C3%9F/w"
    assert [line for line in ended.log.splitlines() if "?***" in line] == ended.log.splitlines()[:2]


def test_a_secret_where_a_reason_might_be_cut_is_not_left_in_half(run: Run, web: Web) -> None:
    for length in range(170, 200, 4):
        ended = run(web.says("/x", status=302, Location=f"ftp://h/{'x' * length}{TOKEN}"))
        assert "tok" not in failure(ended) + ended.log


def test_the_secret_of_another_task_cannot_be_had(run: Run, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "other-value")
    ended = run(Http(web.says("/x"), headers={"A": "${secrets.OTHER}"}))
    assert (
        failure(ended) == "unknown reference `secrets.OTHER`; did you mean `secrets.API_TOKEN`?"
        or "OTHER" in (ended["reason"])
    )
    assert web.asked == []


def test_a_secret_at_the_cut_of_a_body_is_not_left_in_half(run: Run, web: Web) -> None:
    before = b"x" * (16 * 1024 - 10)
    assert "tok" not in run(web.says("/x", before + TOKEN.encode()))["outputs"]["body"]
    # Where reading ends, too: here a mask makes what follows come into what is kept.
    long = (TOKEN * 4000)[: 64 * 1024 + 5].encode()
    assert "tok" not in run(web.says("/x", long))["outputs"]["body"]


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        ("me:pass", "bWU6cGFzcw=="),
        ("me:a%2Fb", "bWU6YS9i"),
        ("me", "bWU6"),
        ("me:${secrets.API_TOKEN}", "bWU6dG9rLzNmOWMxN2QyZThiMDRhNjVAeA=="),
    ],
)
def test_name_and_password_of_an_address_are_sent_as_such_and_not_shown(
    run: Run, web: Web, user: str, sent: str
) -> None:
    web.says("/x")
    ended = run(f"http://{user}@127.0.0.1:{web.port}/x")
    assert ended["status"] == "success"
    assert web.asked[0].headers["Authorization"] == f"Basic {sent}"
    assert ended.log.startswith(f"GET {web.url('/x')}\n")
    assert not any(text in ended.log for text in ("me:", sent, "pass"))


# --- values that would break it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\r\nX-Evil: 1", "header `X-A` holds a line break or another control character"),
        ("a\n", "header `X-A` holds a line break or another control character"),
        ("a\x1b[2J", "header `X-A` holds a line break or another control character"),
        ("a\0", "the value of `params.x` cannot be used: it holds a NUL byte"),
    ],
)
def test_a_value_cannot_bring_a_header_of_its_own(run: Run, web: Web, value: str, why: str) -> None:
    ended = run(Http(web.says("/x"), headers={"X-A": "b ${params.x}"}), {"x": value})
    assert (failure(ended), web.asked) == (why, [])


def test_letters_beyond_ascii_go_as_utf8(run: Run, web: Web) -> None:
    ended = run(Http(web.says("/%C3%A9").replace("%C3%A9", "é"), headers={"X-A": "é"}))
    assert ended["status"] == "success"
    assert web.asked[0].headers["X-A"].encode("latin-1").decode() == "é"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("http://127.0.0.1/a b", "holds a space, a line break or a control character; write `%20` for a space"),
        ("http://127.0.0.1/\r\nX: 1", "holds a space, a line break or a control character; write `%20` for a space"),
        ("file:///etc/passwd", "is no address of the web: it begins with neither `http://` nor `https://`"),
        ("//127.0.0.1/", "is no address of the web: it begins with neither `http://` nor `https://`"),
        ("http://", "has no host, or one that no name or port can have"),
        ("http://a..b/", "has no host, or one that no name or port can have"),
        ("http://a%00b/", "has no host, or one that no name or port can have"),
        ("http://127.0.0.1:0/", "has no host, or one that no name or port can have"),
        ("http://127.0.0.1:99999/", "has a host or a port that cannot be read"),
        ("http://[::1/", "has a host or a port that cannot be read"),
        ("http://bücher.example/", "has a host with letters beyond ASCII; write its `xn--` form"),
    ],
)
def test_a_value_that_is_no_address_fails_in_one_line(run: Run, value: str, why: str) -> None:
    assert failure(run("${params.x}", {"x": value})) == f"the URL {why}"


@pytest.mark.parametrize("part", ["url", "body", "json", "header"])
def test_half_a_character_fails_in_one_line(run: Run, part: str) -> None:
    url, half = "http://127.0.0.1:1/", "${params.x}"
    http = {
        "url": Http(url + half),
        "body": Http(url, body=half),
        "json": Http(url, json=[half]),
        "header": Http(url, headers={"A": half}),
    }
    assert re.search("surrogate", failure(run(http[part], {"x": "\ud800"})))


def test_an_unknown_output_fails_in_one_line(run: Run) -> None:
    assert failure(run("http://h/${params.y}", {"x": 1})) == "unknown reference `params.y`; did you mean `params.x`?"


# --- bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda handler: handler.server.web.over.wait(20), "no answer within 500ms"),
        (lambda handler: handler.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 99), "no answer within 500ms"),
        (
            lambda handler: (handler.say(200, b"", {"Content-Length": "999"}), handler.drip(b"x" * 999)),
            "200 OK, but not the whole answer within 500ms",
        ),
        (
            lambda handler: (handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                             handler.drip(b"1\r\nx\r\n" * 99)),
            "200 OK, but not the whole answer within 500ms",
        ),
    ],
    ids=["silence", "slow headers", "slow body", "slow chunks"],
)  # fmt: skip
def test_the_timeout_is_that_of_the_whole_request(
    run: Run, web: Web, answer: Callable[[Handler], object], reason: str
) -> None:
    ended = run(Http(web.does("/x", answer), timeout=SOON))
    assert failure(ended) == reason
    assert 0.5 <= ended["duration_s"] < 5


def test_the_timeout_counts_over_all_redirects(run: Run, web: Web) -> None:
    def answer(handler: Handler) -> None:
        handler.server.web.over.wait(0.2)
        handler.say(302, b"", {"Location": "/x"})

    ended = run(Http(web.does("/x", answer), timeout=SOON))
    assert failure(ended) == "no answer within 500ms"
    assert ended["duration_s"] < 5


def _send_without_end(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.web.over.is_set():
        handler.wfile.write(b"x" * 65536)


def test_of_a_body_without_end_only_the_beginning_is_read(run: Run, web: Web) -> None:
    ended = run(web.does("/x", _send_without_end))
    assert ended["outputs"]["body"] == "x" * (16 * 1024 - 2)
    assert "200 OK, more than 65536 bytes, of which the rest was not read, " in ended.log


def test_a_gzip_bomb_does_not_go_off(run: Run, web: Web) -> None:
    bomb = gzip.compress(gzip.compress(bytes(300_000_000), 1), 9)
    url = web.says("/x", bomb, Content_Encoding="gzip, gzip")
    ended = run(url)
    assert ended["status"] == "success"
    assert ended["outputs"]["body"].strip("\0") == ""
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert ended["max_rss_kib"] < mine + 50_000


def test_a_compressed_answer_is_read(run: Run, web: Web) -> None:
    url = web.says("/x", gzip.compress(b'{"a": 1}'), Content_Encoding="gzip", Content_Type="application/json")
    assert run(url)["outputs"]["json"] == {"a": 1}


# --- redirects ----------------------------------------------------------------------------------------------------


def test_redirects_are_followed_and_told(run: Run, web: Web) -> None:
    web.says("/y", b"here")
    url = web.says("/x", status=301, Location="y?a=\xe9 b")
    ended = run(url)
    assert ended["outputs"]["body"] == "here"
    assert web.asked[1].target == "/y?a=%E9%20b"
    assert f"301 Moved Permanently, on to GET {web.url('/y')}?a=%E9%20b\n" in ended.log


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("PUT", 302, "PUT"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
    ],
)
def test_a_redirect_keeps_or_changes_the_method_as_browsers_do(
    run: Run, web: Web, method: Any, status: int, then: str
) -> None:
    web.says("/y")
    body = None if method == "HEAD" else "text"
    run(Http(web.says("/x", status=status, Location="/y"), method, {"Content-Type": "text/x", "X-A": "b"}, body))
    first, second = web.asked
    assert (first.method, second.method, second.headers["X-A"]) == (method, then, "b")
    assert second.body == (b"text" if then == method and body else b"")
    assert ("Content-Type" in second.headers) == (then == method)


def test_a_loop_of_redirects_ends(run: Run, web: Web) -> None:
    assert failure(run(web.says("/x", status=302, Location="/x"))) == "more than 10 redirects"
    assert len(web.asked) == 11


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/", "http://[::1/", "javascript:x"])
def test_a_redirect_leads_to_the_web_only(run: Run, web: Web, location: str) -> None:
    reason = failure(run(web.says("/x", status=302, Location=location)))
    assert reason == f"302 Found: the redirect to `{location}` is not followed: it is no http or https URL"


def test_a_redirect_without_a_place_is_an_answer(run: Run, web: Web) -> None:
    assert failure(run(web.says("/x", status=302))) == "302 Found; expected 2xx"


def test_what_is_secret_does_not_follow_to_another_host(run: Run, web: Web, other: Web) -> None:
    other.says("/y", b"there")
    url = web.says("/x", status=307, Location=other.url("/y"))
    headers = {"authorization": "Basic x", "Cookie": "c", "X-Key": "${secrets.API_TOKEN}", "X-Plain": "p"}
    ended = run(Http(url, "POST", headers, body="text"))
    assert ended["outputs"]["body"] == "there"
    assert web.asked[0].headers["X-Key"] == TOKEN
    (asked,) = other.asked
    assert (asked.body, asked.headers["X-Plain"]) == (b"text", "p")
    assert not {"authorization", "cookie", "x-key"} & {name.lower() for name in asked.headers}
    ended = run(Http(url, "POST", body="${secrets.API_TOKEN}"))
    why = f"the redirect to 127.0.0.1:{other.port} is not followed: the body has a secret"
    assert failure(ended) == f"307 Temporary Redirect: {why}"
    assert len(other.asked) == 1


def test_what_is_secret_follows_on_the_same_host(run: Run, web: Web) -> None:
    web.says("/y")
    run(Http(web.says("/x", status=307, Location="/y"), "POST", {"Authorization": "Basic x"}, "${secrets.API_TOKEN}"))
    assert (web.asked[1].headers["Authorization"], web.asked[1].body) == ("Basic x", TOKEN.encode())


# --- what goes wrong on the way -----------------------------------------------------------------------------------


_ENDLESS_LINE = b"A: " + b"x" * 99_999
_MANY_HEADERS = b"A: b\r\n" * 999 + b"\r\n"
_BAD_CHUNK = b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"


def _raw(data: bytes) -> Callable[[Handler], object]:
    return lambda handler: handler.wfile.write(data)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda handler: handler.connection.shutdown(2), "{} closed the connection without an answer"),
        (_raw(b"SSH-2.0-x\r\n"), "what {} answers is not HTTP: BadStatusLine"),
        (_raw(b"HTTP/1.1 200 OK\r\n" + _ENDLESS_LINE), "what {} answers is not HTTP: LineTooLong"),
        (_raw(b"HTTP/1.1 200 OK\r\n" + _MANY_HEADERS), "what {} answers is not HTTP: HTTPException"),
        (_raw(b"HTTP/1.1 200 OK\r\n" + _BAD_CHUNK), "the answer of {} broke off"),
        (lambda handler: handler.say(200, b"abc", {"Content-Length": "9"}), "the answer of {} broke off"),
        (
            lambda handler: handler.say(200, b"abc", {"Content-Encoding": "gzip"}),
            "the answer of {} cannot be decompressed",
        ),
    ],
    ids=["closed", "not HTTP", "long line", "many headers", "bad chunk", "short", "not gzip"],
)
def test_a_broken_answer_is_told_in_words(run: Run, web: Web, answer: Callable[[Handler], object], why: str) -> None:
    assert failure(run(web.does("/x", answer))) == why.format(f"127.0.0.1:{web.port}")


def test_headers_that_cannot_be_read_are_passed_over(run: Run, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a service, whose log is on stderr.
    on_stderr = logging.StreamHandler(open(2, "w", closefd=False))  # noqa: SIM115
    monkeypatch.setattr(logging.getLogger(), "handlers", [on_stderr])
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno header at all\r\nA: b\r\n\r\nhi"
    ended = run(web.does("/x", _raw(raw)))
    assert ended["outputs"] == {"status": 200, "body": "hi"}
    assert len(ended.log.splitlines()) == 2


def test_who_refuses_a_body_before_its_end_is_heard(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert failure(run(Http(url, "POST", body="x" * 20_000_000))).startswith("413 ")


def test_a_host_that_has_no_address_is_named(run: Run) -> None:
    reason = failure(run("http://no-such-host.invalid/"))
    assert reason.startswith("cannot find the host no-such-host.invalid: ")


def test_a_server_is_believed_only_with_a_certificate_that_is_trusted(run: Run, tmp_path: Path) -> None:
    cert, context = certificate(tmp_path)
    web = Web(context)
    url = web.says("/x", b"safe")
    place = f"127.0.0.1:{web.port}"
    untrusted = failure(run(url))
    trusting = {"SSL_CERT_FILE": str(cert)}
    trusted = run(url, env=trusting)
    other_name = failure(run(web.url("/x", "localhost"), env=trusting))
    web.says("/y", status=302, Location="http://127.0.0.1:1/")
    downgraded = failure(run(web.url("/y"), env=trusting))
    web.close()
    assert re.fullmatch(rf"the certificate of {place} is not trusted: self.signed certificate", untrusted)
    assert trusted["outputs"]["body"] == "safe"
    assert other_name.startswith(f"the certificate of localhost:{web.port} is not trusted: Hostname mismatch")
    why = "the redirect to `http://127.0.0.1:1/` is not followed: it leads from https to http"
    assert downgraded == f"302 Found: {why}"


def test_no_tls_where_none_is_spoken(run: Run, web: Web) -> None:
    reason = failure(run(web.says("/x").replace("http:", "https:")))
    assert reason.startswith(f"no TLS with 127.0.0.1:{web.port}: ")


# --- in a worker --------------------------------------------------------------------------------------------------


def test_neither_the_commands_nor_a_worker_import_the_client_before_it_is_needed() -> None:
    code = "import scheduler.cli, workers.worker, sys; sys.exit('urllib3' in sys.modules or 'ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _silent(web: Web) -> str:
    return web.does("/x", lambda handler: handler.server.web.over.wait(60))


def test_a_worker_of_a_service_makes_requests(service: Service, wait_for: WaitFor, web: Web) -> None:
    url = web.says("/x", b"hello")
    header = {"X-Key": "${secrets.API_TOKEN}"}
    task = {"id": "t", "http": {"url": url, "headers": header}, "secrets": "API_TOKEN"}
    dag = {"id": "d", "tasks": [task], "secrets": "API_TOKEN"}
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag))
    service.start(API_TOKEN=TOKEN)
    runs = [service.ask("dags/d.yaml") for _ in range(2)]
    wait_for(lambda: service.has_ended(*runs), 30)
    assert [service.story(run_id)[-1] for run_id in runs] == ["run_finished 1 success"] * 2
    assert [asked.headers["X-Key"] for asked in web.asked] == [TOKEN] * 2
    files = [file for file in service.root.rglob("*") if file.is_file() and TOKEN in file.read_text("utf-8", "replace")]
    assert files == []


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_request_ends_when_it_is_told_to(service: Service, wait_for: WaitFor, web: Web, how: str) -> None:
    dag = service.tasks("d", {"id": "t", "http": _silent(web), **({"timeout": "2s"} if how == "timeout" else {})})
    service.start()
    run_id = service.ask(dag)
    wait_for(lambda: web.asked, 30)
    wait_for(lambda: service.task_pid(run_id))
    pid = service.task_pid(run_id)
    if how == "cancel":
        assert service.command("cancel", run_id).returncode == 0
    wait_for(lambda: service.has_ended(run_id), 30)
    assert not is_running(pid)
    (end,) = service.events("run_finished", run_id)
    assert end["status"] == {"cancel": "cancelled", "timeout": "failed"}[how]


def test_a_request_does_not_outlive_a_worker_that_is_killed(service: Service, wait_for: WaitFor, web: Web) -> None:
    dag = service.tasks("d", {"id": "t", "http": _silent(web)})
    service.start()
    run_id = service.ask(dag)
    wait_for(lambda: web.asked, 30)
    wait_for(lambda: service.task_pid(run_id))
    child = psutil.Process(service.task_pid(run_id))
    worker = child.parent()
    assert worker is not None
    kill9(worker)
    wait_for(lambda: not is_running(child.pid))
    wait_for(lambda: service.has_ended(run_id), 30)
    assert service.story(run_id)[-1] == "run_finished 1 crashed"
