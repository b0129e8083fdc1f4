"""Streams of server-sent events: what has changed, for pages; and what every stream needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .desk import desk_of
from .feed import Change, Feed

__all__ = ["ROUTES", "STILL_HERE", "beats", "sse"]

STILL_HERE = ": still here\n\n"
_BEAT_S = 15.0
_NAMES = 200


async def _changes(request: Request) -> Response:
    feed = desk_of(request).feed
    return sse(_change_lines(feed, request.headers.get("last-event-id", "")))


async def _change_lines(feed: Feed, last_id: str) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    if last_id and last_id != str(feed.seq):
        yield _change_line(Change(feed.seq, frozenset(), frozenset()))
    async with aclosing(beats(feed)) as changes:
        async for change in changes:
            yield STILL_HERE if change is None else _change_line(change)


async def beats(feed: Feed) -> AsyncGenerator[Change | None, None]:
    """Yield what changes, and None where nothing has for a while: whoever listens is to know that it is still here.

    It ends with the feed.
    """
    changes = feed.changes()
    waiting = asyncio.ensure_future(anext(changes))
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=_BEAT_S)
            if not done:
                yield None
                continue
            if isinstance(waiting.exception(), StopAsyncIteration):
                return
            yield waiting.result()
            waiting = asyncio.ensure_future(anext(changes))
    finally:
        waiting.cancel()
        # Before that it is at work, and cannot be closed.
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await waiting
        await changes.aclose()


# All are told of the same change at once.
@lru_cache(8)
def _change_line(change: Change) -> str:
    data = {"seq": change.seq, "runs": sorted(change.runs)[:_NAMES], "schedules": sorted(change.schedules)[:_NAMES]}
    return f"id: {change.seq}\nevent: change\ndata: {json.dumps(data)}\n\n"


def sse(lines: AsyncIterator[str]) -> Response:
    """Return a stream as an answer."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


ROUTES = [Route("/stream", _changes)]
