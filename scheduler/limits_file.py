"""The file of limits, `limits.yaml`, and what a schedule says of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from workers.errors import Fault, did_you_mean
from workers.ids import ID_RULE, is_id
from workers.yamlfile import Document, load_trusted

from .limits import PRIORITIES, Limits

__all__ = ["LIMITS_FILE", "read_limits", "unknown_pool", "wrong_limits"]

LIMITS_FILE = "limits.yaml"
# They are one line of the log, 64 KiB with all that else is in it.
_BYTES = 32 * 1024


def read_limits(file: Path) -> tuple[Limits, list[Fault]]:
    """Read a `limits.yaml`; one that has faults, or is empty, limits nothing."""
    document, unread = load_trusted(file)
    if document is None:
        return Limits(), unread
    limits, faults = document.model((), Limits, "limits")
    faults += _wrong_names(document)
    if limits is not None and (size := len(msgspec.json.encode(limits.as_event()))) > _BYTES:
        faults.append(document.fault((), f"limits: they take {size} bytes as JSON; at most {_BYTES} are allowed"))
    return (Limits(), faults) if faults or limits is None else (limits, [])


def _wrong_names(document: Document) -> Iterator[Fault]:
    for kind in ("pools", "tenants"):
        named = document.data.get(kind) if isinstance(document.data, dict) else None
        for name in named if isinstance(named, dict) else ():
            if not is_id(name):
                yield document.fault((kind, name), f"limits: {name[:128]!r} is no id; {ID_RULE}", key=True)


def wrong_limits(priority: int, pool: str | None) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for the keys of a schedule that say how its runs are limited."""
    if priority not in PRIORITIES:
        yield "priority", f"`priority` is {priority}; allowed: {PRIORITIES[0]} to {PRIORITIES[-1]}, higher first"
    if pool is not None and not is_id(pool):
        yield "pool", f"{pool[:128]!r} is no id; {ID_RULE}"


def unknown_pool(pool: str, pools: Collection[str]) -> str:
    """Say that `limits.yaml` has no such pool, and which it has."""
    near = did_you_mean(pool, pools)
    way_out = near if near.endswith("?") else f"{near}; or add it there, with its slots: `pools: {{{pool}: 2}}`"
    return f"no pool `{pool}` in {LIMITS_FILE}{way_out}"
