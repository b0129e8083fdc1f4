"""Signals become facts, and the wait ends for them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from scheduler.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    wakeup = Wakeup()
    wakeup.install()
    yield wakeup
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)
    os.close(wakeup._in)
    os.close(wakeup._out)


def test_each_request_to_stop_is_counted(wakeup: Wakeup) -> None:
    assert wakeup.stops() == 0
    os.kill(os.getpid(), signal.SIGTERM)
    assert wakeup.stops() == 1
    os.kill(os.getpid(), signal.SIGINT)
    assert (wakeup.stops(), wakeup.stops()) == (2, 2)


def test_a_request_to_reload_is_told_once(wakeup: Wakeup) -> None:
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
    assert (wakeup.take_reload(), wakeup.take_reload(), wakeup.stops()) == (True, False, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_the_wait(wakeup: Wakeup, number: signal.Signals) -> None:
    timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
    timer.start()
    began = time.monotonic()
    assert wakeup.wait([], 60) == []
    assert time.monotonic() - began < 30
    timer.join()
    # It was taken: the next wait is a real one again.
    assert wakeup.wait([], 0.01) == []


def test_a_signal_that_came_before_the_wait_ends_it_too(wakeup: Wakeup) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    began = time.monotonic()
    wakeup.wait_until([], time.time() + 60, 60)
    assert time.monotonic() - began < 30


def test_what_is_ready_is_returned_without_the_wakeup_itself(wakeup: Wakeup) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert wakeup.wait([reading], 60) == [reading]
    assert wakeup.wait_until([reading], time.time() - 5, 60) == [reading]
    os.close(reading)
    os.close(writing)


def test_a_time_of_the_wall_clock_is_met_and_not_passed_early(wakeup: Wakeup) -> None:
    for rest_s in (0.0, 0.0004, 0.003, 0.0317):
        deadline_s = time.time() + rest_s
        assert wakeup.wait_until([], deadline_s, 60) == []
        assert deadline_s <= time.time() < deadline_s + 1


@pytest.mark.parametrize("years", [0.001, 1, 400, float("inf")])
def test_a_clock_that_is_set_back_meanwhile_makes_no_wait_longer(wakeup: Wakeup, years: float) -> None:
    began = time.monotonic()
    assert wakeup.wait_until([], time.time() + years * 365 * 86400, 0.02) == []
    assert time.monotonic() - began < 30
