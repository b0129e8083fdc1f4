"""The systemd notification protocol (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

__all__ = ["Systemd"]

logger = logging.getLogger(__name__)


class Systemd:
    """Tells the service manager how we are; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and int(usec) else None

    def notify(self, **assignments: str) -> None:
        """Send assignments such as `READY="1"` or `STATUS="3 running"`."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{name}={value}" for name, value in assignments.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(text.encode(), address)
        except OSError as error:
            logger.warning("systemd cannot be told %r: %s", text, error)
