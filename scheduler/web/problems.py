"""Errors as the API tells them: problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

__all__ = ["Problem", "problem"]


class Problem(Exception):
    """An answer that is an error: status, title, detail."""

    def __init__(self, status: int, title: str, detail: str = "") -> None:
        super().__init__(status, title, detail)
        self.status, self.title, self.detail = status, title, detail


def problem(status: int, title: str, detail: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as an answer."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(body), status, dict(headers or {}), "application/problem+json")
