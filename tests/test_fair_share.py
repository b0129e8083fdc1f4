"""Fair shares: what tenants get of the workers, over hours of played time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_world import World

from scheduler.fair_share import FairShare
from scheduler.limits import Limits, Tenant

HOUR_S = 3600.0


def weighted(**weights: int) -> Limits:
    return Limits(tenants={name: Tenant(weight=weight) for name, weight in weights.items()})


# All at once (nine runs are three turns of three workers), or one after the other; a worker is free at a whole minute.
@pytest.mark.parametrize(("step_s", "length_s"), [(0, 5), (0, 15), (2, 10), (6, 15), (6.5, 15), (7, 7)])
def test_a_tenant_with_ten_thousand_queued_runs_keeps_no_other_waiting_for_two_run_lengths(
    step_s: float, length_s: float
) -> None:
    world = World(workers=3)
    for number in range(10_000):
        world.ask(f"big.{number}", length_s=length_s)
    others = [f"t{number}" for number in range(9)]
    for minute in range(1, 60):
        for place, name in enumerate(others):
            world.ask(f"{name}.{minute}", 60.0 * minute + step_s * place, length_s=length_s)
    world.live(HOUR_S + 60)
    for name in others:
        assert len(world.waits_s(name)) == 59
        assert max(world.waits_s(name)) <= 2 * length_s, name
    # What they leave is not left idle.
    assert sum(world.work_s(name) for name in ["big", *others]) == 3 * (HOUR_S + 60)


@settings(max_examples=15, deadline=None)
@given(
    weights=st.lists(st.integers(1, 8), min_size=2, max_size=4),
    lengths=st.lists(st.sampled_from([7.0, 20.0, 30.0, 60.0]), min_size=4, max_size=4),
    workers=st.integers(1, 4),
)
def test_busy_tenants_get_time_in_proportion_to_their_weights(
    weights: list[int], lengths: list[float], workers: int
) -> None:
    shares = {f"t{number}": weight for number, weight in enumerate(weights)}
    world = World(workers, weighted(**shares))
    for name, length_s in zip(shares, lengths, strict=False):
        for number in range(int(workers * 4 * HOUR_S / length_s)):
            world.ask(f"{name}.{number}", length_s=length_s)
    world.live(4 * HOUR_S)
    for name, weight in shares.items():
        due_s = workers * 4 * HOUR_S * weight / sum(weights)
        # The runs that are not over, and the first, of which nobody knew the length.
        assert abs(world.work_s(name) - due_s) <= 0.03 * due_s + 4 * workers * 60


def test_a_tenant_that_was_idle_for_hours_gets_no_more_than_its_share_when_it_comes_back() -> None:
    world = World(workers=4, limits=weighted(busy=1, late=1))
    for number in range(8000):
        world.ask(f"busy.{number}", length_s=10.0)
    world.ask("late.first", length_s=10.0)
    for number in range(4000):
        world.ask(f"late.{number}", 5 * HOUR_S, length_s=10.0)
    world.live(5 * HOUR_S)
    before_s = world.work_s("busy")
    for minutes in (1, 2, 5, 30):
        world.live(5 * HOUR_S + 60.0 * minutes)
        assert abs(world.work_s("busy") - before_s - 4 * 30.0 * minutes) <= 4 * 10
    assert before_s == 4 * 5 * HOUR_S - 10


def test_long_runs_count_for_more_than_short_ones() -> None:
    world = World(workers=2)
    for number in range(4000):
        world.ask(f"short.{number}", length_s=2.0)
        world.ask(f"long.{number}", length_s=100.0)
    world.live(HOUR_S)
    assert abs(world.work_s("short") - HOUR_S) < 0.05 * HOUR_S


def test_a_run_that_takes_no_time_has_its_price_too() -> None:
    share = FairShare()
    share.learn("quick", 0.0)
    before = share.tag("quick")
    share.charge("quick", 1)
    assert share.tag("quick") > before


def test_what_was_handed_out_and_did_not_start_is_not_charged() -> None:
    share = FairShare()
    share.refund("a", share.charge("a", 1))
    assert share.tag("a") == share.tag("b")
