"""The result of a selftest as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .result import Result

__all__ = ["render"]

_SHOWN = 20


def render(result: Result) -> str:
    """Return the table, and each thing that is wrong below it."""
    rows = [
        ("kills", f"{result.all_kills} in {result.seconds:g} s, the service started {result.services} times"),
        *_counts("  of", result.kills),
        *_counts("  at", result.failpoints),
        ("runs", f"{result.asked} asked for"),
        *_counts("  ended", result.ended),
        ("lost", str(len(result.lost))),
        ("twice", str(len(result.twice))),
        ("stuck", str(result.stuck)),
        ("descriptor growth", str(result.descriptor_growth)),
        ("torn lines repaired", str(result.repaired)),
        ("other faults", str(len(result.faults))),
        ("audit", f"{len(result.violations)} violation(s) in {result.lines} lines"),
        ("seed", str(result.seed)),
    ]
    lines = [f"{name:<20} {text}" for name, text in rows]
    for title in ("lost", "twice", "faults", "violations"):
        found: list[str] = getattr(result, title)
        lines += [f"{title}: {text}" for text in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"{title}: and {len(found) - _SHOWN} more")
    return "\n".join(lines)


def _counts(title: str, counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        yield f"{title} {name}", str(count)
