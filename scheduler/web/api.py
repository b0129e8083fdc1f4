"""The API: every endpoint there is, in one table, from which its routes and its description are made."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from starlette.requests import Request
from starlette.routing import Mount, Router

from . import event_api, run_api, schedule_acts, schedule_api
from .answers import Done, EventList, Me, Plan, RunList, ScheduleList, TaskList
from .endpoints import Endpoint, Media, Nothing, by_feed, by_second, routes_of
from .openapi import document
from .past import PastState
from .queries import (
    AnswerBody,
    AtQuery,
    AttemptQuery,
    BackfillBody,
    EventsQuery,
    FollowQuery,
    LogQuery,
    NowQuery,
    OutputQuery,
    PauseBody,
    RerunBody,
    RetryBody,
    RunsQuery,
    SchedulesQuery,
    TasksQuery,
    TriggerBody,
)
from .run_output import Log
from .views.forecast import Forecast
from .views.health import Health
from .views.now import Now
from .views.run import RunView
from .views.schedule import ScheduleView

__all__ = ["ENDPOINTS", "mount"]

_PATH = "/api/v1"
# Of the API, whose first number its path has: what is added to it makes another second one.
_VERSION = "1.0"


async def _description(_request: Request, _query: Nothing) -> dict[str, Any]:
    return _document()


def _by_start(_request: Request) -> object:
    return "for as long as this process lives"


# fmt: off
ENDPOINTS = (
    Endpoint("GET", "/now", "now", "service", "What runs, waits, failed and comes",
             schedule_api.tell_now, [Now], NowQuery, by_second),
    Endpoint("GET", "/forecast", "forecast", "service", "The load to come, and what helps; the first look has it made",
             schedule_api.tell_forecast, [Forecast]),
    Endpoint("GET", "/health", "health", "service", "What the audit proves, the logs, deaths, faults, the disk",
             schedule_api.tell_health, [Health], Nothing, by_second),
    Endpoint("POST", "/health/audit", "audit", "service", "Have the log audited now",
             schedule_api.ask_audit, [Done], problems=[409]),
    Endpoint("GET", "/state", "state", "service", "What there was at a past moment",
             run_api.tell_state, [PastState], AtQuery, by_feed, [404]),
    Endpoint("GET", "/me", "me", "service", "Whose token it is",
             schedule_api.tell_me, [Me]),

    Endpoint("GET", "/schedules", "list_schedules", "schedules", "All schedules, or those asked for",
             schedule_api.list_schedules, [ScheduleList], SchedulesQuery, problems=[410]),
    Endpoint("GET", "/schedules/{schedule_id}", "schedule", "schedules", "A schedule: its year, its runs, what comes",
             schedule_api.tell_schedule, [ScheduleView], problems=[404]),
    Endpoint("POST", "/schedules/{schedule_id}/trigger", "trigger", "schedules", "Run it, now or at a time",
             schedule_acts.do_trigger, [Done], TriggerBody, problems=[404, 409]),
    Endpoint("POST", "/schedules/{schedule_id}/pause", "pause", "schedules", "Pause it",
             schedule_acts.do_pause, [Done], PauseBody, problems=[404, 409]),
    Endpoint("POST", "/schedules/{schedule_id}/resume", "resume", "schedules", "Resume it",
             schedule_acts.do_resume, [Done], problems=[404, 409]),
    Endpoint("POST", "/schedules/{schedule_id}/backfill", "backfill", "schedules",
             "Run fire times of the past, or say with `dry_run` what that comes to",
             schedule_acts.do_backfill, [Done, Plan], BackfillBody, problems=[404, 409]),

    Endpoint("GET", "/runs", "list_runs", "runs", "All runs, or those asked for, newest first",
             run_api.list_runs, [RunList], RunsQuery, by_feed, [410]),
    Endpoint("GET", "/runs/{run_id}", "run", "runs", "A run: why it ran, its attempts, its tasks, what it asks",
             run_api.tell_run, [RunView], AttemptQuery, problems=[404, 410]),
    Endpoint("GET", "/runs/{run_id}/tasks", "list_tasks", "runs", "The tasks of an attempt",
             run_api.list_tasks, [TaskList], TasksQuery, problems=[404, 410]),
    Endpoint("GET", "/runs/{run_id}/log", "log", "runs", "Lines of the output of an attempt",
             run_api.tell_log, [Log], LogQuery, problems=[404]),
    Endpoint("GET", "/runs/{run_id}/log.txt", "download", "runs", "All of the output, as a file",
             run_api.tell_log_text, [Media("text/plain")], OutputQuery, run_api.by_output, [404]),
    Endpoint("POST", "/runs/{run_id}/cancel", "cancel", "runs", "End it, and the runs that it has asked for",
             run_api.ask_cancel, [Done], problems=[404, 409]),
    Endpoint("POST", "/runs/{run_id}/retry", "retry", "runs", "A further attempt",
             run_api.ask_retry, [Done], RetryBody, problems=[404, 409]),
    Endpoint("POST", "/runs/{run_id}/rerun", "rerun", "runs", "A new run like it",
             run_api.ask_rerun, [Done], RerunBody, problems=[404, 409]),
    Endpoint("POST", "/runs/{run_id}/approvals/{task_id}", "answer", "runs", "Answer what a task of it asks",
             run_api.answer_question, [Done], AnswerBody, problems=[404, 409]),

    Endpoint("GET", "/events", "list_events", "events", "The events of the log, oldest first",
             event_api.list_events, [EventList], EventsQuery, by_feed, [410]),
    Endpoint("GET", "/events/stream", "follow_events", "events",
             "The events of the log as they come, as server-sent events",
             event_api.follow_events, [Media("text/event-stream")], FollowQuery, problems=[410]),

    Endpoint("GET", "/openapi.json", "openapi", "service", "This description",
             _description, [dict[str, Any]], Nothing, _by_start),
)
# fmt: on


def mount() -> Mount:
    """Return the API as a route of the application."""
    # A path with a slash too many is no path of it: a redirect is no answer for a program.
    return Mount(_PATH, app=Router(routes_of(ENDPOINTS), redirect_slashes=False))


@lru_cache(1)
def _document() -> dict[str, Any]:
    return document(ENDPOINTS, _VERSION)
