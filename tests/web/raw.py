"""Bytes to a server, and what it answers: what no client of HTTP would send."""

from __future__ import annotations

import socket
from contextlib import suppress


class Raw:
    """One connection."""

    def __init__(self, port: int, sent: bytes = b"") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._end = b""
        self.send(sent)

    def send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # it is read afterwards what was said before
            self._socket.sendall(data)

    def all(self) -> bytes:
        """Return all that comes until the server closes."""
        said = b""
        with suppress(ConnectionError):
            while data := self._socket.recv(65536):
                said += data
        return said

    def head(self) -> bytes:
        """Return what has come once the head of an answer has, or all if there is none."""
        said = b""
        with suppress(ConnectionError):
            while b"\r\n\r\n" not in said and (data := self._socket.recv(65536)):
                said += data
        return said

    def is_closed(self) -> bool:
        """Say whether the server has closed it; what it said before is passed over."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        finally:
            self._socket.settimeout(20)
        return True

    def has_ended(self) -> bool:
        """Say whether an answer in chunks has come to its end."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while data := self._socket.recv(65536):
                self._end = (self._end + data)[-5:]
        self._socket.settimeout(20)
        return self._end == b"0\r\n\r\n"

    def close(self) -> None:
        self._socket.close()


def status_of(said: bytes) -> int:
    """Return the status of an answer, 0 where there is none."""
    return int(said.split(b" ")[1]) if said.startswith(b"HTTP/1.1 ") else 0
