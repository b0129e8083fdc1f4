"""What the service manager is told, by a real datagram socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from service import Service

from scheduler.notify_systemd import Systemd

WaitFor = Callable[..., None]


class Manager:
    """The receiving end, which notes when each message came."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.address = address
        self.told: list[tuple[float, dict[str, str]]] = []

    def look(self) -> list[dict[str, str]]:
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except BlockingIOError:
                return [message for _, message in self.told]
            message = dict(line.split("=", 1) for line in text.splitlines())
            self.told.append((time.monotonic(), message))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    is_abstract = getattr(request, "param", "path") == "abstract"
    manager = Manager(f"@tickpool-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.mark.parametrize("manager", ["path", "abstract"], indirect=True)
def test_the_service_tells_when_it_is_ready_how_it_is_and_when_it_stops(
    service: Service, wait_for: WaitFor, manager: Manager
) -> None:
    held = service.dag("held", "while [ ! -e go ]; do sleep 0.02; done")
    before = service.ask(held)
    supervisor = service.start(NOTIFY_SOCKET=manager.address)
    wait_for(lambda: {"READY": "1"} in manager.look())
    # Ready means that the log is replayed: the service is on record, and what waited is known.
    assert service.events("supervisor_started")
    wait_for(lambda: {"STATUS": "1 running, 0 queued, 0 schedules"} in manager.look())
    others = [service.ask(held) for _ in range(2)]
    wait_for(lambda: {"STATUS": "2 running, 1 queued, 0 schedules"} in manager.look())
    (service.root / "go").touch()
    wait_for(lambda: service.has_ended(before, *others))
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    messages = manager.look()
    assert messages[-1] == {"STOPPING": "1"}
    assert messages.count({"READY": "1"}) == 1
    # There is no watchdog, and nothing is said twice in a row.
    assert not any("WATCHDOG" in message for message in messages)
    assert all(one != other for one, other in pairwise(messages))


def test_the_watchdog_is_pinged_every_half_interval_whatever_the_tick(
    service: Service, wait_for: WaitFor, manager: Manager
) -> None:
    interval_s = 2.0
    service.start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC=str(int(interval_s * 1e6)), SCHED_TICK_MS="60000")
    wait_for(lambda: sum("WATCHDOG" in message for message in manager.look()) >= 4, timeout=20)
    times = [at for at, message in manager.told if "WATCHDOG" in message]
    assert max(after - before for before, after in pairwise(times)) < interval_s / 2


def test_a_service_that_stands_by_is_ready_and_pings(service: Service, wait_for: WaitFor, manager: Manager) -> None:
    service.start()
    wait_for(service.is_ready)
    second = service.start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="1000000")
    wait_for(lambda: {"READY": "1", "STATUS": "standing by"} in manager.look())
    wait_for(lambda: manager.look().count({"WATCHDOG": "1"}) >= 3)
    second.terminate()
    assert second.wait(5) == 0


def test_pings_go_on_while_runs_are_given_their_grace(service: Service, wait_for: WaitFor, manager: Manager) -> None:
    service.ask(service.dag("d", "touch up; while [ ! -e go ]; do sleep 0.02; done"))
    supervisor = service.start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="1000000")
    wait_for((service.root / "up").exists)
    supervisor.terminate()
    wait_for(lambda: {"STOPPING": "1"} in manager.look())
    stopping = manager.look().index({"STOPPING": "1"})
    wait_for(lambda: manager.look()[stopping:].count({"WATCHDOG": "1"}) >= 3)
    (service.root / "go").touch()
    assert supervisor.wait(10) == 0


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 7.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 7.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_says_so(environ: dict[str, str], every_s: float | None) -> None:
    assert Systemd({"NOTIFY_SOCKET": "/run/x", **environ}).ping_every_s == every_s
    assert Systemd(environ).ping_every_s is None


def test_a_status_is_told_when_it_is_another(manager: Manager) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.address})
    for status in ("idle", "idle", "busy", "idle"):
        systemd.show(status)
    assert manager.look() == [{"STATUS": "idle"}, {"STATUS": "busy"}, {"STATUS": "idle"}]


def test_a_manager_that_is_gone_or_full_holds_nobody_up(
    tmp_path: Path, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify(READY="1")
    systemd = Systemd({"NOTIFY_SOCKET": manager.address})
    while len(caplog.messages) < 2:
        systemd.notify(STATUS="x" * 1000)
    assert "systemd cannot be told 'READY=1'" in caplog.messages[0]
    assert "temporarily unavailable" in caplog.messages[1]
