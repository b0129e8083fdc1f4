"""What the commands have in common that ask for something: who asks, the log they write to, and waiting for an end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workers.errors import TickpoolError, did_you_mean

if TYPE_CHECKING:
    from scheduler.state_store import StateStore
    from workers.settings import Settings

__all__ = ["NotOpen", "opened", "operator", "wait"]

_POLL_S = 0.05


class NotOpen(TickpoolError):
    """A run that is not open: (its id, the open runs)."""

    def __str__(self) -> str:
        name, names = self.args
        return f"no open run `{name[:128]}`{did_you_mean(name, names) if names else '; none is open'}"


def operator() -> str:
    """Return who asks, as USER@HOST; behind sudo the one who typed it."""
    import pwd

    user = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    if not user:
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:  # a container may have no entry for its user
            user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def opened(settings: Settings) -> Iterator[StateStore]:
    """Give the block the log, with nothing folded in yet."""
    from scheduler.state_store import StateStore

    store = StateStore(settings.state_log())
    try:
        yield store
    finally:
        store.close()


def wait(store: StateStore, is_done: Callable[[], bool], show: Callable[[], object] = lambda: None) -> None:
    """Follow the log until `is_done()`, and `show` what there is to see each time."""
    while not is_done():
        time.sleep(_POLL_S)
        store.refresh()
        show()
