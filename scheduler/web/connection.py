"""The server and one connection of it: whoever is slow to ask, or is one too many, is cut off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MOST_CONNECTIONS", "Connection", "Server"]

MOST_CONNECTIONS = 500
# Beyond the others there is room to be told that there is no more.
_ROOM_TO_REFUSE = 50
_ASK_WITHIN_S = 10.0


class Connection(H11Protocol):
    """uvicorn's, which waits for ever for a request that comes byte by byte, and accepts as many as there are."""

    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS + _ROOM_TO_REFUSE:
            transport.abort()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request; it has to be whole, with its body, in time."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        super().connection_lost(exc)
        self._wait()

    def _wait(self) -> None:
        is_asking = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()
        if is_asking and self._cut is None:
            self._cut = self.loop.call_later(_ASK_WITHIN_S, self.transport.abort)
        elif not is_asking and self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _should_upgrade(self) -> bool:
        return False  # there are no web sockets, and nothing to be said about each that is asked for


class Server(uvicorn.Server):
    """uvicorn's, which waits for streams to end by themselves, and then tells of each that it had to cut off.

    `end_streams` is called before it waits.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the rest."""
        self._end_streams()
        await super().shutdown(sockets)
