"""The task kind `wait` for a file, a port or a page: when it is there, what is said until then, and how it ends."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from service import Service, WaitFor, is_running, kill9
from web import Web

from workers.dag import Dag, Task
from workers.dag_model import Http, Wait
from workers.runner import RunInfo, Stop, run_dag
from workers.units import Duration

SHORT = Duration(seconds=0.05)


class Waiting:
    """A run of one task, `a`, that waits, in a thread of its own."""

    def __init__(self, root: Path, dag: Dag) -> None:
        self._log = root / "runs/r/1/a.1.log"
        self._stop = Stop()
        self._result: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, args=(root, dag), daemon=True)
        self._thread.start()

    def _run(self, root: Path, dag: Dag) -> None:
        info = RunInfo("r", fire_time="2026-11-23T15:05:00Z")
        ended = run_dag(dag, project=root, logs_dir=root / "runs", run=info, stop=self._stop, grace_s=1)
        self._result = ended["tasks"]["a"]

    def said(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def result(self) -> dict[str, Any]:
        """Return how it ended, which must be soon."""
        self._thread.join(10)
        assert not self._thread.is_alive(), self.said()
        return self._result

    def end(self) -> None:
        self._stop.request("the test is over")
        self._thread.join(10)
        self._stop.close()


@pytest.fixture
def wait(tmp_path: Path) -> Any:
    """Begin to wait; `given` are the params of the DAG."""
    begun: list[Waiting] = []

    def begin(what: Wait, given: dict[str, Any] | None = None, **fields: Any) -> Waiting:
        cwd = fields.pop("cwd", None)
        dag = Dag(id="d", tasks=(Task(id="a", wait=what, **fields),), params=given or {}, cwd=cwd)
        begun.append(Waiting(tmp_path, dag))
        return begun[-1]

    yield begin
    for each in begun:
        each.end()


Begin = Callable[..., Waiting]

# --- a file -------------------------------------------------------------------------------------------------------


def test_a_file_is_there_once_it_has_come_and_grows_no_more(wait: Begin, wait_for: WaitFor, tmp_path: Path) -> None:
    waiting = wait(Wait(file="in/${run.fire_date}.csv", every=Duration(seconds=0.3)))
    name, path = "in/2026-11-23.csv", tmp_path / "in/2026-11-23.csv"
    wait_for(lambda: waiting.said() == [f"{name}: not there"])
    path.parent.mkdir()
    path.write_text("a")
    wait_for(lambda: f"{name}: growing: 1 bytes" in waiting.said())
    path.write_text("ab")
    assert waiting.result()["outputs"] == {"path": str(path), "size": 2}
    growing = [f"{name}: not there", f"{name}: growing: 1 bytes", f"{name}: growing: 2 bytes"]
    assert waiting.said() == [*growing, f"{name}: there, 2 bytes"]


def test_a_file_that_is_written_anew_with_the_same_size_has_changed(
    wait: Begin, wait_for: WaitFor, tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("a")
    os.utime(tmp_path / "x", (1, 1))
    waiting = wait(Wait(file="x", every=Duration(seconds=0.5)))
    wait_for(lambda: waiting.said() == ["x: growing: 1 bytes"])
    (tmp_path / "y").write_text("b")
    os.utime(tmp_path / "y", (1, 1))
    os.replace(tmp_path / "y", tmp_path / "x")
    assert waiting.result()["duration_s"] > 0.9
    assert waiting.said() == ["x: growing: 1 bytes", "x: there, 1 bytes"]


def test_a_path_starts_at_the_directory_of_the_dag_and_may_be_absolute(wait: Begin, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_text("abc")
    waiting = wait(Wait(file="x", every=SHORT), cwd="sub")
    assert waiting.result()["outputs"] == {"path": str(tmp_path / "sub" / "x"), "size": 3}
    waiting = wait(Wait(file="${params.x}", every=SHORT), {"x": str(tmp_path / "sub" / "x")})
    assert waiting.result()["outputs"]["size"] == 3


def test_only_a_regular_file_is_one(wait: Begin, wait_for: WaitFor, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    waiting = wait(Wait(file="x", every=SHORT))
    wait_for(lambda: waiting.said() == ["x: not a regular file"])
    (tmp_path / "x").rmdir()
    os.mkfifo(tmp_path / "fifo")
    os.symlink("fifo", tmp_path / "x")
    os.symlink("file", tmp_path / "y")
    os.replace(tmp_path / "y", tmp_path / "x")
    wait_for(lambda: waiting.said()[-1] == "x: not there")
    (tmp_path / "file").write_text("")
    assert waiting.result()["outputs"] == {"path": str(tmp_path / "x"), "size": 0}


def test_a_path_that_cannot_be_looked_at_is_told_and_waited_for(wait: Begin, wait_for: WaitFor, tmp_path: Path) -> None:
    os.symlink("x", tmp_path / "x")
    waiting = wait(Wait(file="x/y", every=SHORT))
    wait_for(lambda: waiting.said() == ["x/y: cannot be looked at: Too many levels of symbolic links"])
    (tmp_path / "x").unlink()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_text("a")
    assert waiting.result()["status"] == "success"


# --- a port -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "place"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_port_is_there_once_it_accepts_connections(wait: Begin, wait_for: WaitFor, host: str, place: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        port = server.getsockname()[1]
        waiting = wait(Wait(port=f"{place}:${{params.port}}", every=SHORT), {"port": port})
        wait_for(lambda: waiting.said() == [f"{place}:{port}: Connection refused"])
        server.listen()
        ended = waiting.result()
    assert (ended["status"], ended["outputs"]) == ("success", {})
    assert waiting.said()[1:] == [f"{place}:{port}: accepts connections"]


def test_a_port_that_does_not_answer_is_tried_again_in_time(wait: Begin, wait_for: WaitFor) -> None:
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.1", 0))
        # Linux drops what comes when the backlog is full, so that nobody hears an answer.
        server.listen(0)
        first.connect(server.getsockname())
        place = f"127.0.0.1:{server.getsockname()[1]}"
        waiting = wait(Wait(port=place, every=SHORT))
        wait_for(lambda: waiting.said() == [f"{place}: no answer within 1 s"])
        server.accept()[0].close()
        assert waiting.result()["status"] == "success"


def test_a_host_without_an_address_is_waited_for(wait: Begin, wait_for: WaitFor) -> None:
    waiting = wait(Wait(port="no-such-host.invalid:80", every=SHORT))
    wait_for(lambda: waiting.said(), what="a line")
    assert re.fullmatch(r"no-such-host\.invalid:80: [A-Z][\w -]+", waiting.said()[0])


# --- a page -------------------------------------------------------------------------------------------------------


def test_a_page_is_there_once_its_answer_is_good_and_only_changes_are_told(
    wait: Begin, wait_for: WaitFor, web: Web
) -> None:
    url = web.says("/x", status=503)
    waiting = wait(Wait(http=Http(url, expect=("200",)), every=SHORT))
    wait_for(lambda: len(web.asked) >= 5)
    assert waiting.said() == [f"{url}: 503 Service Unavailable; expected 200"]
    web.says("/x", status=404)
    wait_for(lambda: len(waiting.said()) == 2)
    web.says("/x", b'{"ok": true}', Content_Type="application/json")
    assert waiting.result()["outputs"] == {"status": 200, "body": '{"ok": true}', "json": {"ok": True}}
    assert waiting.said()[1] == f"{url}: 404 Not Found; expected 200"
    assert re.fullmatch(rf"{re.escape(url)}: 200 OK, 12 bytes, \d+\.\d\d s", waiting.said()[2])


def test_a_page_whose_server_is_not_up_yet_is_waited_for(wait: Begin, wait_for: WaitFor) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{server.getsockname()[1]}"
        waiting = wait(Wait(http=f"http://{place}/", every=SHORT))
        wait_for(lambda: waiting.said() == [f"http://{place}/: cannot connect to {place}: Connection refused"])
        server.listen()
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert waiting.result()["outputs"] == {"status": 204, "body": ""}


def test_pages_that_drip_leave_no_connection_behind(wait: Begin, wait_for: WaitFor, web: Web) -> None:
    url = web.does("/x", lambda handler: handler.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 99))
    waiting = wait(Wait(http=Http(url, timeout=Duration(seconds=0.2)), every=SHORT))
    wait_for(lambda: len(web.asked) >= 6)
    me = psutil.Process()
    (child,) = [each for each in me.children() if any(c.raddr and c.raddr.port == web.port for c in _sockets(each))]
    assert len(_sockets(child)) <= 2
    assert child.num_threads() <= 3
    assert waiting.said() == [f"{url}: no answer within 200ms"]


def _sockets(process: psutil.Process) -> list[Any]:
    return list(process.net_connections("tcp"))


# --- values that would break it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "value", "why"),
    [
        (Wait(file="${params.x}"), "", "`wait`: `file` names no file: its references came to nothing"),
        (Wait(file="a${params.x}"), "\0", "the value of `params.x` cannot be used: it holds a NUL byte"),
        (
            Wait(port="${params.x}"),
            "h:x",
            "`wait`: `port`: 'h:x' is no place to connect to; write `host:port`, such as `127.0.0.1:5432`",
        ),
        (
            Wait(port="${params.x}"),
            "h\n:80",
            "`wait`: `port`: 'h\\n:80' is no place to connect to; write `host:port`, such as `127.0.0.1:5432`",
        ),
        (Wait(http="${params.x}"), "h", "the URL is no address of the web: it begins with neither `http://` nor `https://`"),
        (Wait(http="http://h/${params.x}"), "\ud800", "the request holds half a character, a lone surrogate"),
        (Wait(file="${params.x}"), "\ud800", "`wait`: `file` holds half a character, a lone surrogate"),
        (Wait(file="${params.y}"), "", "unknown reference `params.y`; did you mean `params.x`?"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_waited_for_fails_in_one_line(wait: Begin, what: Wait, value: str, why: str) -> None:
    ended = wait(what, {"x": value}).result()
    assert (ended["status"], ended["reason"]) == ("failed", why)


# --- in a worker --------------------------------------------------------------------------------------------------


def test_a_worker_of_a_service_waits_and_goes_on(service: Service, wait_for: WaitFor, web: Web) -> None:
    dag = service.tasks(
        "d",
        {"id": "file", "wait": {"file": "in.csv", "every": "100ms"}},
        {"id": "port", "wait": {"port": f"127.0.0.1:{web.port}"}},
        {"id": "page", "wait": {"http": web.says("/x")}},
        {"id": "t", "run": "echo ${tasks.file.outputs.size}", "needs": ["file", "port", "page"]},
    )
    service.start()
    run_id = service.ask(dag)
    logs = service.root / "logs" / "runs" / run_id / "1"
    wait_for(lambda: (logs / "file.1.log").exists(), 30)
    (service.root / "in.csv").write_text("abc")
    wait_for(lambda: service.has_ended(run_id), 30)
    assert service.story(run_id)[-1] == "run_finished 1 success"
    assert (logs / "t.1.log").read_text() == "3\n"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_wait_ends_when_it_is_told_to(service: Service, wait_for: WaitFor, how: str) -> None:
    task = {"id": "t", "wait": {"file": "never"}, **({"timeout": "1s"} if how == "timeout" else {})}
    dag = service.tasks("d", task)
    service.start()
    run_id = service.ask(dag)
    wait_for(lambda: service.task_pid(run_id), 30)
    pid = service.task_pid(run_id)
    if how == "cancel":
        assert service.command("cancel", run_id).returncode == 0
    wait_for(lambda: service.has_ended(run_id), 30)
    assert not is_running(pid)
    (end,) = service.events("run_finished", run_id)
    assert end["status"] == {"cancel": "cancelled", "timeout": "failed"}[how]


def test_a_wait_does_not_outlive_a_worker_that_is_killed(service: Service, wait_for: WaitFor) -> None:
    dag = service.tasks("d", {"id": "t", "wait": {"file": "never"}})
    service.start()
    run_id = service.ask(dag)
    wait_for(lambda: service.task_pid(run_id), 30)
    child = psutil.Process(service.task_pid(run_id))
    worker = child.parent()
    assert worker is not None
    kill9(worker)
    wait_for(lambda: not is_running(child.pid))
    wait_for(lambda: service.has_ended(run_id), 30)
    assert service.story(run_id)[-1] == "run_finished 1 crashed"
