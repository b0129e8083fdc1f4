"""`tickpool dashboard`: where it may listen, by which names it is called, whom it believes. Real processes."""

from __future__ import annotations

import json
import signal
import ssl
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from dashboard import OPERATOR, VIEWER, Dashboard
from service import Service, WaitFor
from web import certificate

from scheduler.cli.dashing import BadCertificate


def refused(service: Service, *words: str) -> str:
    """Return what is told of a dashboard that does not start."""
    done = service.command("dashboard", "--dir", "schedules", *words)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "127.0.0.2", "example.com"])
def test_an_address_that_others_reach_is_refused_without_tls_or_a_proxy(service: Service, host: str) -> None:
    assert "can be reached by others" in refused(service, "--host", host, "--port", "1")
    assert not list(service.root.glob("logs/*.tokens"))


def test_it_listens_on_loopback_where_nothing_else_is_said(dashboard: Dashboard) -> None:
    process = dashboard.start().process
    assert process is not None
    listening = [each.laddr for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"]
    assert listening == [("127.0.0.1", dashboard.port)]


def test_a_certificate_that_cannot_be_used_is_told_in_one_line(service: Service, tmp_path: Path) -> None:
    certificate(tmp_path)
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    for words, why in (
        (("--tls-key", key), "a key is given, and no certificate"),
        (("--tls-cert", "nowhere.pem"), "No such file or directory"),
        (("--tls-cert", str(tmp_path / "bad.pem"), "--tls-key", key), ""),
        (("--tls-cert", cert), ""),
    ):
        assert refused(service, *words).endswith(f"{BadCertificate(why)}\n" if why else "\n")


def test_with_tls_it_may_listen_for_others_and_speaks_nothing_else(
    service: Service, wait_for: WaitFor, tmp_path: Path
) -> None:
    cert, _ = certificate(tmp_path, "IP:127.0.0.1,DNS:localhost")
    place = Dashboard(service, wait_for)
    words = ("--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(tmp_path / "key.pem"))
    service.launch("-m", "scheduler.cli", "dashboard", "--dir", "schedules", "--port", str(place.port), *words)
    wait_for(lambda: service.out() != "", 30, "the dashboard")
    assert service.out().startswith(f"Dashboard at https://0.0.0.0:{place.port}, tokens in ")
    with httpx.Client(verify=ssl.create_default_context(cafile=cert)) as client:

        def answers() -> bool:
            try:
                return client.get(f"https://localhost:{place.port}/login").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, 30, "an answer")
        answer = client.get(f"https://127.0.0.1:{place.port}/login")
        assert answer.headers["strict-transport-security"]
        with pytest.raises(httpx.TransportError):
            client.get(f"http://127.0.0.1:{place.port}/login")


def test_a_name_is_given_with_allow_host_and_no_other_is_answered(dashboard: Dashboard) -> None:
    dashboard.start("--allow-host", "tick.example.com", "--allow-host", "other.example.com:8443")
    client, port = dashboard.client(), dashboard.port

    def code(host: str) -> int:
        return client.get("/api/v1/now", headers={"Host": host}).status_code

    known = (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "tick.example.com", "Tick.Example.com")
    assert {code(host) for host in (*known, f"tick.example.com:{port}", "other.example.com:8443")} == {200}
    unknown = (
        "127.0.0.1",
        "localhost",
        "other.example.com",
        "tick.example.com:1",
        "tick.example.com.",
        "x.tick.example.com",
    )
    assert {code(host) for host in unknown} == {421}


def failed_logins(client: httpx.Client, forwarded: list[str]) -> list[int]:
    """Fail to log in, each time with another `X-Forwarded-For`; return the statuses."""
    answers = [client.post("/login", data={"token": "wrong"}, headers={"X-Forwarded-For": each}) for each in forwarded]
    return [each.status_code for each in answers]


def test_behind_a_proxy_the_address_that_it_names_is_the_one_that_is_locked_out(dashboard: Dashboard) -> None:
    dashboard.start("--behind-proxy", "--allow-host", "tick.example.com")
    client = dashboard.client()
    del client.headers["authorization"]
    client.headers.update({"Host": "tick.example.com", "Origin": "https://tick.example.com"})
    # Who asks writes what is at the left; the proxy adds the rest.
    assert failed_logins(client, [f"198.51.100.{n}, 192.0.2.1" for n in range(11)]) == [403] * 10 + [429]
    assert failed_logins(client, ["192.0.2.1, 192.0.2.2"]) == [403]
    for forwarded, code in (("192.0.2.1", 429), ("198.51.100.1", 303)):
        answer = client.post("/login", data={"token": OPERATOR}, headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == code
    assert dashboard.service.err() == "10 wrong tokens from 192.0.2.1: it has to wait for five minutes\n"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("tickpool_session=")
    assert "; Secure" in cookie
    assert answer.headers["strict-transport-security"]


def test_without_a_proxy_nobody_names_the_address_that_is_locked_out(dashboard: Dashboard) -> None:
    dashboard.start()
    client = dashboard.client()
    del client.headers["authorization"]
    assert failed_logins(client, [f"198.51.100.{n}" for n in range(11)]) == [403] * 10 + [429]
    answer = client.post("/login", data={"token": VIEWER})
    assert (answer.status_code, "strict-transport-security" in answer.headers) == (429, False)


def test_no_token_is_in_a_command_line_in_what_is_printed_in_an_address_or_in_the_log(
    dashboard: Dashboard, service: Service, wait_for: WaitFor
) -> None:
    service.schedule("s", "0 0 1 1 *", service.dag("d", "true"))
    service.start()
    wait_for(service.is_ready, 30, "a service")
    process = dashboard.start().process
    assert process is not None
    client = dashboard.client()
    assert client.post("/api/v1/schedules/s/pause", json={"reason": "x"}).status_code == 200
    del client.headers["authorization"]
    answer = client.post("/login", data={"token": OPERATOR, "next": "/schedules"})
    session = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
    assert client.get("/schedules", headers={"Accept": "text/html"}).status_code == 200
    seen = [
        " ".join(psutil.Process(process.pid).cmdline()),
        str(psutil.Process(process.pid).environ()),
        service.out() + service.err(),
        json.dumps(service.events()),
        answer.headers["location"],
        client.get("/schedules", headers={"Accept": "text/html"}).text,
        client.get("/api/v1/now").text,
    ]
    for text in seen:
        assert not [secret for secret in (OPERATOR, VIEWER, session) if secret in text]
    assert answer.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_without_a_word_while_pages_are_open(dashboard: Dashboard, number: signal.Signals) -> None:
    process = dashboard.start().process
    assert process is not None
    with ExitStack() as streams:
        opened = [
            streams.enter_context(dashboard.client().stream("GET", path))
            for path in ("/stream", "/api/v1/events/stream")
        ]
        lines = [each.iter_lines() for each in opened]
        assert [next(each) for each in lines] == ["retry: 1000", "retry: 1000"]
        process.send_signal(number)
        # Each comes to its end: nothing was cut off.
        for each in lines:
            list(each)
    assert process.wait(10) in (130, -number)
    assert dashboard.service.err() == ""
