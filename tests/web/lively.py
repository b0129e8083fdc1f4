"""A project that lives: its tenants, schedules and DAGs lie in `project/`; here its service is given a history."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from dashboard import Dashboard
from service import Service, WaitFor

PROJECT = Path(__file__).with_name("project")
# What comes by itself every few seconds, which a test that looks at a page twice does not want.
BUSY = "busy.yaml"


class Lively:
    """A service on the project with a dashboard beside it; `ann` asks for what makes a history."""

    def __init__(self, service: Service, dashboard: Dashboard, wait_for: WaitFor, *, is_busy: bool = False) -> None:
        self.service, self.dashboard, self._wait_for = service, dashboard, wait_for
        shutil.copytree(PROJECT, service.root, dirs_exist_ok=True)
        if not is_busy:
            (service.root / "schedules" / BUSY).unlink()
        service.environ["SCHED_MAX_PARALLEL"] = "4"
        self.supervisor = service.start()
        wait_for(service.is_ready, timeout=30, what="the service")
        self._api: httpx.Client = dashboard.start().client()
        self.paths: dict[str, str] = {}
        self.wait(lambda: self.get("/schedules/log_archive"), "the schedules")

    def wait(self, is_so: Callable[[], object], what: str) -> None:
        """Wait until it is so."""
        self._wait_for(is_so, timeout=240, what=what)

    def get(self, path: str) -> dict[str, Any]:
        """Return a part of the API; empty where there is none."""
        answer = self._api.get(f"/api/v1{path}")
        return dict(answer.json()) if answer.status_code == 200 else {}

    def post(self, path: str, **values: object) -> dict[str, Any]:
        """Ask for a change by the API."""
        answer = self._api.post(f"/api/v1{path}", json=values)
        assert answer.status_code < 300, answer.text
        return dict(answer.json())

    def trigger(self, name: str, status: str = "", **params: object) -> str:
        """Ask for a run, and wait until it is so; return its run_id."""
        run_id = str(self.post(f"/schedules/{name}/trigger", params=params)["run_id"])
        if status:
            self.wait(lambda: self.dashboard.has_seen(run_id, status), f"{run_id} as {status}")
        return run_id

    def backfill(self, name: str, days: int, most: int) -> None:
        """Run the fire times of so many days."""
        first = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}"
        self.post(f"/schedules/{name}/backfill", **{"from": first, "max_parallel": most})

    def has_backfilled(self) -> bool:
        """Say whether all that was backfilled has ended."""
        asked, ended = (len(self.service.events(f"backfill_{each}")) for each in ("requested", "finished"))
        return asked == ended

    def audit(self) -> None:
        """Have the log judged as it is now."""
        self.wait(lambda: self._api.post("/api/v1/health/audit").status_code < 300, "an audit that is not too soon")
        self.wait(lambda: not self.get("/health")["audit"]["is_pending"], "the audit")

    def break_file(self) -> None:
        """Write a fault into a file: its schedules go on as they were."""
        self._rewrite("0 5 1 * *", "0 5 32 * *")
        self.wait(lambda: "log_archive" in str(self.get("/health")["faults"]), "the fault")

    def mend_file(self) -> None:
        """Take the fault away again."""
        self._rewrite("0 5 32 * *", "0 5 1 * *")
        self.wait(lambda: not self.get("/health")["faults"], "the file as it was")

    def _rewrite(self, text: str, other: str) -> None:
        file = self.service.root / "schedules" / "platform.yaml"
        file.write_text(file.read_text("utf-8").replace(text, other), "utf-8")

    def live(self, *, days: int) -> Lively:
        """Let runs succeed, fail, ask and go on, and fire times of the past be run; `paths` are its pages then."""
        self.post("/schedules/disk_clean_up/pause", until="7d", reason="the new disks come on Friday")
        self.backfill("ledger_close", days, 3)
        self.backfill("warehouse_load", min(days, 30), 2)
        ended = self.trigger("orders_import", "success")
        agreed = self.trigger("release_web", "parked", version="2.13.2")
        self.post(f"/runs/{agreed}/approvals/approve", answer="approve", comment="the notes are complete")
        failed = self.trigger("orders_import", "failed", limit=0, shop="market")
        retried = self.trigger("stock_check", "success")
        self.post(f"/runs/{retried}/retry", what="all")
        self.trigger("database_backup", "success")
        self.trigger("morning_report", "success")
        self.wait(lambda: self.dashboard.has_seen(agreed, "success"), f"{agreed} as success")
        self.wait(self.has_backfilled, "the backfills")
        asking = self.trigger("release_web", "parked")
        cancelled = self.trigger("warehouse_load", "running", pace=600)
        self.post(f"/runs/{cancelled}/cancel")
        running = self.trigger("warehouse_load", "running", pace=600)
        self.wait(lambda: self.get("/forecast")["hours"], "the forecast")
        self.audit()
        then = datetime.now(UTC) - timedelta(seconds=8)
        self.paths = {
            "now": "/",
            "schedules": "/schedules",
            "schedules-filtered": "/schedules?status=paused&q=disk&sort=next",
            "schedule": "/schedules/ledger_close",
            "schedule-paused": "/schedules/disk_clean_up",
            "run": f"/runs/{ended}",
            "run-failed": f"/runs/{failed}",
            "run-running": f"/runs/{running}",
            "run-approval": f"/runs/{asking}",
            "run-cancelled": f"/runs/{cancelled}",
            "run-attempts": f"/runs/{retried}",
            "forecast": "/forecast",
            "forecast-pool": "/forecast?of=warehouse",
            "history": "/history",
            "history-filtered": "/history?q=ledger&tenant=acme-corp&status=failed",
            "history-nothing": "/history?q=nothing-is-called-so&status=",
            "history-past": f"/history?at={then.timestamp():.0f}#past",
            "health": "/health",
            "error": "/runs/nothing-is-called-so",
        }
        return self
