"""The API of schedules: what it tells, what it records, and what it refuses with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from schedule_world import World, world_of
from service import Service, WaitFor

PARAMS = {"region": "eu", "days": 7, "full": False, "tags": ["a"]}


@pytest.fixture
def world(service: Service, wait_for: WaitFor) -> Iterator[World]:
    """Schedules `daily` (with params) and `often`, of a tenant each; nothing runs yet."""
    service.tasks("d", {"id": "load", "run": "echo ${params.region} ${params.days}"})
    dag = service.root / "dags" / "d.yaml"
    dag.write_bytes(msgspec.json.encode({**msgspec.json.decode(dag.read_bytes()), "params": PARAMS}))
    service.schedule("daily", "30 6 * * *", "dags/d.yaml", params={"region": "us"})
    service.schedule("often", "*/5 * * * *", service.dag("e", "true"), tenant="other", tags=["billing", "nightly"])
    with world_of(service, wait_for) as found:
        yield found


def started(world: World) -> World:
    world.serve()
    world.open()
    world.wait_for(lambda: len(world.get("/api/v1/schedules").json()["items"]) >= 2, 20, "the schedules")
    return world


def detail(answer: object) -> str:
    body = answer.json()  # type: ignore[attr-defined]
    assert {"title", "status", "detail"} <= body.keys()
    return str(body["detail"])


def test_schedules_come_by_cursor_each_with_its_plain_words(world: World) -> None:
    started(world)

    def names(query: str) -> list[str]:
        return [each["schedule_id"] for each in world.get(f"/api/v1/schedules?{query}").json()["items"]]

    first = world.get("/api/v1/schedules?limit=1").json()
    assert [each["schedule_id"] for each in first["items"]] == ["daily"]
    assert "06:30" in first["items"][0]["words"]
    second = world.get(f"/api/v1/schedules?limit=1&cursor={first['next_cursor']}").json()
    assert [each["schedule_id"] for each in second["items"]] == ["often"]
    assert second["next_cursor"] is None
    assert (second["count"], second["tenants"], second["faults"]) == (2, ["other", "test"], [])
    world.wait_for(lambda: names("sort=next") == ["often", "daily"], 10, "the fire times")
    soonest = world.get("/api/v1/schedules?sort=next&limit=1").json()
    assert names(f"sort=next&limit=1&cursor={soonest['next_cursor']}") == ["daily"]
    assert [each["schedule_id"] for each in world.get("/api/v1/schedules?tenant=other").json()["items"]] == ["often"]
    assert world.get("/api/v1/schedules?q=AIL").json()["items"][0]["schedule_id"] == "daily"


def test_schedules_tell_their_tags_and_are_found_by_them(world: World) -> None:
    def asked(query: str) -> dict[str, list[str]]:
        return {each["schedule_id"]: each["tags"] for each in world.get(f"/api/v1/schedules{query}").json()["items"]}

    started(world)
    tags = ["billing", "nightly"]
    assert asked("") == {"daily": [], "often": tags}
    assert asked("?tag=nightly") == asked("?tag=billing&tenant=other&q=oft") == {"often": tags}
    assert asked("?tag=billing&tenant=test") == asked("?tag=bill") == {}
    assert world.get("/api/v1/schedules/often").json()["schedule"]["tags"] == tags
    world.service.schedule("daily", "30 6 * * *", "dags/d.yaml", params={"region": "us"}, tags=["billing"])
    world.wait_for(lambda: asked("?tag=billing") == {"daily": ["billing"], "often": tags}, 20, "the tag of the other")


def test_what_cannot_be_asked_for_is_refused_with_what_can(world: World) -> None:
    world.open()
    assert "ok, failing" in detail(world.get("/api/v1/schedules?status=nice"))
    assert "name, next" in detail(world.get("/api/v1/schedules?sort=size"))
    assert "1 to 500" in detail(world.get("/api/v1/schedules?limit=9999"))
    for number in ("0", "-1", "x", "000000001" + "0" * 4300, "0000000019999999"):
        assert world.get(f"/schedules?page={number}").status_code == 400, number
    unknown = world.get("/api/v1/schedules/nosuch")
    assert (unknown.status_code, detail(unknown)) == (404, "no schedule `nosuch`")


def test_a_trigger_is_recorded_with_the_params_read_by_their_defaults_and_the_user(world: World) -> None:
    started(world)
    answer = world.post("/schedules/daily/trigger", texts={"days": "3", "region": "7", "full": "true"})
    assert answer.status_code == 200, answer.text
    (event,) = world.service.events("run_requested")
    assert event["by"] == "ann@dashboard"
    assert event["for_schedule"] == "daily"
    assert event["params"] == {"region": "7", "days": 3, "full": True}
    assert answer.json()["run_id"] == event["run_id"]
    world.wait_for(lambda: world.service.has_ended(event["run_id"]), 30, "the run")


def test_params_that_the_dag_does_not_take_are_refused(world: World) -> None:
    started(world)
    wrong = world.post("/schedules/daily/trigger", texts={"days": "many"})
    assert (wrong.status_code, detail(wrong)) == (400, "days=many: the default is 7; write JSON")
    deep = world.post("/schedules/daily/trigger", texts={"tags": "[" * 20_000})
    assert (deep.status_code, 'the default is ["a"]; write JSON' in detail(deep)) == (400, True)
    unknown = world.post("/schedules/daily/trigger", params={"regoin": "eu"})
    assert unknown.status_code == 400
    assert "did you mean `region`?" in detail(unknown)
    assert world.post("/schedules/dialy/trigger").status_code == 404
    assert world.service.events("run_requested") == []


def test_a_body_that_is_no_object_is_refused(world: World) -> None:
    world.open()
    for body in (b"[1]", b"{", b'"x"', b"\xff"):
        answer = world.dashboard.client().post("/api/v1/schedules/daily/pause", content=body)
        assert answer.status_code == 400


def test_a_pause_holds_until_it_is_resumed_and_both_say_by_whom(world: World) -> None:
    started(world)
    assert world.post("/schedules/daily/pause", until="2h", reason="<b>new</b> disk").status_code == 200
    (paused,) = world.service.events("schedule_paused")
    assert (paused["by"], paused["reason"]) == ("ann@dashboard", "<b>new</b> disk")
    is_paused = lambda: world.get("/api/v1/schedules/daily").json()["schedule"]["state"] == "paused"  # noqa: E731
    world.wait_for(is_paused, 10, "the pause on the page")
    assert [each["schedule_id"] for each in world.get("/api/v1/schedules?status=paused").json()["items"]] == ["daily"]
    assert world.post("/schedules/daily/resume").status_code == 200
    assert world.service.events("schedule_resumed")[0]["by"] == "ann@dashboard"
    again = world.post("/schedules/daily/resume")
    assert (again.status_code, detail(again)) == (409, "schedule `daily` is not paused")


def test_a_pause_until_a_time_that_is_none_or_has_passed_is_refused(world: World) -> None:
    started(world)
    assert "write a duration such as 7d" in detail(world.post("/schedules/daily/pause", until="soon"))
    assert "has passed" in detail(world.post("/schedules/daily/pause", until="2020-01-01T00:00:00Z"))
    assert world.post("/schedules/daily/pause", reason="x" * 1001).status_code == 400
    assert world.service.events("schedule_paused") == []


def test_a_schedule_that_its_tenant_holds_says_so_when_it_is_resumed(world: World) -> None:
    started(world)
    assert world.service.command("pause", "--tenant", "other").returncode == 0
    world.wait_for(
        lambda: world.get("/api/v1/schedules/often").json()["schedule"]["state"] == "paused", 10, "the pause"
    )
    answer = world.post("/schedules/often/resume")
    assert answer.status_code == 409
    assert "tenant other is paused" in detail(answer)


def test_a_backfill_is_counted_first_and_then_asked_for(world: World) -> None:
    started(world)
    first = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    plan = world.post("/schedules/daily/backfill", **{"from": first, "dry_run": True}).json()
    assert plan["count"] in (3, 4)
    assert "Run them?" in plan["confirm"]
    assert world.service.events("backfill_requested") == []
    done = world.post("/schedules/daily/backfill", **{"from": first, "max_parallel": 2, "only_missing": True}).json()
    (event,) = world.service.events("backfill_requested")
    assert (event["by"], event["total"], event["max_parallel"]) == ("ann@dashboard", plan["count"], 2)
    world.wait_for(lambda: world.service.events("backfill_finished"), 60, "the end of the backfill")
    assert done["count"] == plan["count"]
    missing = world.post("/schedules/daily/backfill", **{"from": first, "only_missing": True})
    assert (missing.status_code, detail(missing)) == (409, "a run of each of these fire times has succeeded already")


def test_a_backfill_of_nothing_is_refused_with_the_reason(world: World) -> None:
    world.open()
    none = world.post("/schedules/daily/backfill", **{"from": "2199-01-01"})
    assert (none.status_code, "no fire time then" in detail(none)) == (409, True)
    many = world.post("/schedules/often/backfill", **{"from": "0001-01-01", "dry_run": True})
    assert (many.status_code, "there are more than 100000 fire times" in detail(many)) == (409, True)
    assert world.post("/schedules/daily/backfill").status_code == 400
    assert "write an ISO 8601 time" in detail(world.post("/schedules/daily/backfill", **{"from": "monday"}))
    assert "1 to 1000" in detail(
        world.post("/schedules/daily/backfill", **{"from": "2026-01-01", "max_parallel": "many"})
    )


def test_a_viewer_changes_nothing(world: World) -> None:
    started(world)
    before = len(world.service.events())
    for act in ("trigger", "pause", "resume", "backfill"):
        assert world.post(f"/schedules/daily/{act}", "vic").status_code == 403
    assert world.post("/health/audit", "vic").status_code == 403
    changes = ("run_requested", "schedule_paused", "schedule_resumed", "backfill_requested")
    assert [each for each in world.service.events()[before:] if each["event"] in changes] == []
    assert world.get("/api/v1/schedules/daily", "vic").status_code == 200


def test_a_schedule_whose_file_has_a_fault_is_not_triggered(world: World) -> None:
    started(world)
    world.service.schedule("daily", "61 6 * * *", "dags/d.yaml")
    answer = world.post("/schedules/daily/trigger")
    assert answer.status_code == 409
    assert "daily.yaml:" in detail(answer)
    world.wait_for(
        lambda: world.get("/api/v1/schedules/daily").json()["schedule"]["state"] == "invalid", 20, "the fault on record"
    )
    assert "daily.yaml:" in world.get("/api/v1/schedules/daily").json()["schedule"]["why"]


def test_a_schedule_that_a_fault_beside_it_leaves_out_is_not_called_unknown(world: World) -> None:
    started(world)
    file = world.service.root / "schedules" / "daily.yaml"
    wrong = {"id": "wrong", "cron": "61 6 * * *", "dag": "dags/d.yaml"}
    file.write_bytes(msgspec.json.encode([*msgspec.json.decode(file.read_bytes()), wrong]))
    answer = world.post("/schedules/daily/trigger")
    assert answer.status_code == 409
    assert "daily.yaml:" in detail(answer)
    assert "`wrong`" in detail(answer)
    assert "`wrong`" in world.get("/api/v1/schedules/daily").json()["file"]["problem"]
    assert world.post("/schedules/nosuch/trigger").status_code == 404
