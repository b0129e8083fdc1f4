"""The command that attacks: selftest."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from .output import print_json
from .parser import Command, whole_number
from .progress import Progress

if TYPE_CHECKING:
    from scheduler.selftest import Result

__all__ = ["COMMANDS"]

_PREFIX = "tickpool-selftest-"


def _selftest(options: argparse.Namespace) -> int:
    from scheduler.selftest.text import render
    from workers.lock import refuse_network_filesystem

    home = Path(options.dir or tempfile.gettempdir())
    refuse_network_filesystem(home)
    with os.scandir(home):
        pass  # what is wrong with it is told by its own name, and not by that of the fresh one in it
    # A fresh directory in any case: nothing that is there already is touched.
    root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home)).resolve()
    try:
        with _interrupted_by_signals():
            result = _attack(root, options)
    except KeyboardInterrupt:
        _clear(root, options)
        raise
    if result.is_clean:
        _clear(root, options)
    if options.json:
        print_json({**result.as_json(), "kept": root.exists()})
    else:
        print(render(result))
        if root.exists():
            print(f"{'kept':<20} {root}")
        print("CLEAN" if result.is_clean else "NOT CLEAN")
    return 0 if result.is_clean else 1


def _clear(root: Path, options: argparse.Namespace) -> None:
    """Remove what nobody has asked to keep."""
    if options.dir is None:
        shutil.rmtree(root, ignore_errors=True)


def _attack(root: Path, options: argparse.Namespace) -> Result:
    import random

    from scheduler.selftest import Chaos

    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    with Progress("selftest") as progress:

        def show(done: int) -> None:
            progress.show(done, options.kills, f"{done} of {options.kills} kills")

        return Chaos(root, os.environ, kills=options.kills, seed=seed, show=show).run()


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl+C does: end everything that was started."""

    def on_signal(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _add_selftest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, metavar="DIR", help="on the disk to test (default: a temporary directory)")
    parser.add_argument(
        "--kills", type=whole_number(1, 1_000_000), default=200, metavar="N", help="processes to kill (default: 200)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0, 2**64), metavar="S", help="of the dice (default: another each time)"
    )


COMMANDS = {
    "selftest": Command("kill a service of its own at random and prove that nothing is lost", _selftest, _add_selftest)
}
