"""Fair shares: which tenant's turn it is, by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996).

A virtual clock stands at the tag of the last run that was handed out. A tenant's next run is tagged with that clock, or
with the end of what the tenant has had already if that is later; the lowest tag is next. Had is what a run takes of a
worker's time, divided by the tenant's weight. So busy tenants get time in proportion to their weights, and one that
asked for nothing begins at the present clock: what it left to others is not owed to it.
"""

from __future__ import annotations

__all__ = ["FairShare"]

# A run that takes no time has its price too: a tenant of nothing but such runs would have every turn.
_LEAST_S = 0.001
# How much the length of a tenant's last run counts in what its next is expected to take. What runs are charged in all
# comes to what they took in all, whatever it is; a small one makes for a steady order where lengths differ.
_NEWS = 0.125


class FairShare:
    """The virtual clock, and what each tenant has had by it. Lengths are in seconds; a run of unknown length has 1."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._had_until: dict[str, float] = {}
        self._usual_s: dict[str, float] = {}
        self._usual_of_all_s = 1.0

    def tag(self, tenant: str) -> float:
        """Return the tag of the tenant's next run."""
        return max(self._clock, self._had_until.get(tenant, 0.0))

    def charge(self, tenant: str, weight: int) -> float:
        """Take in that a run of the tenant, whose tag is the lowest, is handed out; return what it is charged."""
        price = self._usual_s.get(tenant, self._usual_of_all_s) / weight
        self._clock = self.tag(tenant)
        self._had_until[tenant] = self._clock + price
        return price

    def refund(self, tenant: str, price: float) -> None:
        """Take in that a run that was handed out did not start."""
        self._had_until[tenant] -= price

    def learn(self, tenant: str, length_s: float) -> None:
        """Take in how long a run of the tenant took."""
        length_s = max(length_s, _LEAST_S)
        of_all_s = self._usual_of_all_s if self._usual_s else length_s
        usual_s = self._usual_s.get(tenant, length_s)
        self._usual_s[tenant] = usual_s + _NEWS * (length_s - usual_s)
        self._usual_of_all_s = of_all_s + _NEWS * (length_s - of_all_s)
