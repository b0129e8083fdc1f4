"""A real dashboard on a project, and who asks it: a bare client that times the first byte, and many open streams."""

from __future__ import annotations

import gzip
import json
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from workers.event_log import EventLog

from .processes import clean_environ, wait_for
from .project import STATE_LOG

__all__ = ["TOKEN", "Answer", "Arrivals", "Client", "Dashboard", "Streams", "cpu_share"]

TOKEN = "token-of-the-operator"
# A run of the DAG `check` is nine events: three of the run, and two of each of its tasks.
_EVENTS_A_RUN = 9
_ASSET = re.compile(rb'(?:src|href)="(/static/[^"]+)"')


class Answer(NamedTuple):
    """An answer: when its first byte and its last one came, in milliseconds; its size as it was sent, and its body."""

    first_ms: float
    whole_ms: float
    size: int
    body: bytes


class Dashboard:
    """`tickpool dashboard` on a project, as a process. As a context manager it ends."""

    def __init__(self, project: Path) -> None:
        tokens = project / "tokens"
        tokens.write_text(f"ann operator {TOKEN}\n", "ascii")
        tokens.chmod(0o600)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        words = ["-m", "scheduler.cli", "dashboard", "--dir", "schedules", "--port", str(self.port)]
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *words, "--tokens", "tokens"],
            cwd=project,
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._of = psutil.Process(self.process.pid)

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()

    def first_page_s(self) -> float:
        """Return how long it took from its start to the whole of the first page, asked for all the time."""

        def is_there() -> bool:
            with suppress(OSError):
                Client(self.port).get("/")
                return True
            return False

        wait_for(is_there, 60, "the first page")
        return time.perf_counter() - self.began

    def caught_up_s(self) -> float:
        """Return how long it took from its start until it had read all there was."""
        client = Client(self.port)
        wait_for(lambda: json.loads(client.get("/api/v1/now").body)["is_caught_up"], 300, "the whole history", 0.05)
        return time.perf_counter() - self.began

    def cpu_s(self) -> float:
        """Return the CPU time that it has taken."""
        times = self._of.cpu_times()
        return times.user + times.system

    def rss_mib(self) -> float:
        """Return the memory that it has."""
        return float(self._of.memory_info().rss) / 2**20


class Client:
    """One kept connection, as a browser has it: compressed answers, and nothing between the socket and the clock."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path: str) -> Answer:
        """Ask for a path. Raises RuntimeError for an answer that is not 200, OSError."""
        request = _request(self._port, path)
        began = time.perf_counter()
        self._socket.sendall(request)
        data = self._more()
        first_ms = 1000 * (time.perf_counter() - began)
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
        headers = {name: value.strip() for name, _, value in lines}
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{path}: {head.splitlines()[0]!r}")
        length = headers.get(b"content-length")
        while len(body) < int(length) if length else not body.endswith(b"0\r\n\r\n"):
            body += self._more()
        whole_ms = 1000 * (time.perf_counter() - began)
        size = len(body)
        if not length:
            body = _dechunked(body)
        return Answer(
            first_ms, whole_ms, size, gzip.decompress(body) if headers.get(b"content-encoding") == b"gzip" else body
        )

    def weight_kb(self, path: str) -> float:
        """Return the size of a page with all that it loads, as it was sent, in kB."""
        page = self.get(path)
        return (page.size + sum(self.get(each.decode()).size for each in set(_ASSET.findall(page.body)))) / 1000

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server has hung up")
        return data


def _request(port: int, path: str) -> bytes:
    accept = "text/html" if not path.startswith(("/api/", "/stream")) else "*/*"
    lines = (f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Accept: {accept}", "Accept-Encoding: gzip")
    return "\r\n".join([*lines, f"Authorization: Bearer {TOKEN}", "", ""]).encode()


def _dechunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        whole, data = whole + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return whole


class Streams:
    """So many open streams, read by a thread of this process; as a context manager they are closed."""

    def __init__(self, port: int, count: int) -> None:
        self.lines = 0
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        for _ in range(count):
            each = socket.create_connection(("127.0.0.1", port), timeout=10)
            each.sendall(_request(port, "/stream"))
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.2):
                self.lines += key.fileobj.recv(1 << 16).count(b"event: change")  # type: ignore[union-attr]


class Arrivals:
    """Requests for runs, appended by a thread at an even pace so that about `rate` events come a second.

    The service runs them. `asked` has the moment of each append that is done, by run id, seconds since the epoch.
    """

    def __init__(self, project: Path, rate: float, name: str = "load") -> None:
        self.asked: dict[str, float] = {}
        self._every_s = _EVENTS_A_RUN / rate
        self._project, self._name = project, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._append, daemon=True)

    def __enter__(self) -> Arrivals:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _append(self) -> None:
        log, number = EventLog(self._project / STATE_LOG), 0
        while not self._over.wait(self._every_s):
            number += 1
            run_id = f"{self._name}.{number:04d}"
            event: dict[str, Any] = {"event": "run_requested", "run_id": run_id, "attempt": 1, "by": "bench"}
            log.append({**event, "dag": "dags/check.yaml", "project": str(self._project)})
            self.asked[run_id] = time.time()
        log.close()


def cpu_share(dashboard: Dashboard, during: Callable[[], object]) -> float:
    """Return the share of a core, in %, that a dashboard takes during a call."""
    before_s, began = dashboard.cpu_s(), time.monotonic()
    during()
    return 100 * (dashboard.cpu_s() - before_s) / (time.monotonic() - began)
