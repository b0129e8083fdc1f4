"""The systemd notification protocol (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Systemd"]

logger = logging.getLogger(__name__)


class Systemd:
    """Tells the service manager how we are; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._pinged_at = float("-inf")
        usec = environ.get("WATCHDOG_USEC", "")
        # With another process's pid the watchdog was meant for that one (sd_watchdog_enabled(3)).
        is_ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        is_on = bool(self._address) and is_ours and usec.isdecimal() and int(usec) > 0
        # sd_watchdog_enabled(3) wants a ping every half of the interval; a quarter leaves room for a late one.
        self.ping_every_s = int(usec) / 1e6 / 4 if is_on else None

    def notify(self, **assignments: str) -> None:
        """Send assignments such as `READY="1"` or `STATUS="3 running"`."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{name}={value}" for name, value in assignments.items())
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as channel:
                channel.sendto(text.encode(), address)
        except OSError as error:
            logger.warning("systemd cannot be told %r: %s", text, error)

    def ping(self) -> None:
        """Tell the watchdog that we live, if it is time to."""
        now = time.monotonic()
        if self.ping_every_s is not None and now - self._pinged_at >= self.ping_every_s:
            self._pinged_at = now
            self.notify(WATCHDOG="1")

    def show(self, status: str) -> None:
        """Show a line in `systemctl status`, if it is another than before."""
        if status != self._status:
            self._status = status
            self.notify(STATUS=status)
