"""A step of the wall clock is seen, until it is accepted; time that goes by is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from scheduler.clock import ClockWatch

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize("step_s", [3600, -3600, 2.5, -2.5, 86400 * 3650])
def test_a_step_is_told_until_it_is_accepted(step_s: float) -> None:
    with time_machine.travel(NOON, tick=False) as traveller:
        watch = ClockWatch()
        assert watch.look() is None
        traveller.shift(timedelta(seconds=step_s))
        for _ in range(2):
            jump = watch.look()
            assert jump is not None
            assert jump.seconds == pytest.approx(step_s, abs=0.5)
            assert jump.now == NOON + timedelta(seconds=step_s)
            assert abs(jump.was - NOON) < timedelta(seconds=0.5)
        assert jump.event()["event"] == "clock_jumped"
        assert jump.event()["jump_s"] == pytest.approx(step_s, abs=0.5)
        watch.accept()
        assert watch.look() is None


def test_a_clock_that_is_corrected_bit_by_bit_has_not_jumped() -> None:
    with time_machine.travel(NOON, tick=False) as traveller:
        watch = ClockWatch()
        for _ in range(10):
            traveller.shift(timedelta(seconds=1.5))
            assert watch.look() is None
