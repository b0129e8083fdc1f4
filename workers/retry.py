"""How long to wait before the next attempt."""

from __future__ import annotations

import random

from .dag_model import Retries

__all__ = ["delay_s"]


def delay_s(retries: Retries, failures: int, seed: str) -> float:
    """Return the seconds to wait after the nth failure (from 1): `delay * backoff**(n - 1)`, at most `max_delay`.

    With `jitter` the wait is between 50 % and 100 % of that; the same `seed` always gives the same wait.
    """
    longest_s = retries.max_delay.total_seconds()
    try:
        wait_s = min(retries.delay.total_seconds() * retries.backoff ** (failures - 1), longest_s)
    except OverflowError:
        wait_s = longest_s
    return wait_s * random.Random(seed).uniform(0.5, 1.0) if retries.jitter else wait_s
