"""A report of one day's runs, read from the state log through its public API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from .files import read_json, write_json, write_text
from .page import Markup, badge, card, cards, escape, page, section, table

__all__ = ["gather", "runs_of_day", "summary_text", "wanted_day", "write_html", "write_text_report"]

_FIRST_LOOK = 10_000


def gather(day: str = "yesterday", fire_date: str = "", path: str = "") -> dict[str, Any]:
    """Read the runs that finished on `day` (UTC) and keep them as JSON for the tasks that write the report.

    `day` is `yesterday`, `today` or `YYYY-MM-DD`, counted from `fire_date` (today without one), so a late or repeated
    run still reports on its own day. Outputs: `day`, `data` (the JSON file), `runs` and `failed`.
    """
    # Imported here: rendering a report needs no scheduler.
    from scheduler.state_store import last_runs

    origin = date.fromisoformat(fire_date) if fire_date else datetime.now(UTC).date()
    wanted = wanted_day(day, origin)
    runs = runs_of_day(_events_since(wanted, lambda limit: last_runs(limit=limit, path=path or None)), wanted)
    data = write_json(f"var/reports/morning/{wanted}.json", {"day": str(wanted), "runs": runs})
    failed = sum(run["status"] != "success" for run in runs)
    print(f"{wanted}: {len(runs)} runs, {failed} of them not successful")
    return {"day": str(wanted), "data": str(data), "runs": len(runs), "failed": failed}


def wanted_day(day: str, origin: date) -> date:
    """Return the day meant by `yesterday`, `today` or an ISO date. Raises ValueError."""
    if day in ("yesterday", "today"):
        return origin - timedelta(days=day == "yesterday")
    return date.fromisoformat(day)


def runs_of_day(events: Iterable[Mapping[str, Any]], day: date) -> list[dict[str, Any]]:
    """Return the runs that finished on one UTC day, the oldest first, with just what the report shows.

    A run that was tried again has several ends; the last of the day counts.
    """
    ends: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("event") == "run_finished" and str(event.get("timestamp", "")).startswith(day.isoformat()):
            ends[str(event.get("run_id"))] = event
    chosen = sorted(ends.values(), key=lambda event: str(event["timestamp"]))
    wanted = ("timestamp", "schedule_id", "run_id", "status", "duration_s", "reason")
    return [{name: event[name] for name in wanted if event.get(name) is not None} for event in chosen]


def write_html(data: str, run_id: str, prepared_for: str = "everyone") -> dict[str, Any]:
    """Write the page beside `data`, and `latest.html`."""
    content = read_json(data)
    text = _render(content["day"], content["runs"], run_id, prepared_for)
    report = write_text(Path(data).with_suffix(".html"), text)
    write_text(Path(data).with_name("latest.html"), text)
    print(f"wrote {report}")
    return {"report": str(report)}


def write_text_report(data: str) -> dict[str, Any]:
    """Write the same as plain text beside `data`, fit for a mail, and print it into the task's log."""
    content = read_json(data)
    text = summary_text(content["day"], content["runs"])
    report = write_text(Path(data).with_suffix(".txt"), text)
    print(text, end="")
    return {"report": str(report)}


def summary_text(day: str, runs: list[dict[str, Any]]) -> str:
    """Return a line a schedule and a line a failure."""
    statuses = Counter(run["status"] for run in runs)
    lines = [f"Runs of {day} (UTC): {len(runs)}", *(f"  {name:<10} {n:>5}" for name, n in sorted(statuses.items()))]
    for schedule, counts in _by_schedule(runs).items():
        lines.append(f"{schedule}: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    failures = [run for run in runs if run["status"] != "success"]
    lines += [
        f"! {run['timestamp']} {run.get('run_id', '')} {run['status']} {run.get('reason', '')}".rstrip()
        for run in failures
    ]
    return "\n".join(lines) + "\n"


def _render(day: str, runs: list[dict[str, Any]], run_id: str, prepared_for: str) -> str:
    failures = [run for run in runs if run["status"] != "success"]
    took = sorted(float(run["duration_s"]) for run in runs if "duration_s" in run)
    rate = f"{100 * (len(runs) - len(failures)) / len(runs):.1f} %" if runs else "-"
    median = f"{took[len(took) // 2]:.2f} s" if took else "-"
    schedules = _by_schedule(runs)
    return page(
        f"Runs of {day}",
        f"Prepared for {prepared_for} from the state log; all times are UTC.",
        [
            cards(
                card("Runs", len(runs), f"of {len(schedules)} schedules"),
                card("Successful", rate),
                card("Not successful", len(failures)),
                card("Median duration", median),
            ),
            section(
                "Not successful", table(["At", "Run", "Status", "Reason"], [_row(run) for run in failures], "None.")
            ),
            section("By schedule", _schedule_table(schedules)),
        ],
        f"Written by run {run_id}.",
    )


def _row(run: Mapping[str, Any]) -> list[object]:
    name = Markup(f"<code>{escape(run.get('run_id', ''))}</code>")
    verdict = badge(run["status"], "warn" if run["status"] == "cancelled" else "bad")
    return [str(run["timestamp"])[11:19], name, verdict, run.get("reason", "")]


def _schedule_table(schedules: Mapping[str, Counter[str]]) -> Markup:
    rows: list[list[object]] = []
    for schedule, counts in schedules.items():
        total, good = sum(counts.values()), counts["success"]
        verdict = badge("well", "good") if good == total else badge(f"{total - good} not successful", "bad")
        rows.append([schedule, total, good, verdict])
    return table(["Schedule", "#Runs", "#Successful", "Verdict"], rows, "No run finished on that day.")


def _by_schedule(runs: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    grouped: dict[str, Counter[str]] = {}
    for run in runs:
        grouped.setdefault(str(run.get("schedule_id") or "by hand"), Counter())[run["status"]] += 1
    return dict(sorted(grouped.items()))


def _events_since(day: date, last_events: Callable[[int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Read backward until the day's first event is in: a log of years costs what its last days cost."""
    limit = _FIRST_LOOK
    while True:
        events = last_events(limit)
        if len(events) < limit or str(events[0].get("timestamp", "")) < day.isoformat():
            return events
        limit *= 4
