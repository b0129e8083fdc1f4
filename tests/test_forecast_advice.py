"""What follows from a forecast: better minutes, the map of hours, and which of two configurations is worse."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_forecast import MIDNIGHT, lasting, plan_of

from scheduler.cli import main
from scheduler.cron import parse_cron
from scheduler.forecast import Plan, simulate
from scheduler.forecast.advice import advise, with_minute
from scheduler.forecast.against import compare
from scheduler.forecast.heat_map import heat_map, shades_for, worst_minutes
from scheduler.forecast.report import Forecast
from scheduler.forecast.text import render, render_comparison
from scheduler.forecast_facts import WorstMinute
from scheduler.schedule_rules import schedule_from
from workers.event_log import EventLog

AT = "2026-10-12T00:00:00Z"


def at_nine(count: int) -> list[dict[str, Any]]:
    return [{"id": f"s{n}", "cron": "0 9 * * MON-FRI"} for n in range(count)]


def forecast_of(plan: Plan, seconds: float = 120, **fields: Any) -> Forecast:
    return Forecast(simulate(plan, lasting(seconds)), len(plan.schedules), [], 60.0, **fields)


# -- advice ------------------------------------------------------------------------------------------------------------


def test_every_minute_that_is_proposed_parses_and_reduces_the_wait_when_it_is_played() -> None:
    plan = plan_of(*at_nine(12), {"id": "often", "cron": "*/10 * * * *"}, days=3, workers=1)
    outcome = simulate(plan, lasting(120))
    advice = advise(plan, outcome, lasting(120))
    assert len(advice) == 8
    new = {each.schedule_id: each.proposed for each in advice}
    for proposed in new.values():
        parse_cron(proposed)
        assert proposed.endswith(" 9 * * MON-FRI")
    moved = [
        schedule_from({"id": each.id, "cron": new.get(each.id, each.cron), "dag": each.dag}) for each in plan.schedules
    ]
    after = simulate(msgspec.structs.replace(plan, schedules=moved), lasting(120))
    for each in advice:
        before_s, after_s = (sum(o.schedules[each.schedule_id].waits_s) for o in (outcome, after))
        assert after_s < before_s
        assert each.proposed_wait_s <= 0.9 * each.wait_s
    assert sum(after.queued_s) < sum(outcome.queued_s)


def test_no_minute_is_proposed_where_nothing_waits_or_nothing_would_help() -> None:
    alone = plan_of({"id": "a", "cron": "0 * * * *"}, workers=1)
    assert advise(alone, simulate(alone, lasting(60)), lasting(60)) == []
    # Every worker is at work in every minute: one minute is as bad as another.
    full = plan_of(*[{"id": f"s{n}", "cron": "0 * * * *", "overlap": "allow"} for n in range(4)], workers=1)
    assert advise(full, simulate(full, lasting(3600)), lasting(3600)) == []


@pytest.mark.parametrize(
    ("cron", "moved"),
    [
        ("0 9 * * *", "17 9 * * *"),
        ("59  */2 1 * MON", "17  */2 1 * MON"),
        ("*/5 * * * *", None),
        ("0,30 * * * *", None),
        ("H * * * *", None),
        ("@hourly", None),
        ("@every 1h", None),
    ],
)
def test_only_an_expression_with_one_minute_can_be_moved(cron: str, moved: str | None) -> None:
    schedule = schedule_from({"id": "a", "cron": cron, "dag": "d.yaml"})
    found = with_minute(schedule, 17)
    assert (found and found.cron) == moved
    if found:
        noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
        fire = found.fires.next(noon)
        assert fire is not None
        assert fire.minute == 17  # and not what the old one had worked out


# -- the map -----------------------------------------------------------------------------------------------------------


def test_the_map_shows_each_hour_by_its_share_of_the_workers() -> None:
    plan = plan_of({"id": "a", "cron": "0 3 * * *"}, {"id": "b", "cron": "0 3 * * *"}, days=2, workers=1)
    lines = heat_map(simulate(plan, lasting(2400)), shades_for("ascii"))
    # Hour 3: 40 minutes of a and 20 of b. Hour 4: 20 minutes of b.
    assert lines[1] == "Mon 12 Oct " + ". " * 3 + "##" + "++" + ". " * 19 + "  1 at 03:00"
    assert lines[2].startswith("Tue 13 Oct ")


def test_an_hour_in_which_the_queue_is_never_empty_stands_out() -> None:
    lines = heat_map(simulate(plan_of(*at_nine(3), workers=1), lasting(5400)), shades_for("ascii"))
    assert lines[1] == "Mon 12 Oct " + ". " * 9 + "!!" * 3 + "##" + "++" + ". " * 10 + "  2 at 09:00"


def test_the_map_is_in_ascii_where_the_terminal_has_no_blocks() -> None:
    outcome = simulate(plan_of({"id": "a", "cron": "* * * * *"}), lasting(30))
    assert "▒▒" in "".join(heat_map(outcome, shades_for("utf-8")))
    for encoding in ("ascii", "latin-1", "no-such-encoding", None):
        assert "".join(heat_map(outcome, shades_for(encoding))).isascii()


def test_hours_outside_the_span_are_blank_and_days_beyond_a_month_are_counted() -> None:
    plan = plan_of({"id": "a", "cron": "0 0 * * *"}, days=40)
    plan = msgspec.structs.replace(plan, begin=MIDNIGHT + timedelta(hours=22))
    lines = heat_map(simulate(plan, lasting(1)), shades_for("ascii"))
    assert lines[1] == "Mon 12 Oct " + " " * 44 + ". . " + "  -"
    assert lines[-2].strip() == "and 9 days more"


def test_the_worst_minutes_are_told_once_for_all_days_and_lie_apart() -> None:
    plan = plan_of(*at_nine(6), {"id": "x", "cron": "5 9 * * *"}, {"id": "y", "cron": "5 9 * * *"}, days=7, workers=1)
    [worst] = worst_minutes(simulate(plan, lasting(120)))
    assert worst == WorstMinute("09:00", 5, 6, 5, ["s5", "s4", "s3", "s2", "s1", "s0"])


def test_a_full_minute_names_who_is_due_at_once_and_waits_most_first() -> None:
    # Who is `first` never waits; what goes on since 08:59 is not due then.
    entries = [*at_nine(11), {"id": "first", "cron": "0 9 * * *", "priority": 9}, {"id": "old", "cron": "59 8 * * *"}]
    forecast = forecast_of(plan_of(*entries, {"id": "off", "cron": "0 9 * * *", "enabled": False}, workers=1), 60)
    [worst] = forecast.facts().worst_minutes
    waits = {name: figures.waits_s[0] for name, figures in forecast.outcome.schedules.items()}
    assert worst.schedules == sorted(waits, key=lambda name: -waits[name])[:8]
    assert (worst.due, worst.more) == (12, 4)
    text = render(forecast, shades_for("ascii"))
    assert f"\n09:00  {', '.join(worst.schedules)} and 4 more" in text


def test_who_never_starts_is_among_those_that_wait_most() -> None:
    late = {"id": "late", "cron": "0 9 * * *", "priority": -9, "start_deadline": "6m"}
    plan = plan_of(late, *at_nine(4), workers=1)
    [worst] = worst_minutes(simulate(plan, lasting(120)))
    assert set(worst.schedules[:2]) == {"late", "s3"}
    assert worst.schedules[-1] == "s0"


# -- for people --------------------------------------------------------------------------------------------------------


def test_a_forecast_fits_in_80_columns_and_begins_with_what_it_comes_to() -> None:
    entries = [{**each, "id": f"{each['id']}-{'long' * 20}", "overlap": "queue"} for each in at_nine(40)]
    plan = plan_of(*entries, {"id": "busy", "cron": "* * * * *"}, days=7, workers=1)
    outcome = simulate(plan, lasting(4000))
    advice = advise(plan, outcome, lasting(4000))
    unknown = [each.id for each in plan.schedules]
    text = render(Forecast(outcome, 41, unknown, 500.0, advice), shades_for("utf-8"))
    assert text.startswith("7 days, 41 schedules, ")
    assert max(map(len, text.splitlines())) <= 80
    assert "still waiting at the end" in text.replace("\n", " ")


def test_a_forecast_in_which_nothing_waits_says_that_it_fits() -> None:
    text = render(forecast_of(plan_of({"id": "a", "cron": "0 * * * *"}, days=7)), shades_for("utf-8"))
    assert text.startswith("7 days, 1 schedule, 168 runs, 2 workers: it fits.\n")
    assert "SCHEDULE" not in text


# -- two configurations ------------------------------------------------------------------------------------------------


def test_a_configuration_is_worse_by_skips_by_waits_and_by_what_is_left_over() -> None:
    few, many = plan_of(*at_nine(3), workers=1), plan_of(*at_nine(9), workers=1)
    compared = compare(forecast_of(few), forecast_of(many))
    assert any(each.startswith("p95 wait of all runs: 240.0 s -> ") for each in compared.worse)
    assert {each.schedule_id for each in compared.differences} == {f"s{n}" for n in range(3, 9)}
    assert compare(forecast_of(many), forecast_of(few)).worse == []
    often = plan_of({"id": "a", "cron": "* * * * *"})
    assert compare(forecast_of(often, 30), forecast_of(often, 90)).worse == ["fire times that never run: 0 -> 720"]


def test_a_wait_within_the_tolerance_is_not_worse() -> None:
    plan = plan_of(*at_nine(3), workers=1)
    assert compare(forecast_of(plan, 100), forecast_of(plan, 109)).worse == []
    worse = compare(forecast_of(plan, 100), forecast_of(plan, 140)).worse
    assert worse == ["p95 wait of all runs: 200.0 s -> 280.0 s", "p95 wait of `s2`: 200.0 s -> 280.0 s"]


def test_a_comparison_shows_what_is_new_gone_and_changed() -> None:
    old = plan_of({"id": "gone", "cron": "0 * * * *"}, {"id": "kept", "cron": "* * * * *"})
    new = plan_of({"id": "fresh", "cron": "0 * * * *"}, {"id": "kept", "cron": "*/2 * * * *"})
    text = render_comparison(compare(forecast_of(old, 1), forecast_of(new, 1)))
    rows = {line.split()[0]: line.split()[1:4] for line in text.splitlines() if line}
    assert (rows["gone"][0], rows["fresh"][0], rows["kept"]) == ("-24", "+24", ["1,440", "->", "720"])
    assert text.endswith("\nnot worse")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/d.yaml").write_text("id: d\ntasks:\n  - {id: t, run: [true]}\n")
    for name, count in (("schedules", 6), ("before", 2)):
        (tmp_path / name).mkdir()
        entries = [{**each, "dag": "dags/d.yaml"} for each in at_nine(count)]
        (tmp_path / name / "a.yaml").write_text(json.dumps(entries))
        (tmp_path / name / "limits.yaml").write_text("pools: {db: 2}\n")
    log = EventLog(tmp_path / "logs/orchestrator_state.jsonl", fsync="off")
    for length_s in (300.0, 300.0, 300.0):
        ended = {"run_id": "s0.1", "schedule_id": "s0", "attempt": 1, "status": "success", "duration_s": length_s}
        log.append({"event": "run_finished", **ended})
    log.close()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["forecast", "--at", AT, "--workers", "1", *words])
    return code, capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_the_command_takes_durations_from_the_log_and_tells_what_it_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--json", "--days", "1")
    found = json.loads(text)
    assert code == 0
    assert found["without_history"] == ["s1", "s2", "s3", "s4", "s5"]
    assert (found["runs"], found["wait_s"]["max"], found["by_schedule"]["s0"]["busy_s"]) == (6, 540.0, 300.0)
    assert json.loads(run(capsys, "--json", "--days", "1", "--assume", "10s")[1])["wait_s"]["max"] == 340.0
    code, text = run(capsys, "--days", "1")
    assert (code, text.splitlines()[0]) == (
        0,
        "1 day, 6 schedules, 6 runs, 1 worker: 5 runs wait more than a minute.",
    )
    assert re.search(r"durations   1 of 6 schedules from history; 1m assumed for\n +s1, s2, s3 and 2 more\n", text)


@pytest.mark.usefixtures("project")
def test_the_command_fails_when_the_new_schedules_are_worse_than_the_old(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--against", "before")
    assert code == 1
    assert "\nWORSE\n  p95 wait of all runs: 300.0 s -> 540.0 s" in text
    assert run(capsys, "--against", "schedules", "--dir", "before")[0] == 0
    code, text = run(capsys, "--against", "before", "--json")
    assert (code, json.loads(text)["against"]["is_worse"]) == (1, True)


def test_the_command_refuses_a_configuration_that_a_service_would_not_take(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "schedules/a.yaml").write_text("- {id: a, cron: '61 * * * *', dag: dags/d.yaml}\n")
    assert main(["forecast"]) == 2
    assert "schedules/a.yaml:1:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--days", "0"], ["--workers", "none"], ["--assume", "soon"], ["--at", "noon"]])
@pytest.mark.usefixtures("project")
def test_a_bad_option_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["forecast", *words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("project")
def test_the_reference_has_every_key_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "--json", "--days", "1")[1])
    compared = json.loads(run(capsys, "--json", "--days", "1", "--against", "before")[1])["against"]
    page = (Path(__file__).parents[1] / "docs/reference.md").read_text("utf-8")
    section = page.split("### `forecast --json`")[1].split("\n## ")[0]
    first = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in section.splitlines() if "|" in line)))
    assert first == found.keys() | {"against"}
    inner = [found[name][0] for name in ("hours", "pools", "worst_minutes", "advice")]
    inner += [found["by_schedule"]["s0"], compared]
    inner += [compared["differences"][0], compared["differences"][0]["new"]]
    assert {key for each in inner for key in each} <= set(re.findall(r"`(\w+)`", section))
