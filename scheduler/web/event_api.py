"""The events of the log for programs: in pages, and as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, closing, suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from workers.segments import LogUnreadable

from .answers import EventList
from .desk import desk_of
from .feed import Feed
from .log_events import Choice, Followed, end_of, id_of, open_at, page_of
from .queries import EventsQuery, FollowQuery
from .run_requests import in_thread
from .stream import STILL_HERE, beats, sse

__all__ = ["follow_events", "list_events"]


async def list_events(request: Request, query: EventsQuery) -> EventList:
    """Return a page of the events of the state log."""
    path, choice = desk_of(request).feed.settings.state_path, _choice(query)
    events, place, has_more = await in_thread(lambda: page_of(path, query.cursor or "", choice, query.limit))
    return EventList(events, place if has_more else None, place)


async def follow_events(request: Request, query: FollowQuery) -> Response:
    """Stream the events that come; those behind `Last-Event-ID` first."""
    feed, choice = desk_of(request).feed, _choice(query)
    path, last = feed.settings.state_path, request.headers.get("last-event-id") or query.last_event_id
    followed = await in_thread(lambda: open_at(path, last or end_of(path), choice))
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    return sse(_lines(feed, followed))


def _choice(query: EventsQuery | FollowQuery) -> Choice:
    return Choice(query.event or "", query.run or "", query.schedule or "")


async def _lines(feed: Feed, followed: Followed) -> AsyncIterator[str]:
    # An id without data is kept by a client: whoever is cut off before the first event misses none.
    yield f"retry: 1000\nid: {id_of(followed.place)}\n\n"
    # Of a log that cannot be read the stream ends; whoever comes back is told why.
    with closing(followed), suppress(LogUnreadable):
        async for text in _new_lines(followed):
            yield text
        async with aclosing(beats(feed)) as changes:
            async for change in changes:
                if change is None:
                    yield STILL_HERE
                async for text in _new_lines(followed):
                    yield text
                if followed.is_torn:
                    return


async def _new_lines(followed: Followed) -> AsyncIterator[str]:
    """Yield what has come, a part of the log at a time."""
    found: list[str] = []
    for event in followed.read():
        if event is not None:
            found.append(f"id: {id_of(followed.place)}\ndata: {msgspec.json.encode(event).decode()}\n\n")
            continue
        if found:
            yield "".join(found)
            found.clear()
        # Others have their turn while one reads what has long been.
        await asyncio.sleep(0)
