"""A dashboard that has as many files open as it may says so, and does not say that a run has said nothing."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from gated import OPERATOR, asking, bearer
from service import WaitFor
from starlette.applications import Starlette

from scheduler.state_store import record_event


@pytest.mark.parametrize("path", ["log", "log?find=x", "log?before=1", "log.txt"])
def test_output_that_cannot_be_opened_is_told_as_such(
    app: Starlette, tmp_path: Path, wait_for: WaitFor, path: str
) -> None:
    request = {"event": "run_requested", "run_id": "r.1", "attempt": 1, "dag": "d.yaml", "project": str(tmp_path)}
    record_event(request, tmp_path / "logs" / "state.jsonl")
    place = tmp_path / "logs" / "runs" / "r.1" / "1"
    place.mkdir(parents=True)
    (place / "t.1.log").write_bytes(b"x\n")
    where = f"/api/v1/runs/r.1/{path}"
    with asking(app) as client:
        client.headers.update(bearer(OPERATOR))
        wait_for(lambda: client.get(where).status_code == 200, what="the run")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd")))
        holes = [os.open(os.devnull, os.O_RDONLY) for _ in range(used)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
            answer = client.get(where)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in holes:
                os.close(each)
        assert (answer.status_code, answer.json()["title"]) == (503, "The log cannot be read")
        assert answer.json()["detail"].endswith("cannot be read: Too many open files")
        assert client.get(where).status_code == 200
