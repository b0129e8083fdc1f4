"""The selftest: kill everything of a service on one's own disk, at random, and prove that nothing was lost."""

from .chaos import Chaos
from .result import Result

__all__ = ["Chaos", "Result"]
