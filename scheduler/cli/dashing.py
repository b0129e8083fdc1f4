"""The command that serves pages: dashboard."""

from __future__ import annotations

import argparse
import os
import select
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from workers.errors import TickpoolError

from .output import say, say_json
from .parser import Command, add_dir, whole_number

if TYPE_CHECKING:
    import uvicorn

__all__ = ["COMMANDS"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class MissingExtra(TickpoolError):
    """A package that the dashboard needs and that is not there: (its name,)."""

    def __str__(self) -> str:
        return f"the dashboard needs the package `{self.args[0]}`: in the checkout, pip install '.[web]'"


class PortTaken(TickpoolError):
    """An address at which nothing can listen: (the host, the port, why)."""

    def __str__(self) -> str:
        return f"cannot listen at {self.args[0]}:{self.args[1]}: {self.args[2]}; name another with --host and --port"


class OpenToAll(TickpoolError):
    """An address that others can reach, without what protects what goes there: (the address,)."""

    def __str__(self) -> str:
        ways = "give --tls-cert and --tls-key, or --behind-proxy where a proxy on this machine does that"
        return f"--host {self.args[0]} can be reached by others, and tokens would travel in the clear; {ways}"


class BadCertificate(TickpoolError):
    """A certificate or key that TLS cannot be spoken with: (why,)."""

    def __str__(self) -> str:
        return f"--tls-cert and --tls-key cannot be used: {self.args[0]}"


def _dashboard(options: argparse.Namespace) -> int:
    from workers.settings import read_settings

    try:
        import uvicorn

        from scheduler.web.app import build_app
        from scheduler.web.connection import MOST_CONNECTIONS, Connection, Server
        from scheduler.web.tokens import make_tokens, read_tokens
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("scheduler", "workers")):
            raise
        raise MissingExtra(error.name) from None
    settings = read_settings(os.environ)
    is_secure = _is_secure(options)
    _demand_port(options.host, options.port)
    path = options.tokens or Path(f"{settings.state_path}.tokens")
    if options.tokens is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_tokens(path, os.environ.get("USER") or "operator")
    hosts = _hosts(options, is_secure=is_secure)
    app = build_app(settings, options.dir, read_tokens(path), hosts, is_secure=is_secure or options.behind_proxy)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=Connection,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        proxy_headers=options.behind_proxy,
        forwarded_allow_ips=["127.0.0.1", "::1"],
    )
    tell = say_json if options.json else say
    tell(f"Dashboard at {'https' if is_secure else 'http'}://{_shown(options.host)}:{options.port}, tokens in {path}")
    server = Server(config, app.state.desk.feed.end)
    if options.with_pid is not None:
        threading.Thread(target=_stop_with, args=(options.with_pid, server), daemon=True).start()
    server.run()
    return 0 if server.started else 2


def _is_secure(options: argparse.Namespace) -> bool:
    """Say whether TLS is spoken. Raises BadCertificate, OpenToAll."""
    if options.tls_cert is None and options.tls_key is not None:
        raise BadCertificate("a key is given, and no certificate")
    if options.tls_cert is not None:
        import ssl  # no other command wants it

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise BadCertificate(error.strerror or str(error)) from None
        return True
    if options.host not in _LOOPBACK and not options.behind_proxy:
        raise OpenToAll(options.host)
    return False


def _hosts(options: argparse.Namespace, *, is_secure: bool) -> set[str]:
    """Return what a request may name as its host: a browser leaves out the port where it is the usual one."""
    names = {_shown(options.host), "127.0.0.1", "localhost", "[::1]", *options.allow_host}
    is_usual = options.port == (443 if is_secure else 80)
    return {f"{name}:{options.port}" for name in names} | (names if is_usual else set(options.allow_host))


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _demand_port(host: str, port: int) -> None:
    """Raise PortTaken where nothing can listen there: the server itself tells that in its own words, and by exit 1."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(host, port, error.strerror) from None


def _stop_with(pid: int, server: uvicorn.Server) -> None:
    """Stop the server when a process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        server.should_exit = True
        return
    select.select([pidfd], [], [])
    server.should_exit = True


def _add_dashboard(parser: argparse.ArgumentParser) -> None:
    add_dir(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="the address (default: 127.0.0.1)")
    parser.add_argument("--port", type=whole_number(1, 65535), default=8400, metavar="N", help="(default: 8400)")
    parser.add_argument(
        "--tokens", type=Path, metavar="FILE", help="lines NAME ROLE TOKEN (default: made beside the log)"
    )
    parser.add_argument(
        "--with", dest="with_pid", type=whole_number(1, 1 << 22), metavar="PID", help="end when this process ends"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="a certificate, in PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, in PEM")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy on this machine speaks TLS with the world")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name it is called by")


COMMANDS = {"dashboard": Command("serve the pages of the dashboard", _dashboard, _add_dashboard)}
