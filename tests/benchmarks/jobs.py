"""What the benchmarks' DAGs call; copied into each project, so it imports nothing of ours."""

import os
import time
from datetime import datetime


def noop() -> None:
    """Do nothing."""


def fib(n: int) -> None:
    """Compute the nth Fibonacci number the slow way."""
    slow_fib(n)


def slow_fib(n: int) -> int:
    """Return the nth Fibonacci number."""
    return n if n < 2 else slow_fib(n - 1) + slow_fib(n - 2)


def note(fire_time: str, path: str) -> None:
    """Append the present moment and the fire time, both in seconds since the epoch, to a file."""
    now = time.time()
    fire = datetime.fromisoformat(fire_time).timestamp()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{now:.6f} {fire:.6f}\n".encode())
    finally:
        os.close(fd)
