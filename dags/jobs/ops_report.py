"""The weekly operations report: one HTML page from the figures that the other tasks left behind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .files import prune, read_json, write_text
from .machine import read_history
from .page import Markup, badge, bar, card, cards, escape, page, section, sparkline, table

__all__ = ["NoFigures", "render", "warnings", "write"]

_DAY_S = 86_400


class NoFigures(Exception):
    """A report asked for before `collect` has ever run."""

    def __str__(self) -> str:
        return f"{self.args[0]} has no figures; run the task `collect` first"


def write(
    run_id: str,
    history: str = "var/ops/figures.jsonl",
    tidied: str = "var/ops/run_logs.json",
    directory: str = "var/reports/weekly_ops",
    keep: int = 48,
) -> dict[str, Any]:
    """Write the page of this run and `latest.html`, and keep the newest `keep` pages. Raises NoFigures."""
    past = read_history(history)
    if not past:
        raise NoFigures(history)
    note = read_json(tidied)
    # A note of an earlier run says nothing about this one.
    text = render(run_id, past, note if note.get("run_id") == run_id else {}, now=datetime.now(UTC))
    report = write_text(f"{directory}/{run_id}.html", text)
    write_text(f"{directory}/latest.html", text)
    # `latest.html` matches too, and is always among the newest.
    prune(directory, "*.html", keep + 1)
    print(f"wrote {report}")
    return {"report": str(report), "warnings": len(warnings(past[-1]))}


def render(run_id: str, past: list[dict[str, Any]], tidied: dict[str, Any], *, now: datetime) -> str:
    """Return the page for the last of `past`, with the trend of all of them."""
    current = past[-1]
    found = warnings(current)
    verdict = badge(f"{len(found)} to look at", "warn") if found else badge("all well", "good")
    state = Markup(f"<p>{verdict} {escape('; '.join(found))}</p>")
    return page(
        f"Operations: {current['host']}",
        f"Figures of {current['timestamp']}, up for {_span(current['uptime_s'])}",
        [
            state,
            _figures(current, past),
            section("File systems", _disks(current)),
            section("Largest processes", _processes(current)),
            section("Run logs", _run_logs(tidied)),
        ],
        f"Written by run {run_id} at {now:%Y-%m-%d %H:%M:%S} UTC from {len(past)} samples.",
    )


def warnings(figures: dict[str, Any]) -> list[str]:
    """Return what a person should look at, in words."""
    found = [f"{disk['mount']} is {disk['percent']:.0f} % full" for disk in figures["disks"] if disk["percent"] >= 90]
    if figures["memory_percent"] >= 90:
        found.append(f"memory is {figures['memory_percent']:.0f} % used")
    if figures["load"][2] > 2 * figures["cpus"]:
        found.append(f"15-minute load {figures['load'][2]} on {figures['cpus']} CPUs")
    return found


def _figures(current: dict[str, Any], past: list[dict[str, Any]]) -> Markup:
    cpu = [float(each["cpu_percent"]) for each in past]
    memory = [float(each["memory_percent"]) for each in past]
    disk = current["disks"][0]
    free = f"{_size(current['memory_free_mib'])} of {_size(current['memory_total_mib'])} free"
    left = f"{_size(disk['free_mib'])} free"
    one, five, fifteen = current["load"]
    return cards(
        card("CPU", f"{current['cpu_percent']:.0f} %", f"{current['cpus']} CPUs", sparkline(cpu)),
        card("Memory", f"{current['memory_percent']:.0f} %", free, sparkline(memory)),
        card("Disk of the project", f"{disk['percent']:.0f} %", left, bar(disk["percent"])),
        card("Load", one, f"{five} over 5, {fifteen} over 15 min"),
    )


def _disks(current: dict[str, Any]) -> Markup:
    rows = [
        [
            Markup(f"<code>{escape(disk['mount'])}</code>"),
            bar(disk["percent"]),
            f"{disk['percent']:.0f} %",
            _size(disk["free_mib"]),
            _size(disk["total_mib"]),
        ]
        for disk in current["disks"]
    ]
    return table(["Mounted at", "Used", "#%", "#Free", "#Size"], rows, "No file systems.")


def _processes(current: dict[str, Any]) -> Markup:
    rows = [[each["name"], each["pid"], _size(each["rss_mib"])] for each in current["largest"]]
    return table(["Process", "#Pid", "#Memory"], rows, "No process could be read.")


def _run_logs(tidied: dict[str, Any]) -> Markup:
    if not tidied:
        return Markup("<p>The logs were not tidied in this run.</p>")
    return cards(
        card("Kept", f"{tidied['kept']:,}"),
        card("Compressed", f"{tidied['compressed']:,}"),
        card("Removed", f"{tidied['removed']:,}"),
        card("Freed", _size(tidied["freed_bytes"] / 1024**2)),
    )


def _size(mib: float) -> str:
    if mib >= 1024:
        return f"{mib / 1024:,.1f} GiB"
    return f"{mib:,.1f} MiB" if mib >= 1 or not mib else f"{mib * 1024:,.1f} KiB"


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), _DAY_S)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
