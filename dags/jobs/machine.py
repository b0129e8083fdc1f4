"""Machine figures by psutil: take them, keep a day of them, and stop a run before the disk is full."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from .files import write_text

__all__ = ["DiskNearlyFull", "check_disk", "collect", "disk_figures", "read_history"]

_SAMPLE_S = 0.3
_MIB = 1024**2


class DiskNearlyFull(Exception):
    """A file system with less room than the DAG asked for."""

    def __str__(self) -> str:
        mount, free_mib, min_free_mib = self.args
        return f"{mount}: {free_mib:,.0f} MiB free, the DAG asks for at least {min_free_mib:,} MiB"


def collect(history: str = "var/ops/figures.jsonl", keep: int = 288) -> dict[str, Any]:
    """Take the figures of this moment and append them to `history`, of which the last `keep` lines stay.

    The outputs are the figures that other tasks may want to branch on; the file has them all.
    """
    figures = _figures()
    lines = [json.dumps(past) for past in read_history(history)[-(keep - 1) :]] if keep > 1 else []
    write_text(history, "\n".join([*lines, json.dumps(figures)]) + "\n")
    print(f"{figures['host']}: CPU {figures['cpu_percent']} %, memory {figures['memory_percent']} %")
    return {"history": history, "cpu_percent": figures["cpu_percent"], "memory_percent": figures["memory_percent"]}


def check_disk(min_free_mib: int | str = 256, path: str = ".") -> dict[str, Any]:
    """Return how full the file system of `path` is. Raises DiskNearlyFull when too little is free."""
    figure = _usage(path)
    print(f"{figure['mount']}: {figure['percent']} % used, {figure['free_mib']:,.0f} MiB free")
    if figure["free_mib"] < int(min_free_mib):
        raise DiskNearlyFull(figure["mount"], figure["free_mib"], int(min_free_mib))
    return {"percent": figure["percent"], "free_mib": figure["free_mib"]}


def read_history(history: str) -> list[dict[str, Any]]:
    """Return the figures kept in `history`, the oldest first; a line that is no JSON is left out."""
    try:
        lines = Path(history).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    past = []
    for line in lines:
        try:
            past.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return past


def disk_figures(project: str = ".") -> list[dict[str, Any]]:
    """Return the use of every local file system, each device once, the project's own first."""
    figures = [_usage(project)]
    seen = {os.stat(project).st_dev}
    for part in psutil.disk_partitions(all=False):
        try:
            device = os.stat(part.mountpoint).st_dev
            # A container mounts single files (/etc/hosts): they are no file system of their own.
            if device not in seen and Path(part.mountpoint).is_dir():
                figures.append(_usage(part.mountpoint))
                seen.add(device)
        except OSError:
            continue
    return figures


def _figures() -> dict[str, Any]:
    cpu_percent = psutil.cpu_percent(interval=_SAMPLE_S)
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "host": socket.gethostname(),
        "cpus": psutil.cpu_count() or 1,
        "cpu_percent": cpu_percent,
        "load": [round(load, 2) for load in os.getloadavg()],
        "memory_percent": memory.percent,
        "memory_total_mib": round(memory.total / _MIB),
        "memory_free_mib": round(memory.available / _MIB),
        "swap_percent": swap.percent,
        "uptime_s": round(time.clock_gettime(time.CLOCK_BOOTTIME)),
        "disks": disk_figures(),
        "largest": _largest_processes(),
    }


def _usage(path: str) -> dict[str, Any]:
    usage = psutil.disk_usage(path)
    return {
        "mount": _mount_point(path),
        "percent": usage.percent,
        "total_mib": round(usage.total / _MIB, 1),
        "free_mib": round(usage.free / _MIB, 1),
    }


def _mount_point(path: str) -> str:
    place = Path(path).resolve()
    return str(next((each for each in (place, *place.parents) if os.path.ismount(each)), place))


def _largest_processes(count: int = 5) -> list[dict[str, Any]]:
    """Names only: a command line may hold a password."""
    found = []
    for process in psutil.process_iter(["pid", "name", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is not None:
            found.append(
                {"pid": process.info["pid"], "name": process.info["name"], "rss_mib": round(memory.rss / _MIB, 1)}
            )
    found.sort(key=lambda each: each["rss_mib"], reverse=True)
    return found[:count]
