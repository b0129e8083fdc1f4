"""A real web server on 127.0.0.1 that answers as it is told to, and keeps what it was asked."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Asked(NamedTuple):
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[["Handler"], object]


class Web:
    """The server: `answers` by path, 404 for others; `asked` in order. `over` is set when it closes."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, Answer] = {}
        self.over = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.web = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return the address of a path."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def says(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        """Answer so from now on; in the names of headers `_` stands for `-`. Return the address."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = lambda handler: handler.say(status, body, named)
        return self.url(path)

    def does(self, path: str, answer: Answer) -> str:
        """Answer by a function from now on; return the address."""
        self.answers[path] = answer
        return self.url(path)

    def close(self) -> None:
        """Stop serving."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class Server(ThreadingHTTPServer):
    """Keeps silent about clients that go away."""

    web: Web

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client is told to do so by the tests."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self) -> None:
        """Note what is asked, and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.web.asked.append(Asked(self.command, self.path, dict(self.headers.items()), body))
        found = self.server.web.answers.get(self.path.partition("?")[0])
        self.close_connection = True
        if found is None:
            self.say(404)
        else:
            found(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def say(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        """Send a byte every now and then, until the client has gone or the server closes."""
        for byte in data:
            if self.server.web.over.wait(0.05):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def log_message(self, *words: object) -> None:
        """Nobody reads it."""


def certificate(directory: Path, name: str = "IP:127.0.0.1") -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for a name; return its file, for those who trust it, and what a server needs to show it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-keyout", str(key), "-out", str(cert)]
    command += ["-addext", f"subjectAltName={name}", "-addext", "keyUsage=digitalSignature,keyCertSign"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context
