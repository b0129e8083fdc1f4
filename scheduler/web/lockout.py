"""Who guesses tokens has to wait: failures are counted by the address that they come from."""

from __future__ import annotations

import ipaddress
import logging
import time

from .tokens import Tokens, User

__all__ = ["LOCKED_S", "Locked", "Lockout"]

logger = logging.getLogger(__name__)

LOCKED_S = 300
_MOST_FAILURES = 10
# So many places are remembered, those longest ago are forgotten first.
_MOST_PLACES = 10_000


class Locked(Exception):
    """No token is looked at: too many from there were wrong."""


class Lockout:
    """Ten wrong tokens within five minutes lock their address out for the next five.

    Whom a token has let in from there before goes on: others at an address that is shared cannot lock them out.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._failures: dict[str, list[float]] = {}
        self._known: dict[tuple[str, User], None] = {}

    def user_of(self, token: str, address: str) -> User | None:
        """Return whose token it is; None for a wrong one, which counts. Raises Locked."""
        place, user = _place_of(address), self._tokens.user_of(token)
        known = user is not None and (place, user) in self._known
        if not known and self._is_locked(place):
            raise Locked
        if user is None:
            self._note_failure(place)
        elif not known:
            self._known[place, user] = None
            if len(self._known) > _MOST_PLACES:
                del self._known[next(iter(self._known))]
        return user

    def _is_locked(self, place: str) -> bool:
        failures = self._failures.get(place, [])
        return len(failures) >= _MOST_FAILURES and failures[-1] > time.monotonic() - LOCKED_S

    def _note_failure(self, place: str) -> None:
        now = time.monotonic()
        recent = [at for at in self._failures.pop(place, ()) if at > now - LOCKED_S]
        self._failures[place] = [*recent, now]
        if len(self._failures[place]) == _MOST_FAILURES:
            logger.warning("%d wrong tokens from %s: it has to wait for five minutes", _MOST_FAILURES, place)
        if len(self._failures) > _MOST_PLACES:
            del self._failures[next(iter(self._failures))]


def _place_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, all of which one person may have."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        # Under an IPv4 address mapped into IPv6 it is that one.
        return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
