"""Write a file whole or not at all, so a task killed half-way leaves the last good one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["newest_first", "prune", "read_json", "write_json", "write_text"]


def write_text(path: str | Path, text: str) -> Path:
    """Replace `path` by `text` in one step, making its directory if need be."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    return target


def write_json(path: str | Path, value: object) -> Path:
    """Replace `path` by `value` as JSON in one step."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the mapping in `path`, or an empty one when there is no such file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    value = json.loads(text)
    return value if isinstance(value, dict) else {}


def newest_first(directory: str | Path, pattern: str) -> list[Path]:
    """Return the files of `directory` that match `pattern`, the last written first."""
    return sorted(Path(directory).glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def prune(directory: str | Path, pattern: str, keep: int) -> list[str]:
    """Remove all but the `keep` newest files that match; return the names removed. Raises ValueError below one."""
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least 1 must stay")
    surplus = newest_first(directory, pattern)[keep:]
    for path in surplus:
        path.unlink()
    return [path.name for path in surplus]
