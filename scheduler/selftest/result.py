"""What a selftest came to."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Result"]


class Result(msgspec.Struct, frozen=True):
    """The blows, and what they cost: `lost`, `twice`, `faults` and `violations` hold a sentence each.

    `violations` are the audit's; `lost`, `twice` and a part of `faults` come from a second judge.
    """

    kills: dict[str, int]
    failpoints: dict[str, int]
    services: int
    asked: int
    ended: dict[str, int]
    lost: list[str]
    twice: list[str]
    stuck: int
    descriptor_growth: int
    repaired: int
    faults: list[str]
    lines: int
    violations: list[str]
    seed: int
    seconds: float
    directory: str

    @property
    def all_kills(self) -> int:
        """How many processes were killed, failpoints included."""
        return sum(self.kills.values()) + sum(self.failpoints.values())

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, done twice or left open."""
        found = self.lost or self.twice or self.faults or self.violations
        return not found and not self.stuck and self.descriptor_growth <= 0

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON-able mapping."""
        return {"clean": self.is_clean, "all_kills": self.all_kills, **msgspec.to_builtins(self)}
