"""What the handlers share: the feed, the processes, the directory of schedules."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import Request

from scheduler.audit.report import Report
from scheduler.forecast_facts import ForecastFacts

from .book import Book
from .feed import Feed
from .jobs import Job
from .past import Past
from .processes import Processes
from .task_grid import TaskGrid
from .tokens import User
from .views.schedules import Roster

__all__ = ["Desk", "by_of", "desk_of", "user_of"]


class Desk:
    """One for the whole application."""

    def __init__(self, feed: Feed, directory: Path) -> None:
        self.feed = feed
        self.directory = directory
        # Of this process: what a former one counted says nothing of what this one counts.
        self.token = secrets.token_hex(6)
        self.past = Past(feed)
        self.processes = Processes()
        self.book = Book(directory)
        self.roster = Roster()
        self.grid = TaskGrid(Path(feed.settings.events_path))
        self.forecast = Job(ForecastFacts, feed.announce)
        self.audit = Job(Report, feed.announce)

    def now(self) -> datetime:
        """Return the present moment: where time enters."""
        return datetime.now(UTC)


def desk_of(request: Request) -> Desk:
    """Return what a request's handler works with."""
    desk: Desk = request.app.state.desk
    return desk


def user_of(request: Request) -> User:
    """Return who asks; the gate has let nobody else through."""
    user: User = request.scope["user"]
    return user


def by_of(request: Request) -> str:
    """Return who asks, as the log has it."""
    return f"{user_of(request).name}@dashboard"
