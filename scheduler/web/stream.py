"""The event streams: what has changed, for pages; the events of the log themselves, for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .desk import desk_of
from .feed import Change, Feed

__all__ = ["ROUTES"]

_BEAT_S = 15.0
# A page that is told more often has no time to show it.
_LEAST_S = 0.1
_NAMES = 200


async def _changes(request: Request) -> Response:
    feed = desk_of(request).feed
    return _sse(_change_lines(feed, request.headers.get("last-event-id", "")))


async def _change_lines(feed: Feed, last_id: str) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    if last_id and last_id != str(feed.seq):
        yield _change_line(Change(feed.seq, frozenset(), frozenset()))
    changes = feed.changes()
    try:
        waiting = asyncio.ensure_future(anext(changes))
        while True:
            done, _ = await asyncio.wait([waiting], timeout=_BEAT_S)
            if not done:
                yield ": still here\n\n"
                continue
            yield _change_line(waiting.result())
            await asyncio.sleep(_LEAST_S)
            waiting = asyncio.ensure_future(anext(changes))
    finally:
        waiting.cancel()
        # Before that it is at work, and cannot be closed.
        with suppress(asyncio.CancelledError):
            await waiting
        await changes.aclose()


def _change_line(change: Change) -> str:
    data = {"seq": change.seq, "runs": sorted(change.runs)[:_NAMES], "schedules": sorted(change.schedules)[:_NAMES]}
    return f"id: {change.seq}\nevent: change\ndata: {json.dumps(data)}\n\n"


def _sse(lines: AsyncIterator[str]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


ROUTES = [Route("/stream", _changes)]
