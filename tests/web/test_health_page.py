"""The pages Forecast and Health: what is worked out beside the server, and what the log tells of deaths and faults."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gated import OPERATOR, bearer
from playwright.sync_api import Browser
from schedule_world import World, browser_page, world_of
from service import Service, WaitFor, kill9
from starlette.testclient import TestClient

from scheduler.state_store import record_event


@pytest.fixture
def world(service: Service, wait_for: WaitFor) -> Iterator[World]:
    """A schedule of every hour in a pool; nothing runs yet."""
    (service.root / "schedules" / "limits.yaml").write_text("pools: {db: 2}\n")
    service.schedule("hourly", "0 * * * *", service.dag("d", "true"), pool="db")
    with world_of(service, wait_for) as found:
        yield found


def test_the_forecast_is_worked_out_beside_the_server_and_kept(world: World) -> None:
    world.serve()
    world.open()
    first = world.get("/api/v1/forecast").json()
    assert first["is_pending"]
    assert first["hours"] == []
    assert "being worked out" in world.page("/forecast")
    world.wait_for(lambda: world.get("/api/v1/forecast").json()["hours"], 60, "the forecast")
    found = world.get("/api/v1/forecast").json()
    assert found["workers"] == 2
    assert len(found["hours"]) == 7 * 24
    assert [(pool["pool"], pool["slots"], pool["schedules"]) for pool in found["pools"]] == [("db", 2, 1)]
    assert not found["is_pending"]
    page = world.page("/forecast")
    assert "it fits" in page
    assert 'class="hours"' in page
    assert world.get("/api/v1/forecast").json()["made_s"] == found["made_s"]


def test_the_heat_map_is_of_the_workers_or_of_a_pool_that_a_link_names(browser: Browser, world: World) -> None:
    # Twelve runs of ten minutes in one slot: two hours are full, and at most eleven wait.
    (world.service.root / "schedules" / "limits.yaml").write_text("pools: {db: 2, one: 1}\n")
    for name in (f"c{number:02d}" for number in range(12)):
        world.service.schedule(name, "0 9 * * *", "dags/d.yaml", pool="one")
        end = {"run_id": f"{name}.1", "schedule_id": name, "attempt": 1, "status": "success", "duration_s": 600.0}
        record_event({"event": "run_finished", **end}, world.service.log)
    world.open()
    world.wait_for(lambda: world.get("/api/v1/forecast").json()["hours"], 60, "the forecast")
    found = world.get("/api/v1/forecast").json()
    assert [each["pool"] for each in found["pools"]] == ["one", "db"]
    nines = [hour for hour in found["pools"][0]["hours"] if hour["due"]]
    assert {(hour["due"], hour["busy"], hour["deepest"], hour["is_full"]) for hour in nines} == {(12, 1.0, 11, True)}
    # At the others the queue is long still, and hardly anybody is due.
    worst = found["worst_minutes"][0]
    assert {name for each in found["worst_minutes"][1:] for name in each["schedules"]} <= {"hourly"}
    assert (worst["time"], len(worst["schedules"]), worst["more"]) == ("09:00", 8, 5)
    with browser_page(browser, world, has_scripts=False) as page:
        page.goto("/forecast")
        menu = page.get_by_role("navigation", name="Load of")
        assert [each.strip() for each in menu.get_by_role("link").all_inner_texts()] == ["Workers", "one !", "db"]
        assert page.locator("#h-heat").inner_text().startswith("Busy workers of ")
        assert page.locator(".hours .over").count() == 0
        names = page.locator("section[aria-labelledby=h-minutes] li").first.locator("a")
        assert names.all_inner_texts() == worst["schedules"]
        assert "and 5 more" in page.locator("section[aria-labelledby=h-minutes]").inner_text()
        menu.get_by_role("link", name="one").click()
        assert page.locator("#h-heat").inner_text().startswith("Pool one: busy slots of 1, ")
        assert page.locator(".hours text.over").all_text_contents() == ["!"] * 14
        assert page.locator(".hours rect.over + path").count() == 14
        assert page.locator("[aria-current=true]").inner_text().startswith("one")
        names.first.click()
        assert page.url.endswith(f"/schedules/{worst['schedules'][0]}")


def test_a_fault_leaves_the_last_forecast_with_its_age_beside_what_is_wrong(world: World) -> None:
    world.open()
    world.wait_for(lambda: world.get("/api/v1/forecast").json()["hours"], 60, "the forecast")
    before = world.get("/api/v1/forecast").json()
    world.service.schedule("wrong", "61 * * * *", "dags/d.yaml")
    world.wait_for(lambda: world.get("/api/v1/forecast").json()["problem"], 60, "the problem")
    after = world.get("/api/v1/forecast").json()
    assert (after["hours"], after["made_s"], after["pools"]) == (before["hours"], before["made_s"], before["pools"])
    page = world.page("/forecast")
    assert "wrong.yaml:1:" in page
    assert "This is the last that there was, made <time" in page
    assert 'class="hours"' in page
    (world.service.root / "schedules" / "wrong.yaml").unlink()
    world.wait_for(lambda: not world.get("/api/v1/forecast").json()["problem"], 60, "a forecast again")
    assert world.get("/api/v1/forecast").json()["made_s"] > before["made_s"]


def test_a_configuration_with_a_fault_from_the_start_has_no_forecast_and_says_why(world: World) -> None:
    world.service.schedule("wrong", "61 * * * *", "dags/d.yaml")
    world.open()
    world.wait_for(lambda: world.get("/api/v1/forecast").json()["problem"], 60, "the problem")
    assert "wrong.yaml:1:" in world.page("/forecast")


def test_the_audit_is_shown_with_its_age_and_comes_again_by_a_button(browser: Browser, world: World) -> None:
    world.serve()
    world.open()
    world.get("/health")
    world.wait_for(lambda: world.get("/api/v1/health").json()["audit"]["is_clean"], 60, "the audit")
    before = world.get("/api/v1/health").json()["audit"]
    assert {"G1", "G4"} <= {each["guarantee"] for each in before["report"]["findings"]}
    assert world.get("/api/v1/health").json()["audit"]["at_s"] == before["at_s"]
    with browser_page(browser, world) as page:
        page.goto("/health")
        assert "proved" in page.locator("#audit").inner_text()
        world.wait_for(lambda: _audited_again(page, before["at_s"], world), 60, "another audit")


def _audited_again(page: object, at_s: float, world: World) -> bool:
    button = page.locator("button:has-text('Audit now')")  # type: ignore[attr-defined]
    if button.is_enabled():
        button.click()
    return bool(world.get("/api/v1/health").json()["audit"]["at_s"] > at_s)


def test_a_clock_that_is_set_back_does_not_hold_up_the_next_audit(
    client: TestClient, tmp_path: Path, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_event({"event": "x"}, tmp_path / "logs" / "state.jsonl")
    headers = {**bearer(OPERATOR), "X-Tickpool": "1"}

    def audited() -> float | None:
        audit = client.get("/api/v1/health", headers=headers).json()["audit"]
        return None if audit["is_pending"] else audit["at_s"]

    def audit_begins() -> bool:
        return client.post("/api/v1/health/audit", headers=headers, json={}).status_code == 200

    wait_for(audited, 60, "the audit")
    assert not audit_begins()
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 7200)
    wait_for(audit_begins, 20, "another audit")
    wait_for(lambda: (audited() or math.inf) < clock() - 3600, 60, "its end")


def test_the_death_of_a_service_and_of_a_worker_are_told(world: World) -> None:
    first = world.service.start()
    world.wait_for(world.service.is_ready, 30, "a service")
    world.wait_for(lambda: world.service.workers(first), 20, "a worker")
    kill9(world.service.workers(first)[0])
    world.wait_for(lambda: world.service.events("worker_exited"), 20, "the death of the worker")
    kill9(first)
    world.serve()
    world.open()
    deaths = world.get("/api/v1/health").json()["deaths"]
    assert [each["kind"] for each in deaths] == ["service", "worker"]
    assert deaths[0]["pid"] == first.pid
    assert "gone without having stopped" in world.page("/health")


def test_a_log_that_is_refuted_and_a_corrupt_line_are_problems(world: World) -> None:
    record_event(
        {"event": "run_started", "run_id": "r.1", "attempt": 1, "timestamp": "2026-11-01T00:00:00Z"}, world.service.log
    )
    with open(world.service.log, "ab") as file:
        file.write(b'{"event":"run_fin<b>ished"\n')
    world.open()
    world.get("/health")
    world.wait_for(lambda: world.get("/api/v1/health").json()["audit"]["is_clean"] is False, 60, "the audit")
    health = world.get("/api/v1/health").json()
    assert health["corrupt_lines"] == 1
    assert any(text.startswith("the audit refutes") for text in health["problems"])
    assert any("the service is down" in text for text in health["problems"])
    page = world.page("/health")
    assert "refuted" in page
    assert "1 corrupt line in the log" in page


def test_a_log_is_audited_as_soon_as_it_is_there(world: World) -> None:
    world.open()
    audit = world.get("/api/v1/health").json()["audit"]
    assert (audit["is_pending"], audit["problem"]) == (False, "")
    assert "Not audited yet." in world.page("/health")
    world.serve()
    world.wait_for(lambda: world.get("/api/v1/health").json()["audit"]["is_clean"], 60, "the audit")


def test_the_logs_and_the_disk_are_told(world: World) -> None:
    world.serve()
    world.open()
    health = world.get("/api/v1/health").json()
    assert health["logs"][0]["segments"] == 1
    assert health["logs"][0]["bytes"] == world.service.log.stat().st_size
    assert 0 < health["disk"]["free_bytes"] < health["disk"]["total_bytes"]
    assert health["deaths"] == []


def test_a_configuration_fault_is_named_with_its_place(world: World) -> None:
    world.serve()
    world.open()
    world.service.schedule("wrong", "61 * * * *", "dags/d.yaml")
    world.wait_for(world.shows("/health", "wrong.yaml:1:"), 20, "the fault")
    assert "61" in world.page("/health")


def test_a_directory_of_schedules_that_is_not_there_is_a_fault(world: World) -> None:
    world.dashboard.start("--dir", "nowhere")
    health = world.get("/api/v1/health").json()
    assert [(fault["place"], "nowhere" in fault["reason"]) for fault in health["faults"]] == [("nowhere", True)]
    page = world.page("/health")
    assert "It has no fault" not in page
    assert "name a directory of schedule files with --dir" in page
    assert "1 fault in the configuration" in page
