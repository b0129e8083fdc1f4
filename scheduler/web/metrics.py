"""The figures of the service for Prometheus, at `/metrics`: worked out from what the dashboard has folded already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler.service_processes import NoService

from .desk import Desk, desk_of
from .run_ends import Buckets
from .run_index import OPEN
from .run_requests import in_thread
from .views.health import LogFacts, logs_of
from .views.schedules import Wanted

__all__ = ["ROUTES"]

_WORKERS = ("idle", "busy", "gone")
_ENDS = ("success", "failed", "timeout", "crashed", "cancelled")


class _Figures(Collector):
    """One look at a desk, for one answer: nothing is registered for longer."""

    def __init__(self, desk: Desk, logs: list[LogFacts], now: datetime) -> None:
        self._desk, self._logs, self._now = desk, logs, now

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        feed = self._desk.feed
        supervisor, workers = self._desk.processes.look(feed.history, self._now)
        yield _gauge("tickpool_up", "1 where the service runs", float(supervisor.pid is not None))
        yield _gauge("tickpool_caught_up", "1 where older history has been read", float(feed.is_caught_up))
        states: Counter[str] = Counter(each.state for each in workers)
        yield _by("tickpool_workers", "Worker processes", "state", {state: states[state] for state in _WORKERS})
        wanted = (None if isinstance(supervisor, NoService) else supervisor.max_parallel) or 0
        yield _gauge("tickpool_workers_wanted", "SCHED_MAX_PARALLEL", float(wanted))
        runs = Counter(run.status for run in feed.history.runs.values())
        yield _by("tickpool_runs", "Open runs", "status", {status: runs[status] for status in OPEN})
        yield from self._ends()
        yield from self._log()
        yield _by("tickpool_schedules", "Schedules in force", "state", self._schedules())
        faults = float(len(feed.history.faults))
        yield _gauge("tickpool_configuration_faults", "Faults in the files of schedules", faults)

    def _schedules(self) -> dict[str, int]:
        """Count each schedule once: an invalid one that is paused is invalid, as on its page."""
        feed, roster = self._desk.feed, self._desk.roster
        roster.refresh(feed)
        counts, left = {}, set(roster.names)
        for state in ("invalid", "paused", "disabled"):
            found = left.intersection(roster.wanted(feed, Wanted(status=state), self._now))
            counts[state], left = len(found), left - found
        return {"active": len(left), **counts}

    def _ends(self) -> Iterator[Metric]:
        ends = self._desk.feed.ends
        counter = CounterMetricFamily("tickpool_attempts_ended", "Attempts of runs that ended", labels=["status"])
        for status in sorted({*_ENDS, *ends.ended}):
            counter.add_metric([status], ends.ended[status])
        yield counter
        yield _histogram("tickpool_attempt_duration_seconds", "How long attempts of runs took", ends.durations)
        about = "How late after its fire time a run started"
        yield _histogram("tickpool_start_lateness_seconds", about, ends.latenesses)

    def _log(self) -> Iterator[Metric]:
        feed = self._desk.feed
        yield _by("tickpool_log_bytes", "Bytes of a log", "log", {each.name: each.bytes for each in self._logs})
        yield _by("tickpool_log_segments", "Files of a log", "log", {each.name: each.segments for each in self._logs})
        yield _gauge("tickpool_log_seq", "Number of the newest line of the state log", float(feed.seq))
        yield _gauge(
            "tickpool_corrupt_lines", "Lines of the state log's newest segment that are no event", feed.corrupt
        )
        judged = max((state.watermark for state in feed.history.schedules.values()), default=0.0)
        about = "The moment up to which the service has judged fire times"
        yield _gauge("tickpool_judged_until_timestamp_seconds", about, judged)


async def _metrics(request: Request) -> Response:
    desk = desk_of(request)
    logs = await in_thread(lambda: logs_of(desk.feed.settings))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(desk, logs, desk.now()))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=content_type)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _by(name: str, about: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, about: str, buckets: Buckets) -> Metric:
    total, found = 0, []
    for bound, count in zip([*map(str, map(float, buckets.bounds)), "+Inf"], buckets.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return HistogramMetricFamily(name, about, buckets=found, sum_value=buckets.sum_s)


ROUTES = [Route("/metrics", _metrics)]
