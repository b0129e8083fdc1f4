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
_MOST_CONNECTIONS = 500


class MissingExtra(TickpoolError):
    """A package that the dashboard needs and that is not there: (its name,)."""

    def __str__(self) -> str:
        return f"the dashboard needs the package `{self.args[0]}`: pip install 'tickpool[web]'"


class PortTaken(TickpoolError):
    """An address at which nothing can listen: (the host, the port, why)."""

    def __str__(self) -> str:
        return f"cannot listen at {self.args[0]}:{self.args[1]}: {self.args[2]}; name another with --host and --port"


class OpenToAll(TickpoolError):
    """An address that others can reach, without what protects what goes there: (the address,)."""

    def __str__(self) -> str:
        ways = "give --tls-cert and --tls-key, or --behind-proxy where a proxy on this machine does that"
        return f"--host {self.args[0]} can be reached by others, and tokens would travel in the clear; {ways}"


def _dashboard(options: argparse.Namespace) -> int:
    from workers.settings import read_settings

    try:
        import uvicorn

        from scheduler.web.app import build_app
        from scheduler.web.tokens import make_tokens, read_tokens
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("scheduler", "workers")):
            raise
        raise MissingExtra(error.name) from None
    settings = read_settings(os.environ)
    _demand_port(options.host, options.port)
    is_secure = options.tls_cert is not None
    if options.host not in _LOOPBACK and not (is_secure or options.behind_proxy):
        raise OpenToAll(options.host)
    path = options.tokens or Path(f"{settings.state_path}.tokens")
    if options.tokens is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_tokens(path, os.environ.get("USER") or "operator")
    hosts = {f"{name}:{options.port}" for name in (options.host, "127.0.0.1", "localhost", "[::1]")}
    hosts |= {name for each in options.allow_host for name in (each, f"{each}:{options.port}")}
    app = build_app(settings, options.dir, read_tokens(path), hosts, is_secure=is_secure or options.behind_proxy)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        proxy_headers=options.behind_proxy,
    )
    tell = say_json if options.json else say
    tell(f"Dashboard at {'https' if is_secure else 'http'}://{options.host}:{options.port}, tokens in {path}")
    server = uvicorn.Server(config)
    if options.with_pid is not None:
        threading.Thread(target=_stop_with, args=(options.with_pid, server), daemon=True).start()
    server.run()
    return 0 if server.started else 2


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
