"""The figures for Prometheus: what they say of a service that runs, who may read them, and that each is described."""

from __future__ import annotations

from pathlib import Path

import httpx
from dashboard import VIEWER, Dashboard
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed
from service import Service, WaitFor

DOCS = Path(__file__).resolve().parents[2] / "docs" / "dashboard.md"


def figures(api: httpx.Client) -> dict[str, float]:
    """Return the samples, such as `tickpool_runs{running}`."""
    answer = api.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    return {
        sample.name + ("{" + ",".join(sample.labels.values()) + "}" if sample.labels else ""): sample.value
        for family in parsed(answer.text)
        for sample in family.samples
    }


def test_the_figures_are_those_of_the_service_and_its_log(
    service: Service, dashboard: Dashboard, wait_for: WaitFor
) -> None:
    service.schedule("held", "0 0 1 1 *", service.dag("good", "true"))
    service.schedule("off", "0 0 1 1 *", "dags/good.yaml", enabled=False)
    service.schedule("each", "* * * * *", "dags/good.yaml")
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    assert service.command("pause", "held").returncode == 0
    ends = [service.ask("dags/good.yaml"), service.ask(service.dag("bad", "exit 1"))]
    service.ask(service.dag("long", "sleep 100"))
    service.ask(service.tasks("asks", {"id": "ok", "approval": "Go on?"}))
    api = dashboard.start().client(VIEWER)
    wait_for(lambda: service.has_ended(*ends), timeout=30, what="the ends")

    def has_come() -> bool:
        now = figures(api)
        return (
            now["tickpool_runs{running}"]
            == now["tickpool_runs{parked}"]
            == now["tickpool_attempts_ended_total{failed}"]
            == 1
        )

    wait_for(has_come, timeout=30, what="all of it in the figures")
    now = figures(api)
    assert now["tickpool_up"] == now["tickpool_caught_up"] == 1
    assert now["tickpool_workers_wanted"] == 2
    assert now["tickpool_workers{busy}"] + now["tickpool_workers{idle}"] == 2
    assert {state: now[f"tickpool_schedules{{{state}}}"] for state in ("active", "paused", "disabled", "invalid")} == {
        "active": 1,
        "paused": 1,
        "disabled": 1,
        "invalid": 0,
    }
    assert now["tickpool_log_bytes{state}"] == service.log.stat().st_size
    assert now["tickpool_log_seq"] == service.events()[-1]["seq"]
    starts = [event for event in service.events("run_started") if event["schedule_id"]]
    finished = service.events("run_finished")
    assert now["tickpool_start_lateness_seconds_count"] == len(starts) >= 1
    assert now["tickpool_attempt_duration_seconds_count"] == len(finished)
    assert now["tickpool_attempt_duration_seconds_bucket{+Inf}"] == len(finished)
    whole_s = sum(event["duration_s"] for event in finished)
    assert abs(now["tickpool_attempt_duration_seconds_sum"] - whole_s) < 0.001
    assert now["tickpool_judged_until_timestamp_seconds"] > 1_700_000_000


def test_a_service_that_is_gone_and_a_damaged_line_are_in_the_figures(
    service: Service, dashboard: Dashboard, wait_for: WaitFor
) -> None:
    service.ask("dags/d.yaml")
    with open(service.log, "ab") as log:
        log.write(b"no event\n")
    now = figures(dashboard.start().client())
    assert (now["tickpool_up"], now["tickpool_corrupt_lines"], now["tickpool_runs{queued}"]) == (0, 1, 1)


def test_the_figures_want_a_token_and_are_told_as_openmetrics_to_who_asks_so(dashboard: Dashboard) -> None:
    dashboard.start()
    assert httpx.get(f"{dashboard.url}/metrics").status_code == 401
    answer = dashboard.client(VIEWER).get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = list(parsed_openmetrics(answer.text))
    assert answer.text.endswith("# EOF\n")
    text = DOCS.read_text("utf-8")
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}" in text, f"docs/dashboard.md says nothing of {name}"
        assert family.documentation
