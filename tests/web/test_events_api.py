"""The events of the log over HTTP: in pages, and as they come, each of them once whatever is cut off in between."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from dashboard import VIEWER, Dashboard
from service import Service, WaitFor

from workers.event_log import EventLog
from workers.segments import list_segments

EVENTS = "/api/v1/events"


@pytest.fixture
def api(dashboard: Dashboard) -> httpx.Client:
    """A dashboard on a log that only the test writes, asked as a viewer."""
    return dashboard.start().client(VIEWER)


def ask(service: Service, *names: str) -> list[str]:
    return [service.ask("dags/d.yaml", name) for name in names]


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["run_id"] for event in events]


def rotate(service: Service) -> None:
    log = EventLog(service.log)
    assert log.rotate(1, lambda _: [{"event": "checkpoint", "run": {"run_id": "of.a.checkpoint"}}])
    log.close()


class Stream:
    """What a client gets of a stream: the events, and the id that it would come back with."""

    def __init__(self, api: httpx.Client, count: int, headers: dict[str, str] | None = None, **query: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.last_id = ""
        with api.stream("GET", f"{EVENTS}/stream", headers=headers, params=query) as answer:
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "data":
                    self.events.append(json.loads(value))
                if not line and len(self.events) >= count:
                    break


def test_events_come_in_pages_oldest_first_and_what_comes_later_behind_them(
    service: Service, api: httpx.Client
) -> None:
    ask(service, *(f"r.{number}" for number in range(5)))
    first = api.get(EVENTS, params={"limit": 2}).json()
    assert ids(first["items"]) == ["r.0", "r.1"]
    assert first["items"][0]["event"] == "run_requested"
    second = api.get(EVENTS, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert ids(second["items"]) == ["r.2", "r.3", "r.4"]
    assert second["next_cursor"] is None
    ask(service, "r.5")
    later = api.get(EVENTS, params={"cursor": second["last_id"]}).json()
    assert (ids(later["items"]), later["next_cursor"]) == (["r.5"], None)
    assert api.get(EVENTS, params={"cursor": later["last_id"]}).json()["items"] == []


def test_events_are_those_that_are_asked_for(service: Service, api: httpx.Client) -> None:
    ask(service, "r.1", "r.2")
    service.ask("dags/d.yaml", "s.1", for_schedule="s")
    assert service.command("pause", "--all").returncode == 0
    for query, count in (({"run": "r.2"}, 1), ({"schedule": "s"}, 1), ({"event": "schedule_paused"}, 1), ({}, 4)):
        assert len(api.get(EVENTS, params=query).json()["items"]) == count, query
    assert Stream(api, 1, last_event_id="1-0", event="schedule_paused").events[0]["event"] == "schedule_paused"


def test_who_comes_back_with_the_last_id_gets_each_event_once(service: Service, api: httpx.Client) -> None:
    ask(service, "r.1", "r.2", "r.3")
    first = Stream(api, 2, last_event_id="1-0")
    got = ids(first.events)
    assert got[:2] == ["r.1", "r.2"]
    ask(service, "r.4", "r.5")
    second = Stream(api, 5 - len(got), {"Last-Event-ID": first.last_id})
    assert got + ids(second.events) == ["r.1", "r.2", "r.3", "r.4", "r.5"]
    page = api.get(EVENTS, params={"limit": 3}).json()
    assert ids(Stream(api, 2, last_event_id=page["next_cursor"]).events) == ["r.4", "r.5"]


def test_who_was_cut_off_before_the_first_event_misses_none(service: Service, api: httpx.Client) -> None:
    ask(service, "r.1")
    nothing = Stream(api, 0)
    assert nothing.events == []
    ask(service, "r.2")
    assert ids(Stream(api, 1, {"Last-Event-ID": nothing.last_id}).events) == ["r.2"]


def test_an_event_that_is_appended_reaches_who_listens(service: Service, api: httpx.Client, wait_for: WaitFor) -> None:
    with api.stream("GET", f"{EVENTS}/stream") as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["retry: 1000", "id: 1-0", ""]
        ask(service, "r.1")
        data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["run_id"] == "r.1"


def test_a_place_outlives_the_rotation_of_the_log(service: Service, api: httpx.Client) -> None:
    ask(service, "r.1", "r.2")
    first = Stream(api, 1, last_event_id="1-0", run="r.1")
    rotate(service)
    ask(service, "r.3")
    assert ids(Stream(api, 2, {"Last-Event-ID": first.last_id}).events) == ["r.2", "r.3"]
    page = api.get(EVENTS).json()
    # What opens a segment says the same once more.
    assert ids(page["items"]) == ["r.1", "r.2", "r.3"]
    assert page["last_id"].startswith("3-")


def test_a_place_whose_segment_is_gone_is_gone_and_the_answer_says_where_to_begin(
    service: Service, api: httpx.Client
) -> None:
    ask(service, "r.1")
    place = api.get(EVENTS).json()["last_id"]
    rotate(service)
    ask(service, "r.2")
    list_segments(service.log)[0].path.unlink()
    for answer in (
        api.get(EVENTS, params={"cursor": place}),
        api.get(f"{EVENTS}/stream", headers={"Last-Event-ID": place}),
        api.get(f"{EVENTS}/stream", params={"last_event_id": place}),
        api.get(EVENTS, params={"cursor": "2-1"}),
        api.get(EVENTS, params={"cursor": "x"}),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (410, "application/problem+json")
        assert answer.json()["detail"].endswith("the oldest that there is is 2-0")
    assert ids(api.get(EVENTS, params={"cursor": "2-0"}).json()["items"]) == ["r.2"]


def test_a_damaged_line_is_no_event_and_holds_nothing_up(service: Service, api: httpx.Client) -> None:
    ask(service, "r.1")
    with open(service.log, "ab") as log:
        log.write(b'{"event": "half\n{"event":"by_hand",\r"run_id":"r.2"}\n')
    ask(service, "r.3")
    assert ids(api.get(EVENTS).json()["items"]) == ["r.1", "r.2", "r.3"]
    assert ids(Stream(api, 3, last_event_id="1-0").events) == ["r.1", "r.2", "r.3"]
