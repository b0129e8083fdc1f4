"""The load of pools in a forecast: slots that are taken by the hour, and who waits for one."""

from __future__ import annotations

import pytest
from test_forecast import HOLIDAYS, LIMITS, POLICIES, VARIED, dice, lasting, plan_of

from scheduler.forecast import Plan, simulate
from scheduler.forecast_facts import PoolForecast
from scheduler.limits import Limits

DB = Limits(pools={"db": 2, "idle": 1})


def pools_of(plan: Plan, seconds: float) -> list[PoolForecast]:
    return simulate(plan, lasting(seconds)).pools.facts()


def at_three(count: int) -> list[dict[str, str]]:
    return [{"id": f"s{number}", "cron": "0 3 * * *", "pool": "db"} for number in range(count)]


def test_a_pool_has_its_taken_slots_and_who_waits_for_one_by_the_hour() -> None:
    plan = plan_of(*at_three(3), {"id": "other", "cron": "0 3 * * *"}, workers=9, limits=DB)
    db, idle = pools_of(plan, 2400)
    assert (db.pool, db.slots, db.schedules, len(db.hours)) == ("db", 2, 3, 24)
    assert (idle.pool, idle.schedules, {hour.busy_s for hour in idle.hours}) == ("idle", 0, {0.0})
    # Two at 03:00, the third when they have ended, at 03:40.
    third, fourth = db.hours[3:5]
    assert (third.begin, third.due) == ("2026-10-12T03:00:00Z", 3)
    assert (third.busy_s, third.queued_s, third.deepest) == (2 * 2400 + 1200, 2400, 1)
    assert (fourth.due, fourth.busy_s, fourth.queued_s, fourth.deepest) == (0, 1200, 0, 0)
    assert sum(hour.busy_s for hour in db.hours) == 3 * 2400


def test_who_waits_for_a_worker_while_a_slot_is_free_does_not_wait_for_the_pool() -> None:
    plan = plan_of(*at_three(3), workers=1, limits=DB)
    outcome = simulate(plan, lasting(2400))
    assert max(outcome.deepest) == 2
    assert {hour.deepest for hour in outcome.pools.facts()[0].hours} == {0}


def test_a_disabled_schedule_is_in_no_pool() -> None:
    plan = plan_of(*at_three(2), {"id": "off", "cron": "0 3 * * *", "pool": "db", "enabled": False}, limits=DB)
    assert pools_of(plan, 60)[0].schedules == 2


@pytest.mark.parametrize("workers", [2, 6])
def test_the_slots_of_a_pool_are_as_busy_as_its_schedules_whatever_their_policies(workers: int) -> None:
    plan = plan_of(*VARIED, *POLICIES, *HOLIDAYS, days=4.3, workers=workers, limits=LIMITS)
    outcome = simulate(plan, dice)
    [small] = outcome.pools.facts()
    members = {each.id for each in plan.schedules if each.pool == "small"}
    busy_s = sum(figures.busy_s for name, figures in outcome.schedules.items() if name in members)
    asked = sum(figures.runs for name, figures in outcome.schedules.items() if name in members)
    assert sum(hour.busy_s for hour in small.hours) == pytest.approx(busy_s, abs=1)
    assert sum(hour.due for hour in small.hours) == asked
    assert all(hour.busy_s <= small.slots * 3600 + 1e-3 for hour in small.hours)
    assert sum(hour.queued_s for hour in small.hours) > 0
    assert all((hour.queued_s > 0) == (hour.deepest > 0) for hour in small.hours)
