"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["describe", "filesystem", "load_average"]


def describe(directory: Path) -> dict[str, Any]:
    """Return the machine, the Python, the packages that speed depends on, and where the temporary files lie."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: metadata.version(name) for name in ("cronsim", "msgspec", "filelock", "psutil", "PyYAML")},
        "files": f"{directory.parent} ({filesystem(directory)})",
    }


def load_average() -> str:
    """Return the load of the last 1, 5 and 15 minutes."""
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds `path`."""
    place = os.path.realpath(path)
    best, kind = "", "unknown"
    for row in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines():
        point, fstype = row.split()[1:3]
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8", "replace"), re.MULTILINE)
    return found[1].strip() if found else platform.machine()
